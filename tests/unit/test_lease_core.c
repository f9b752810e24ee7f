/* R8 for one node: each test fails when its rule is left out of quorum/lease_core.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "quorum/lease_core.h"

#define L 2500u
#define G 2800u
#define SUSPECT 500u
#define START (1000 * NSEC_PER_SEC)

static struct id id_of(unsigned number)
{
    struct id id = {0};
    id.bytes[0] = 1;
    memcpy(&id.bytes[4], &number, sizeof number);
    return id;
}

static uint64_t at(uint64_t ms)
{
    return START + ms * NSEC_PER_MSEC;
}

static struct lease_actions step(struct lease *lease, struct lease_event event, uint64_t ms)
{
    struct lease_actions actions;
    event.now_ns = at(ms);
    lease_step(lease, &event, &actions);
    return actions;
}

static struct lease_actions tick(struct lease *lease, uint64_t ms)
{
    return step(lease, (struct lease_event){.kind = LEASE_EV_TICK}, ms);
}

static struct lease_actions beat(struct lease *lease, uint64_t value, uint64_t ms)
{
    return step(lease, (struct lease_event){.kind = LEASE_EV_BEAT, .present = true, .boot = 7, .beat = value}, ms);
}

static bool send(struct lease *lease, enum lease_responder responder, unsigned id, uint64_t ms)
{
    return step(lease, (struct lease_event){.kind = LEASE_EV_SEND, .responder = responder, .id = id_of(id)}, ms).ask;
}

static struct lease_actions ack(struct lease *lease, enum lease_responder responder, unsigned id, uint64_t counter,
                                uint64_t ms)
{
    return step(lease, (struct lease_event){.kind = LEASE_EV_ACK, .responder = responder, .id = id_of(id),
                                            .counter = counter}, ms);
}

/* A node whose storage lives, at 10 ms. */
static void start(struct lease *lease)
{
    struct lease_config config = {L, G, SUSPECT};
    lease_init(lease, &config, START);
    beat(lease, 1, 5);
    beat(lease, 2, 10);
    assert_true(lease->storage_alive);
}

static void lasts_from_the_time_of_sending(void **state)
{
    struct lease lease;
    start(&lease);
    assert_true(send(&lease, LEASE_FROM_PEER, 1, 100));
    struct lease_actions actions = ack(&lease, LEASE_FROM_PEER, 1, 0, 900);
    assert_true(actions.obtained && actions.publish);
    assert_true(lease.until_ns[LEASE_FROM_PEER] == at(100 + L));
    assert_int_equal(lease_left_ms(&lease, at(900)), L - 800);
    beat(&lease, 3, 2000);
    assert_false(tick(&lease, 100 + L - 1).lapsed);
    assert_true(tick(&lease, 100 + L).lapsed);
}

static void either_responder_keeps_it_valid(void **state)
{
    struct lease lease;
    start(&lease);
    send(&lease, LEASE_FROM_PEER, 1, 100);
    send(&lease, LEASE_FROM_WITNESS, 2, 1000);
    ack(&lease, LEASE_FROM_PEER, 1, 0, 1100);
    ack(&lease, LEASE_FROM_WITNESS, 2, 0, 1100);
    assert_false(tick(&lease, 100 + L).lapsed);
    assert_true(lease.valid);
    assert_true(tick(&lease, 1000 + L).lapsed);
    assert_false(lease.valid);
}

static void a_lapse_raises_the_generation(void **state)
{
    struct lease lease;
    start(&lease);
    uint64_t first = lease.generation;
    send(&lease, LEASE_FROM_PEER, 1, 100);
    ack(&lease, LEASE_FROM_PEER, 1, 0, 110);
    assert_int_equal(lease.generation, first);
    tick(&lease, 100 + L);
    assert_int_equal(lease.generation, first + 1);
    tick(&lease, 101 + L);
    assert_int_equal(lease.generation, first + 1);
}

static void never_lapses_and_renews_unseen(void **state)
{
    struct lease lease;
    start(&lease);
    uint64_t first = lease.generation;
    send(&lease, LEASE_FROM_PEER, 1, 100);
    ack(&lease, LEASE_FROM_PEER, 1, 0, 110);
    beat(&lease, 3, 2000);
    send(&lease, LEASE_FROM_PEER, 2, 2400);
    /* Nothing ran between: the answer that renews is the first event after the end. */
    struct lease_actions actions = ack(&lease, LEASE_FROM_PEER, 2, 0, 100 + L + 50);
    assert_true(actions.lapsed && actions.obtained);
    assert_true(lease.valid);
    assert_int_equal(lease.generation, first + 1);
}

static void an_unknown_echo_counts_for_nothing(void **state)
{
    struct lease lease;
    start(&lease);
    send(&lease, LEASE_FROM_PEER, 1, 100);
    assert_false(ack(&lease, LEASE_FROM_PEER, 2, 0, 110).obtained);
    assert_false(ack(&lease, LEASE_FROM_WITNESS, 1, 0, 110).obtained);
    assert_true(ack(&lease, LEASE_FROM_PEER, 1, 0, 120).obtained);
    assert_false(ack(&lease, LEASE_FROM_PEER, 1, 0, 130).publish); /* and only once */
}

static void an_answer_after_its_lease_is_over_gives_none(void **state)
{
    struct lease lease;
    start(&lease);
    send(&lease, LEASE_FROM_PEER, 1, 100);
    assert_false(ack(&lease, LEASE_FROM_PEER, 1, 0, 100 + L).obtained);
}

static void answers_out_of_order_never_shorten(void **state)
{
    struct lease lease;
    start(&lease);
    send(&lease, LEASE_FROM_PEER, 1, 100);
    send(&lease, LEASE_FROM_PEER, 2, 200);
    ack(&lease, LEASE_FROM_PEER, 2, 0, 210);
    ack(&lease, LEASE_FROM_PEER, 1, 0, 220);
    assert_true(lease.until_ns[LEASE_FROM_PEER] == at(200 + L));
}

static void the_table_of_requests_is_bounded(void **state)
{
    struct lease lease;
    start(&lease);
    for (unsigned i = 0; i < LEASE_OUTSTANDING_MAX + 5; i++)
        assert_true(send(&lease, LEASE_FROM_PEER, i, 100));
    assert_false(ack(&lease, LEASE_FROM_PEER, 4, 0, 110).obtained);
    assert_true(ack(&lease, LEASE_FROM_PEER, 5, 0, 110).obtained);
}

static void w_extends_only_after_its_exclusions_are_applied(void **state)
{
    struct lease lease;
    start(&lease);
    send(&lease, LEASE_FROM_WITNESS, 1, 100);
    assert_false(ack(&lease, LEASE_FROM_WITNESS, 1, 5, 110).obtained);
    assert_false(step(&lease, (struct lease_event){.kind = LEASE_EV_APPLIED, .counter = 4}, 120).obtained);
    assert_true(step(&lease, (struct lease_event){.kind = LEASE_EV_APPLIED, .counter = 5}, 130).obtained);
    assert_true(lease.until_ns[LEASE_FROM_WITNESS] == at(100 + L));
    send(&lease, LEASE_FROM_WITNESS, 2, 200);
    ack(&lease, LEASE_FROM_WITNESS, 2, 5, 210);
    assert_true(lease.until_ns[LEASE_FROM_WITNESS] == at(200 + L));
}

static void a_deadline_that_waits_too_long_gives_none(void **state)
{
    struct lease lease;
    start(&lease);
    send(&lease, LEASE_FROM_WITNESS, 1, 100);
    ack(&lease, LEASE_FROM_WITNESS, 1, 5, 110);
    assert_false(step(&lease, (struct lease_event){.kind = LEASE_EV_APPLIED, .counter = 5}, 100 + L).obtained);
}

static void many_waiting_deadlines_keep_the_best(void **state)
{
    struct lease lease;
    start(&lease);
    for (unsigned i = 0; i < LEASE_PENDING_MAX + 3; i++) {
        send(&lease, LEASE_FROM_WITNESS, 100 + i, 100 + 10 * i);
        ack(&lease, LEASE_FROM_WITNESS, 100 + i, 5 + i, 105 + 10 * i);
    }
    assert_int_equal(lease.pending_count, LEASE_PENDING_MAX);
    step(&lease, (struct lease_event){.kind = LEASE_EV_APPLIED, .counter = 1000}, 400);
    assert_true(lease.until_ns[LEASE_FROM_WITNESS] == at(100 + 10 * (LEASE_PENDING_MAX + 2) + L));
    assert_int_equal(lease.pending_count, 0);
}

static void a_new_storaged_must_apply_again(void **state)
{
    struct lease lease;
    start(&lease);
    step(&lease, (struct lease_event){.kind = LEASE_EV_APPLIED, .counter = 5}, 20);
    step(&lease, (struct lease_event){.kind = LEASE_EV_FORGOTTEN}, 30);
    send(&lease, LEASE_FROM_WITNESS, 1, 100);
    assert_false(ack(&lease, LEASE_FROM_WITNESS, 1, 5, 110).obtained);
}

static void asks_only_while_the_storage_lives(void **state)
{
    struct lease lease;
    struct lease_config config = {L, G, SUSPECT};
    lease_init(&lease, &config, START);
    assert_false(send(&lease, LEASE_FROM_PEER, 1, 1)); /* no page */
    beat(&lease, 1, 5);
    assert_false(send(&lease, LEASE_FROM_PEER, 2, 6)); /* seen once, no progress */
    assert_true(beat(&lease, 2, 10).storage_changed);
    assert_true(send(&lease, LEASE_FROM_PEER, 3, 20));
    assert_false(beat(&lease, 2, 10 + 2 * L - 1).storage_changed);
    assert_true(send(&lease, LEASE_FROM_PEER, 4, 10 + 2 * L - 1));
    assert_true(beat(&lease, 2, 10 + 2 * L).storage_changed); /* stands still for 2L */
    assert_false(send(&lease, LEASE_FROM_PEER, 5, 10 + 2 * L));
    assert_false(ack(&lease, LEASE_FROM_PEER, 5, 0, 15 + 2 * L).obtained);
    beat(&lease, 3, 20 + 2 * L);
    assert_true(send(&lease, LEASE_FROM_PEER, 6, 20 + 2 * L));
    step(&lease, (struct lease_event){.kind = LEASE_EV_BEAT, .present = false}, 30 + 2 * L);
    assert_false(send(&lease, LEASE_FROM_PEER, 7, 30 + 2 * L));
}

static void another_storaged_must_prove_itself(void **state)
{
    struct lease lease;
    start(&lease);
    step(&lease, (struct lease_event){.kind = LEASE_EV_BEAT, .present = true, .boot = 8, .beat = 99}, 20);
    assert_false(send(&lease, LEASE_FROM_PEER, 1, 20));
    step(&lease, (struct lease_event){.kind = LEASE_EV_BEAT, .present = true, .boot = 8, .beat = 100}, 30);
    assert_true(send(&lease, LEASE_FROM_PEER, 2, 30));
}

static struct lease_actions request(struct lease *lease, uint32_t lease_ms, uint32_t promise_ms, uint64_t ms)
{
    return step(lease, (struct lease_event){.kind = LEASE_EV_REQUEST, .lease_ms = lease_ms, .promise_ms = promise_ms}, ms);
}

static void the_start_guard_holds_without_any_promise(void **state)
{
    struct lease lease;
    start(&lease);
    assert_int_equal(lease_peer_over_in_ms(&lease, at(0)), G);
    assert_int_equal(lease_peer_over_in_ms(&lease, at(G - 1)), 1);
    assert_int_equal(lease_peer_over_in_ms(&lease, at(G)), 0);
}

static void a_promise_lasts_g_from_the_acknowledgement(void **state)
{
    struct lease lease;
    start(&lease);
    assert_true(request(&lease, L, G, 10).acknowledge); /* at once, the guard included (I12) */
    assert_true(request(&lease, L, G, 5000).acknowledge);
    assert_int_equal(lease_peer_over_in_ms(&lease, at(5000)), G);
    assert_int_equal(lease_peer_over_in_ms(&lease, at(5000 + G - 1)), 1);
    assert_int_equal(lease_peer_over_in_ms(&lease, at(5000 + G)), 0);
}

static void promises_follow_the_l_of_the_request(void **state)
{
    struct lease lease;
    start(&lease);
    request(&lease, 12000, 0, 5000); /* a peer with another profile that states no G */
    assert_true(lease_peer_over_in_ms(&lease, at(5000)) >= 12000 + 240);
    request(&lease, 1000, 1250, 5100); /* a shorter one later takes nothing back */
    assert_true(lease_peer_over_in_ms(&lease, at(5100)) >= 12000 + 240 - 100);
    assert_int_equal(lease_promise_for(L, G), G);
    assert_true(lease_promise_for(L, 0) >= L * 102 / 100);
}

static void the_peer_is_killed_t_kill_after_its_lease(void **state)
{
    struct lease lease;
    start(&lease);
    request(&lease, L, G, 5000);
    assert_int_equal(lease_peer_killed_in_ms(&lease, 5300, at(5000)), G + 5300);
    assert_int_equal(lease_peer_killed_in_ms(&lease, 5300, at(5000 + G + 5299)), 1); /* the lease is over for long */
    assert_int_equal(lease_peer_killed_in_ms(&lease, 5300, at(5000 + G + 5300)), 0);
}

static uint64_t fence(struct lease *lease, unsigned group, uint64_t ms)
{
    return step(lease, (struct lease_event){.kind = LEASE_EV_FENCE, .group = id_of(group)}, ms).fence_ms;
}

static uint64_t take_over(struct lease *lease, unsigned group, uint32_t least_ms, uint64_t ms)
{
    return step(lease, (struct lease_event){.kind = LEASE_EV_TAKE_OVER, .group = id_of(group), .least_ms = least_ms},
                ms).fence_ms;
}

static void a_lapse_of_the_peers_part_is_counted(void **state)
{
    struct lease lease;
    start(&lease);
    beat(&lease, 3, 1900);
    send(&lease, LEASE_FROM_PEER, 1, 1900);
    ack(&lease, LEASE_FROM_PEER, 1, 0, 2000);
    beat(&lease, 4, 3000);
    send(&lease, LEASE_FROM_WITNESS, 2, 3000);
    ack(&lease, LEASE_FROM_WITNESS, 2, 0, 3100);
    uint64_t generation = lease.generation;
    struct lease_actions actions = tick(&lease, 1900 + L);
    assert_true(actions.peer_lapsed && !actions.lapsed); /* W's part goes on */
    assert_int_equal(lease.peer_lapses, 1);
    assert_true(lease.generation == generation);
    assert_false(tick(&lease, 1910 + L).peer_lapsed);
}

static void a_fence_ends_although_the_peer_goes_on_asking(void **state)
{
    struct lease lease;
    start(&lease);
    assert_true(request(&lease, L, G, 5000).acknowledge);
    assert_int_equal(fence(&lease, 1, 5100), G - 100);
    assert_false(request(&lease, L, G, 5200).acknowledge); /* it would prolong what is being taken over */
    assert_int_equal(fence(&lease, 1, 5300), G - 300);
    assert_true(request(&lease, L, G, 5000 + G).acknowledge);
    assert_int_equal(fence(&lease, 1, 5100 + G), 0); /* asked once more: it is over */
}

static void a_fence_respects_the_start_guard(void **state)
{
    struct lease lease;
    start(&lease);
    assert_int_equal(fence(&lease, 1, 10), G - 10);
}

/* The peer was acknowledged after the first group's fence: that is a promise for the second. */
static void each_group_has_its_own_fence(void **state)
{
    struct lease lease;
    start(&lease);
    request(&lease, L, G, 5000);
    assert_int_equal(take_over(&lease, 1, 0, 5000), G);
    assert_true(request(&lease, L, G, 5000 + G).acknowledge);
    assert_int_equal(take_over(&lease, 2, 0, 5100 + G), G - 100);
    assert_int_equal(fence(&lease, 1, 5200 + G), 0);
    assert_int_equal(fence(&lease, 3, 5200 + G), G - 200);
    assert_false(request(&lease, L, G, 5300 + G).acknowledge);
    assert_true(request(&lease, L, G, 5000 + 2 * G).acknowledge);
}

static void a_fence_lasts_as_long_as_the_witness_says(void **state)
{
    struct lease lease;
    start(&lease);
    request(&lease, L, G, 5000);
    assert_int_equal(take_over(&lease, 1, 4000, 5100), 4000);
    assert_false(request(&lease, L, G, 5100 + 3999).acknowledge);
    assert_int_equal(fence(&lease, 1, 5100 + 3999), 1);
    assert_true(request(&lease, L, G, 5100 + 4000).acknowledge);
}

static void a_takeover_always_begins_a_fence(void **state)
{
    struct lease lease;
    start(&lease);
    request(&lease, L, G, 5000);
    take_over(&lease, 1, 0, 5000);
    request(&lease, L, G, 5000 + G);
    assert_int_equal(take_over(&lease, 1, 0, 5100 + G), G - 100); /* the group went and came back meanwhile */
}

static void over_is_answered_once_and_not_for_long(void **state)
{
    struct lease lease;
    start(&lease);
    request(&lease, L, G, 5000);
    take_over(&lease, 1, 0, 5000);
    take_over(&lease, 2, 0, 5000);
    request(&lease, L, G, 5000 + G);
    assert_int_equal(fence(&lease, 1, 5100 + G), 0);
    assert_int_equal(fence(&lease, 1, 5100 + G), G - 100); /* consumed: this is another question */
    request(&lease, L, G, 5000 + 2 * G);
    assert_int_equal(fence(&lease, 2, 5000 + 2 * G), G); /* ended more than 2 s ago */
}

static void nothing_promised_is_over_at_once(void **state)
{
    struct lease lease;
    start(&lease);
    assert_int_equal(fence(&lease, 1, 5000), 0);
    assert_true(request(&lease, L, G, 5000).acknowledge);
    assert_int_equal(fence(&lease, 1, 5000), G); /* the first answer is not remembered */
}

/* More than fit stand behind the last to end; none ends earlier than it must. */
static void the_table_of_fences_is_bounded(void **state)
{
    struct lease lease;
    start(&lease);
    for (unsigned i = 0; i < LEASE_FENCES_MAX; i++)
        assert_int_equal(take_over(&lease, i, 1000 + i, 5000), 1000 + i);
    assert_int_equal(take_over(&lease, 1000, 10, 5000), 1000 + LEASE_FENCES_MAX - 1);
    assert_int_equal(take_over(&lease, 1001, 3000, 5000), 3000);
    assert_false(request(&lease, L, G, 5000 + 2999).acknowledge);
    assert_true(request(&lease, L, G, 5000 + 3000).acknowledge);
    assert_int_equal(take_over(&lease, 1002, 0, 5000 + 3000), G); /* an ended one makes room */
    assert_int_equal(fence(&lease, 1002, 5000 + 3100), G - 100);
}

static void an_absurd_request_is_not_acknowledged(void **state)
{
    struct lease lease;
    start(&lease);
    assert_false(request(&lease, 0, G, 5000).acknowledge);
    assert_false(request(&lease, LEASE_MS_MAX + 1, G, 5000).acknowledge);
    assert_false(request(&lease, L, LEASE_PROMISE_MS_MAX + 1, 5000).acknowledge);
    assert_int_equal(lease_peer_over_in_ms(&lease, at(5000)), 0);
}

static void a_silent_peer_is_suspected(void **state)
{
    struct lease lease;
    start(&lease);
    assert_false(tick(&lease, SUSPECT + 100).peer_changed); /* after start only after G */
    assert_true(tick(&lease, G).peer_changed);
    assert_true(lease.peer_suspect);
    assert_true(step(&lease, (struct lease_event){.kind = LEASE_EV_HEARD}, 4000).peer_changed);
    assert_false(tick(&lease, 4000 + SUSPECT - 1).peer_changed);
    assert_true(lease_next_ns(&lease) <= at(4000 + SUSPECT));
    assert_true(tick(&lease, 4000 + SUSPECT).peer_changed);
    assert_true(lease.peer_suspect);
}

static void the_next_deadline_is_the_earliest(void **state)
{
    struct lease lease;
    start(&lease);
    step(&lease, (struct lease_event){.kind = LEASE_EV_HEARD}, 100);
    send(&lease, LEASE_FROM_PEER, 1, 100);
    ack(&lease, LEASE_FROM_PEER, 1, 0, 110);
    assert_true(lease_next_ns(&lease) == at(100 + SUSPECT));
    tick(&lease, 100 + SUSPECT);
    assert_true(lease_next_ns(&lease) == at(100 + L));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lasts_from_the_time_of_sending),
        cmocka_unit_test(either_responder_keeps_it_valid),
        cmocka_unit_test(a_lapse_raises_the_generation),
        cmocka_unit_test(never_lapses_and_renews_unseen),
        cmocka_unit_test(an_unknown_echo_counts_for_nothing),
        cmocka_unit_test(an_answer_after_its_lease_is_over_gives_none),
        cmocka_unit_test(answers_out_of_order_never_shorten),
        cmocka_unit_test(the_table_of_requests_is_bounded),
        cmocka_unit_test(w_extends_only_after_its_exclusions_are_applied),
        cmocka_unit_test(a_deadline_that_waits_too_long_gives_none),
        cmocka_unit_test(many_waiting_deadlines_keep_the_best),
        cmocka_unit_test(a_new_storaged_must_apply_again),
        cmocka_unit_test(asks_only_while_the_storage_lives),
        cmocka_unit_test(another_storaged_must_prove_itself),
        cmocka_unit_test(the_start_guard_holds_without_any_promise),
        cmocka_unit_test(a_promise_lasts_g_from_the_acknowledgement),
        cmocka_unit_test(promises_follow_the_l_of_the_request),
        cmocka_unit_test(the_peer_is_killed_t_kill_after_its_lease),
        cmocka_unit_test(a_fence_ends_although_the_peer_goes_on_asking),
        cmocka_unit_test(a_fence_respects_the_start_guard),
        cmocka_unit_test(each_group_has_its_own_fence),
        cmocka_unit_test(a_fence_lasts_as_long_as_the_witness_says),
        cmocka_unit_test(a_takeover_always_begins_a_fence),
        cmocka_unit_test(over_is_answered_once_and_not_for_long),
        cmocka_unit_test(nothing_promised_is_over_at_once),
        cmocka_unit_test(the_table_of_fences_is_bounded),
        cmocka_unit_test(a_lapse_of_the_peers_part_is_counted),
        cmocka_unit_test(an_absurd_request_is_not_acknowledged),
        cmocka_unit_test(a_silent_peer_is_suspected),
        cmocka_unit_test(the_next_deadline_is_the_earliest),
    };
    return cmocka_run_group_tests_name("lease_core", tests, NULL, NULL);
}
