/* The witness's judgement: every verdict, and for each rule a test that fails when the rule is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "witness/record_core.h"

#define G 2800u
#define START (1000 * NSEC_PER_SEC)
#define A 0u
#define B 1u
#define IN_A 1u
#define IN_B 2u

static uint64_t at(uint64_t ms)
{
    return START + ms * NSEC_PER_MSEC;
}

static struct id group_id(unsigned number)
{
    struct id id = {0};
    id.bytes[0] = 9;
    memcpy(&id.bytes[4], &number, sizeof number);
    return id;
}

static struct record_event cas_event(unsigned node, unsigned group, uint64_t e, uint8_t m, uint64_t e2, uint8_t m2)
{
    return (struct record_event){
        .kind = RECORD_EV_CAS, .node = node, .group = group_id(group), .from = {{e, m}}, .from_count = 1, .to = {e2, m2},
    };
}

static struct record_group groups[RECORD_GROUPS_MAX]; /* of the one cluster that a test has */

static struct record_answer step(struct record_cluster *cluster, struct record_event event, uint64_t ms)
{
    struct record_answer answer;
    event.now_ns = at(ms);
    record_step(cluster, &event, &answer);
    return answer;
}

static struct record_answer cas(struct record_cluster *cluster, struct record_event event, bool was_primary, uint64_t ms)
{
    event.was_primary = was_primary;
    return step(cluster, event, ms);
}

static struct record_answer lease(struct record_cluster *cluster, unsigned node, int claimed_group, uint64_t ms)
{
    struct id claim = group_id((unsigned)claimed_group);
    struct record_event event = {
        .kind = RECORD_EV_LEASE, .node = node, .counter = 0, .promise_ms = G, .claims = &claim,
        .claim_count = claimed_group >= 0,
    };
    return step(cluster, event, ms);
}

/* Group 1 at (1,{A,B}), guard long over, both leases known to be G, nobody heard since. Time: 100 s. */
#define T0 100000u
static void start(struct record_cluster *cluster)
{
    record_init(cluster, groups, RECORD_GROUPS_MAX, START);
    cluster->nodes[0].promise_ms = cluster->nodes[1].promise_ms = G;
    struct record_answer answer = cas(cluster, cas_event(A, 1, 0, 0, 1, 3), false, T0 - 1000);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_true(answer.persist_group);
    assert_int_equal(cluster->counter, 1);
}

static void first_record_comes_from_nothing(void **state)
{
    struct record_cluster cluster;
    record_init(&cluster, groups, RECORD_GROUPS_MAX, START);
    struct record_answer answer = cas(&cluster, cas_event(A, 1, 0, 0, 1, 3), false, 0);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_int_equal(answer.record.epoch, 1);
    assert_int_equal(answer.record.members, 3);
    assert_int_equal(cluster.groups[answer.group_index].changed, 1);
    assert_int_equal(cas(&cluster, cas_event(A, 2, 0, 0, 1, IN_B), false, 0).reason, RECORD_MEMBERS);
    assert_int_equal(cas(&cluster, cas_event(A, 3, 0, 0, 0, 3), false, 0).reason, RECORD_EPOCH);
    assert_int_equal(cluster.counter, 1);
}

static void primary_excludes_at_once(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    lease(&cluster, A, 1, T0);
    lease(&cluster, B, -1, T0);
    struct record_answer answer = cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0 + 10);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_int_equal(answer.record.members, IN_A);
    assert_int_equal(answer.loser_ms, G - 10);
    assert_true(answer.persist_group);
    assert_int_equal(cluster.counter, 2);
}

static void primary_excludes_even_one_that_claimed_lately(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    lease(&cluster, B, 1, T0); /* B was primary until it handed the role to A */
    assert_int_equal(cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), false, T0 + 10).verdict, RECORD_WAIT);
    assert_int_equal(cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0 + 10).verdict, RECORD_OK);
}

static void repeating_is_idempotent(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    lease(&cluster, B, -1, T0);
    cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0 + 10);
    /* What W acknowledges to the loser later does not lengthen what it had when it was excluded. */
    lease(&cluster, B, -1, T0 + 500);
    struct record_answer answer = cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0 + 1000);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_false(answer.persist_group);
    assert_int_equal(answer.loser_ms, G - 1000);
    assert_int_equal(cluster.counter, 2);
}

static void other_than_primary_waits_for_a_fresh_primary(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    lease(&cluster, A, 1, T0);
    struct record_answer answer = cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + 100);
    assert_int_equal(answer.verdict, RECORD_WAIT);
    assert_int_equal(answer.wait_ms, G - 100);
    assert_int_equal(answer.record.epoch, 1);
    assert_int_equal(cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + G - 1).verdict, RECORD_WAIT);
    answer = cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + G);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_int_equal(answer.loser_ms, 0);
}

static void wait_ends_when_nobody_claims_the_group(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    lease(&cluster, A, 1, T0);
    /* A lives on, but as primary of another group only. */
    for (unsigned ms = 500; ms <= G; ms += 100)
        lease(&cluster, A, 7, T0 + ms);
    assert_int_equal(cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + G - 1).verdict, RECORD_WAIT);
    struct record_answer answer = cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + G);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_int_equal(answer.loser_ms, G); /* A's lease itself is fresh: B serves only after it */
}

static void wait_lasts_while_the_primary_claims(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    for (unsigned ms = 0; ms <= 10 * G; ms += 600)
        lease(&cluster, A, 1, T0 + ms);
    assert_int_equal(cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + 10 * G).verdict, RECORD_WAIT);
}

static void guard_after_start_grants_no_exclusion(void **state)
{
    struct record_cluster cluster;
    struct record_position position = {1, 3};
    struct id id = group_id(1);
    record_init(&cluster, groups, RECORD_GROUPS_MAX, START);
    cluster.nodes[0].promise_ms = 1250;
    cluster.nodes[1].promise_ms = G; /* I12: the longest promise counts */
    cluster.counter = 1;
    assert_int_equal(record_load_group(&cluster, &id, position, 1), 0);
    assert_true(lease(&cluster, A, 1, 1).acknowledged); /* but acknowledges at once */
    struct record_answer answer = cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, 100);
    assert_int_equal(answer.verdict, RECORD_WAIT);
    assert_int_equal(answer.wait_ms, G - 100);
    assert_int_equal(record_guard_left_ms(&cluster, at(100)), G - 100);
    assert_int_equal(cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, G).verdict, RECORD_OK);
}

static void the_guard_is_the_longest_promise_of_either(void **state)
{
    struct record_cluster cluster;
    record_init(&cluster, groups, RECORD_GROUPS_MAX, START);
    cluster.nodes[0].promise_ms = G;
    cluster.nodes[1].promise_ms = 1250;
    assert_int_equal(record_guard_left_ms(&cluster, at(0)), G);
    cluster.nodes[0].promise_ms = 1250;
    cluster.nodes[1].promise_ms = G;
    assert_int_equal(record_guard_left_ms(&cluster, at(0)), G);
}

static void a_grant_of_an_earlier_boot_carries_the_guard(void **state)
{
    struct record_cluster cluster;
    struct record_position position = {2, IN_B};
    struct id id = group_id(1);
    record_init(&cluster, groups, RECORD_GROUPS_MAX, START);
    cluster.nodes[0].promise_ms = cluster.nodes[1].promise_ms = G;
    cluster.counter = 2;
    record_load_group(&cluster, &id, position, 2);
    struct record_answer answer = cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, 100);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_int_equal(answer.loser_ms, G - 100);
}

static void the_excluded_one_is_stale(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0);
    struct record_answer answer = cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), true, T0 + 10);
    assert_int_equal(answer.verdict, RECORD_STALE);
    assert_int_equal(answer.record.epoch, 2);
    assert_int_equal(answer.record.members, IN_A);
    assert_int_equal(cas(&cluster, cas_event(B, 1, 2, IN_A, 3, IN_B), true, T0 + 10).verdict, RECORD_STALE);
}

static void a_member_behind_adopts(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0);
    cas(&cluster, cas_event(A, 1, 2, IN_A, 3, 3), true, T0);
    struct record_answer answer = cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + 10);
    assert_int_equal(answer.verdict, RECORD_ADOPT);
    assert_int_equal(answer.record.epoch, 3);
    assert_int_equal(answer.record.members, 3);
}

static void w_behind_says_so(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    assert_int_equal(cas(&cluster, cas_event(A, 1, 5, 3, 6, IN_A), true, T0).verdict, RECORD_BEHIND);
    assert_int_equal(cas(&cluster, cas_event(A, 2, 1, 3, 2, IN_A), true, T0).verdict, RECORD_BEHIND); /* unknown group */
}

static void one_set_of_members_per_epoch(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    struct record_answer answer = cas(&cluster, cas_event(A, 1, 1, IN_A, 2, IN_A), true, T0);
    assert_int_equal(answer.verdict, RECORD_REFUSED);
    assert_int_equal(answer.reason, RECORD_CONFLICT);
    assert_int_equal(cas(&cluster, cas_event(A, 1, 1, 3, 1, IN_A), true, T0).reason, RECORD_EPOCH);
    assert_int_equal(cas(&cluster, cas_event(A, 1, 1, 3, UINT64_MAX, IN_A), true, T0).reason, RECORD_EPOCH);
}

static void growth_only_by_the_sole_member(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0);
    assert_int_equal(cas(&cluster, cas_event(B, 1, 2, IN_A, 3, 3), true, T0).verdict, RECORD_STALE);
    assert_int_equal(cas(&cluster, cas_event(A, 1, 2, IN_A, 3, IN_B), true, T0).reason, RECORD_MEMBERS);
    struct record_answer answer = cas(&cluster, cas_event(A, 1, 2, IN_A, 3, 3), true, T0);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_int_equal(answer.record.members, 3);
    /* A retired group is nobody's: nothing grows out of it. */
    assert_int_equal(cas(&cluster, cas_event(A, 1, 3, 3, 4, 0), true, T0 + G).verdict, RECORD_OK);
    assert_int_equal(cas(&cluster, cas_event(A, 1, 4, 0, 5, 3), true, T0 + G).verdict, RECORD_STALE);
}

static void growth_in_doubt_takes_either_alternative(void **state)
{
    for (int grown = 0; grown <= 1; grown++) {
        struct record_cluster cluster;
        start(&cluster);
        cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0);
        if (grown)
            cas(&cluster, cas_event(A, 1, 2, IN_A, 3, 3), true, T0);
        struct record_event event = cas_event(A, 1, 2, IN_A, 4, IN_A);
        event.from[1] = (struct record_position){3, 3};
        event.from_count = 2;
        struct record_answer answer = cas(&cluster, event, true, T0 + 10);
        assert_int_equal(answer.verdict, RECORD_OK);
        assert_int_equal(answer.record.epoch, 4);
        assert_int_equal(answer.record.members, IN_A);
    }
}

static void consent_needs_no_wait(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    lease(&cluster, A, 1, T0);
    lease(&cluster, B, -1, T0);
    /* B's disk failed: B itself asks to be left out. */
    struct record_answer answer = cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_A), false, T0 + 10);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_int_equal(answer.record.members, IN_A);
    /* A learns it by adopting, with what is left of B's lease. */
    answer = cas(&cluster, cas_event(A, 1, 1, 3, 3, IN_A), true, T0 + 10);
    assert_int_equal(answer.verdict, RECORD_ADOPT);
    assert_int_equal(answer.loser_ms, G - 10);
}

static void an_old_store_grants_nothing(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    struct record_event event = {.kind = RECORD_EV_POLL, .node = B, .counter = 2};
    assert_true(step(&cluster, event, T0).persist_restored);
    assert_false(step(&cluster, event, T0).persist_restored); /* once */
    assert_false(lease(&cluster, A, 1, T0).acknowledged);
    struct record_answer answer = cas(&cluster, cas_event(A, 1, 1, 3, 2, IN_A), true, T0);
    assert_int_equal(answer.verdict, RECORD_REFUSED);
    assert_int_equal(answer.reason, RECORD_RESTORED);
    /* Even what would be idempotent: the store may lack what came after. */
    assert_int_equal(cas(&cluster, cas_event(A, 1, 0, 0, 1, 3), true, T0).verdict, RECORD_REFUSED);
}

static void an_equal_counter_is_no_old_store(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    struct record_event event = {.kind = RECORD_EV_POLL, .node = B, .counter = 1};
    assert_false(step(&cluster, event, T0).persist_restored);
    assert_true(lease(&cluster, A, 1, T0).acknowledged);
}

static void groups_are_limited_and_retired_ones_make_room(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    for (unsigned i = 2; i <= RECORD_GROUPS_MAX; i++)
        assert_int_equal(cas(&cluster, cas_event(A, i, 0, 0, 1, 3), false, T0).verdict, RECORD_OK);
    assert_int_equal(cas(&cluster, cas_event(A, 99, 0, 0, 1, 3), false, T0).reason, RECORD_QUOTA);
    assert_int_equal(cas(&cluster, cas_event(A, 5, 1, 3, 2, 0), true, T0).verdict, RECORD_OK);
    struct record_answer answer = cas(&cluster, cas_event(A, 99, 0, 0, 1, 3), false, T0);
    struct id retired = group_id(5);
    assert_int_equal(answer.verdict, RECORD_OK);
    assert_true(answer.evicted);
    assert_memory_equal(&answer.evicted_id, &retired, sizeof retired);
}

static void a_longer_promise_is_kept(void **state)
{
    struct record_cluster cluster;
    record_init(&cluster, groups, RECORD_GROUPS_MAX, START);
    assert_true(lease(&cluster, A, -1, 10).persist_node);
    assert_false(lease(&cluster, A, -1, 20).persist_node);
    assert_int_equal(cluster.nodes[0].promise_ms, G);
}

static void a_poll_is_no_lease(void **state)
{
    struct record_cluster cluster;
    start(&cluster);
    lease(&cluster, A, 1, T0);
    struct record_event event = {.kind = RECORD_EV_POLL, .node = A};
    step(&cluster, event, T0 + G - 1);
    assert_int_equal(cas(&cluster, cas_event(B, 1, 1, 3, 2, IN_B), false, T0 + G).verdict, RECORD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_record_comes_from_nothing),
        cmocka_unit_test(primary_excludes_at_once),
        cmocka_unit_test(primary_excludes_even_one_that_claimed_lately),
        cmocka_unit_test(repeating_is_idempotent),
        cmocka_unit_test(other_than_primary_waits_for_a_fresh_primary),
        cmocka_unit_test(wait_ends_when_nobody_claims_the_group),
        cmocka_unit_test(wait_lasts_while_the_primary_claims),
        cmocka_unit_test(guard_after_start_grants_no_exclusion),
        cmocka_unit_test(the_guard_is_the_longest_promise_of_either),
        cmocka_unit_test(a_grant_of_an_earlier_boot_carries_the_guard),
        cmocka_unit_test(the_excluded_one_is_stale),
        cmocka_unit_test(a_member_behind_adopts),
        cmocka_unit_test(w_behind_says_so),
        cmocka_unit_test(one_set_of_members_per_epoch),
        cmocka_unit_test(growth_only_by_the_sole_member),
        cmocka_unit_test(growth_in_doubt_takes_either_alternative),
        cmocka_unit_test(consent_needs_no_wait),
        cmocka_unit_test(an_old_store_grants_nothing),
        cmocka_unit_test(an_equal_counter_is_no_old_store),
        cmocka_unit_test(groups_are_limited_and_retired_ones_make_room),
        cmocka_unit_test(a_longer_promise_is_kept),
        cmocka_unit_test(a_poll_is_no_lease),
    };
    return cmocka_run_group_tests_name("record_core", tests, NULL, NULL);
}
