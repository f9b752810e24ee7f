/* R11 on the node that loses its lease: who is frozen, who may thaw, when the watchdog is fed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "quorum/freeze_core.h"

#define START (1000 * NSEC_PER_SEC)
#define GRACE 1000u
#define SOLE_GRACE 2500u

static struct id group_id(uint8_t number)
{
    struct id id = {.bytes = {number}};
    return id;
}

static struct freeze_guest guest(const char *name, uint8_t group)
{
    struct freeze_guest result = {.group = group_id(group), .incarnation = 1};
    snprintf(result.name, sizeof result.name, "%s", name);
    snprintf(result.cgroup, sizeof result.cgroup, "/cg/%s", name);
    return result;
}

static struct freeze_actions step(struct freeze *freeze, struct freeze_event event, uint64_t ms)
{
    struct freeze_actions actions;
    event.now_ns = START + ms * NSEC_PER_MSEC;
    if (event.kind != FREEZE_EV_LEASE)
        event.peer_valid = freeze->peer_valid;
    freeze_step(freeze, &event, &actions);
    return actions;
}

/* The node's lease, and the part of it that the peer acknowledges. */
static struct freeze_actions leases(struct freeze *freeze, bool valid, bool peer_valid, uint64_t ms)
{
    return step(freeze, (struct freeze_event){.kind = FREEZE_EV_LEASE, .valid = valid, .peer_valid = peer_valid}, ms);
}

static struct freeze_actions lease(struct freeze *freeze, bool valid, uint64_t ms)
{
    return leases(freeze, valid, valid, ms);
}

/* This node is primary of `primary` (0: none) and holds `sole` alone (0: none). */
static struct freeze_actions claim(struct freeze *freeze, uint8_t primary, uint8_t sole, uint64_t ms)
{
    struct id primary_id = group_id(primary), sole_id = group_id(sole);
    struct freeze_event event = {
        .kind = FREEZE_EV_CLAIMS, .serves_primary = primary != 0, .primary = &primary_id, .primary_count = primary != 0,
        .groups = &sole_id, .count = sole != 0,
    };
    return step(freeze, event, ms);
}

static struct freeze_actions result(struct freeze *freeze, unsigned index, enum freeze_state state, uint64_t ms)
{
    return step(freeze, (struct freeze_event){.kind = FREEZE_EV_RESULT, .index = index, .result = state}, ms);
}

static struct freeze_actions tick(struct freeze *freeze, uint64_t ms)
{
    return step(freeze, (struct freeze_event){.kind = FREEZE_EV_TICK}, ms);
}

static struct freeze_actions thaw(struct freeze *freeze, const char *name, uint64_t ms)
{
    return step(freeze, (struct freeze_event){.kind = FREEZE_EV_THAW, .name = name}, ms);
}

/* Guests "one" (group 1) and "two" (group 2, held as sole member); lease valid; time 5 s. */
static void start(struct freeze *freeze, bool serves_primary)
{
    struct freeze_config config = {GRACE, SOLE_GRACE};
    struct freeze_guest guests[] = {guest("one", 1), guest("two", 2)};
    struct id sole = group_id(2);
    freeze_init(freeze, &config, START);
    lease(freeze, true, 100);
    step(freeze, (struct freeze_event){.kind = FREEZE_EV_CLAIMS, .groups = &sole, .count = 1,
                                       .serves_primary = serves_primary}, 200);
    struct freeze_actions actions =
        step(freeze, (struct freeze_event){.kind = FREEZE_EV_GUESTS, .guests = guests, .count = 2}, 5000);
    assert_int_equal(actions.freeze, 0);
    assert_true(actions.feed);
}

static void lease_end_freezes_all_but_sole(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    struct freeze_actions actions = lease(&freeze, false, 6000);
    assert_int_equal(actions.freeze, 1);
    assert_false(actions.feed);
}

static void fed_again_once_verified_frozen(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    assert_false(result(&freeze, 0, FREEZE_RUNNING, 6000).feed);
    struct freeze_actions actions = tick(&freeze, 6100); /* ordered again until verified */
    assert_int_equal(actions.freeze, 1);
    assert_false(actions.feed);
    actions = result(&freeze, 0, FREEZE_FROZEN, 6100);
    assert_true(actions.feed);
    assert_true(actions.frozen_changed);
    actions = tick(&freeze, 6200); /* read back as long as the watchdog is fed on its strength */
    assert_int_equal(actions.verify, 1);
    assert_int_equal(actions.freeze, 0);
    actions = result(&freeze, 0, FREEZE_RUNNING, 6200); /* somebody thawed it behind our back */
    assert_false(actions.feed);
    assert_int_equal(tick(&freeze, 6300).freeze, 1);
}

static void not_fed_while_a_primary_is_served(void **state)
{
    struct freeze freeze;
    start(&freeze, true);
    lease(&freeze, false, 6000);
    assert_false(result(&freeze, 0, FREEZE_FROZEN, 6000).feed);
    struct id sole = group_id(2);
    struct freeze_event none = {.kind = FREEZE_EV_CLAIMS, .groups = &sole, .count = 1};
    assert_true(step(&freeze, none, 6100).feed);
}

static void thawed_only_on_request_and_with_a_lease(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    result(&freeze, 0, FREEZE_FROZEN, 6000);
    struct freeze_actions actions = thaw(&freeze, "one", 6100);
    assert_true(actions.thaw_refused);
    assert_int_equal(actions.thaw, -1);
    actions = lease(&freeze, true, 6200); /* the lease alone thaws nobody */
    assert_int_equal(actions.thaw, -1);
    assert_int_equal(freeze.guests[0].state, FREEZE_FROZEN);
    actions = thaw(&freeze, "one", 6300);
    assert_int_equal(actions.thaw, 0);
    assert_true(actions.frozen_changed);
    assert_true(thaw(&freeze, "three", 6400).thaw_unknown);
}

static void a_gone_guest_lets_the_watchdog_be_fed(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    assert_false(lease(&freeze, false, 6000).feed);
    struct freeze_event gone = {.kind = FREEZE_EV_GUEST_GONE, .name = "one", .incarnation = 1};
    struct freeze_actions actions = step(&freeze, gone, 6100);
    assert_true(actions.feed);
    assert_int_equal(actions.freeze | actions.verify, 0);
}

static void gone_of_an_older_incarnation_means_nothing(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    freeze.guests[0].incarnation = 4;
    lease(&freeze, false, 6000);
    struct freeze_event gone = {.kind = FREEZE_EV_GUEST_GONE, .name = "one", .incarnation = 3};
    assert_false(step(&freeze, gone, 6100).feed);
}

static void a_vanished_folder_is_looked_at_again(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    assert_true(result(&freeze, 0, FREEZE_GONE, 6000).feed);
    assert_int_equal(tick(&freeze, 6100).verify, 1);
    assert_false(result(&freeze, 0, FREEZE_RUNNING, 6100).feed);
}

static void a_new_list_keeps_who_is_frozen(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    result(&freeze, 0, FREEZE_FROZEN, 6000);
    struct freeze_guest guests[] = {guest("two", 2), guest("one", 1), guest("new", 1)};
    struct freeze_actions actions =
        step(&freeze, (struct freeze_event){.kind = FREEZE_EV_GUESTS, .guests = guests, .count = 3}, 6100);
    assert_int_equal(freeze.guests[1].state, FREEZE_FROZEN);
    assert_int_equal(actions.freeze, 1u << 2); /* registered without a lease: frozen at once */
    assert_false(actions.feed);
}

static void nothing_is_frozen_nor_fed_in_the_start_grace(void **state)
{
    struct freeze freeze;
    struct freeze_config config = {GRACE, SOLE_GRACE};
    struct freeze_guest one = guest("one", 1);
    freeze_init(&freeze, &config, START);
    struct freeze_actions actions =
        step(&freeze, (struct freeze_event){.kind = FREEZE_EV_GUESTS, .guests = &one, .count = 1}, 10);
    assert_int_equal(actions.freeze, 0);
    assert_false(actions.feed);
    assert_int_equal(tick(&freeze, GRACE - 1).freeze, 0);
    assert_int_equal(tick(&freeze, GRACE).freeze, 1);
}

static void a_lost_storaged_is_given_time_but_no_feed(void **state)
{
    struct freeze freeze;
    start(&freeze, true);
    lease(&freeze, false, 6000);
    result(&freeze, 0, FREEZE_FROZEN, 6000);
    struct freeze_actions actions = step(&freeze, (struct freeze_event){.kind = FREEZE_EV_STORAGE_GONE}, 7000);
    assert_int_equal(actions.freeze, 0); /* "two" may still be ours alone */
    assert_false(actions.feed);          /* but nobody vouches for that */
    assert_int_equal(tick(&freeze, 7000 + SOLE_GRACE - 1).freeze, 0);
    assert_int_equal(tick(&freeze, 7000 + SOLE_GRACE).freeze, 2);
    assert_true(result(&freeze, 1, FREEZE_FROZEN, 7000 + SOLE_GRACE).feed);
}

static void storaged_that_comes_back_in_time_changes_nothing(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    result(&freeze, 0, FREEZE_FROZEN, 6000);
    step(&freeze, (struct freeze_event){.kind = FREEZE_EV_STORAGE_GONE}, 7000);
    struct id sole = group_id(2);
    assert_true(step(&freeze, (struct freeze_event){.kind = FREEZE_EV_CLAIMS, .groups = &sole, .count = 1}, 8000).feed);
    assert_int_equal(tick(&freeze, 7000 + SOLE_GRACE).freeze, 0);
}

static void a_sole_group_that_grew_freezes(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    struct freeze_event claims = {.kind = FREEZE_EV_CLAIMS, .groups = NULL, .count = 0};
    struct id none = {0};
    claims.groups = &none;
    assert_int_equal(step(&freeze, claims, 6100).freeze, 3);
}

static void stopping_cleanly_disarms_only_when_nobody_is_left(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    assert_true(freeze_may_feed(&freeze));
    assert_false(freeze_may_disarm(&freeze));
    freeze.guest_count = 0;
    assert_true(freeze_may_disarm(&freeze));
}

/* I11: the peer serves the group and may restart the guest; W's lease says nothing to it. */
static void served_elsewhere_lives_on_the_peers_lease_only(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    assert_int_equal(freeze_basis_of(&freeze, &freeze.guests[0]), FREEZE_ON_PEER_LEASE);
    struct freeze_actions actions = leases(&freeze, true, false, 6000);
    assert_int_equal(actions.freeze, 1);
    assert_false(actions.feed);
    assert_true(result(&freeze, 0, FREEZE_FROZEN, 6000).feed);
    assert_int_equal(tick(&freeze, 6100).verify, 1);
    actions = thaw(&freeze, "one", 6200);
    assert_true(actions.thaw_refused);
    assert_int_equal(actions.thaw_needs, FREEZE_ON_PEER_LEASE);
    leases(&freeze, true, true, 6300);
    assert_int_equal(thaw(&freeze, "one", 6400).thaw, 0);
}

/* The lease of the peer ends without an event of its own: any step sees it. */
static void the_end_of_the_peers_lease_is_seen_on_a_tick(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    struct freeze_event event = {.kind = FREEZE_EV_TICK, .now_ns = START + 6000 * NSEC_PER_MSEC, .peer_valid = false};
    struct freeze_actions actions;
    freeze_step(&freeze, &event, &actions);
    assert_int_equal(actions.freeze, 1);
    assert_false(actions.feed);
}

static void own_primary_lives_on_either_lease(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    claim(&freeze, 1, 2, 5500);
    struct freeze_actions actions = leases(&freeze, true, false, 6000);
    assert_int_equal(actions.freeze | actions.verify, 0);
    assert_true(actions.feed);
    actions = leases(&freeze, false, false, 6100);
    assert_int_equal(actions.freeze, 1);
    assert_false(actions.feed);
    actions = thaw(&freeze, "one", 6200);
    assert_true(actions.thaw_refused);
    assert_int_equal(actions.thaw_needs, FREEZE_ON_LEASE);
    leases(&freeze, true, false, 6300);
    assert_int_equal(thaw(&freeze, "one", 6400).thaw, 0);
}

static void a_primary_role_that_went_away_freezes(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    claim(&freeze, 1, 2, 5500);
    leases(&freeze, true, false, 6000);
    assert_int_equal(claim(&freeze, 0, 2, 6100).freeze, 1);
}

static void without_storaged_nothing_is_primary(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    claim(&freeze, 1, 2, 5500);
    leases(&freeze, true, false, 6000);
    struct freeze_actions actions = step(&freeze, (struct freeze_event){.kind = FREEZE_EV_STORAGE_GONE}, 7000);
    assert_int_equal(actions.freeze, 1); /* the sole one has its grace */
    assert_false(actions.feed);
    assert_false(result(&freeze, 0, FREEZE_FROZEN, 7000).feed); /* the sole one is vouched for by nobody */
    assert_int_equal(tick(&freeze, 7000 + SOLE_GRACE).freeze, 2);
    assert_true(result(&freeze, 1, FREEZE_FROZEN, 7000 + SOLE_GRACE).feed);
}

/* Whoever asks slept through a lapse: the other node may have moved the record since it was proved. */
static void a_proof_from_before_a_lapse_thaws_nobody(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    result(&freeze, 0, FREEZE_FROZEN, 6000);
    lease(&freeze, true, 6200);
    struct freeze_event event = {.kind = FREEZE_EV_THAW, .name = "one", .stale = true};
    struct freeze_actions actions = step(&freeze, event, 6300);
    assert_true(actions.thaw_refused);
    assert_int_equal(actions.thaw, -1);
    claim(&freeze, 0, 1, 6400); /* held alone: nobody else could have moved it */
    assert_int_equal(step(&freeze, event, 6500).thaw, 0);
}

static void a_group_held_alone_thaws_without_any_lease(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    result(&freeze, 0, FREEZE_FROZEN, 6000);
    claim(&freeze, 0, 1, 6100);
    assert_int_equal(thaw(&freeze, "one", 6200).thaw, 0);
}

/* The order stands in the kernel: without a look at it the guest would be frozen for ever, and nobody would know. */
static void a_lease_that_returns_too_late_leaves_nobody_freezing(void **state)
{
    struct freeze freeze;
    start(&freeze, false);
    lease(&freeze, false, 6000);
    result(&freeze, 0, FREEZE_RUNNING, 6000);
    struct freeze_actions actions = lease(&freeze, true, 6050);
    assert_int_equal(actions.freeze, 0);
    assert_int_equal(actions.verify, 1);
    assert_false(result(&freeze, 0, FREEZE_RUNNING, 6050).frozen_changed); /* the kernel is still at it */
    assert_int_equal(tick(&freeze, 6150).verify, 1);
    assert_true(result(&freeze, 0, FREEZE_FROZEN, 6150).frozen_changed);
    assert_int_equal(freeze.guests[0].state, FREEZE_FROZEN);
    assert_int_equal(tick(&freeze, 6250).verify, 0);
    assert_int_equal(thaw(&freeze, "one", 6300).thaw, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lease_end_freezes_all_but_sole),
        cmocka_unit_test(a_proof_from_before_a_lapse_thaws_nobody),
        cmocka_unit_test(fed_again_once_verified_frozen),
        cmocka_unit_test(not_fed_while_a_primary_is_served),
        cmocka_unit_test(thawed_only_on_request_and_with_a_lease),
        cmocka_unit_test(a_gone_guest_lets_the_watchdog_be_fed),
        cmocka_unit_test(gone_of_an_older_incarnation_means_nothing),
        cmocka_unit_test(a_vanished_folder_is_looked_at_again),
        cmocka_unit_test(a_new_list_keeps_who_is_frozen),
        cmocka_unit_test(nothing_is_frozen_nor_fed_in_the_start_grace),
        cmocka_unit_test(a_lost_storaged_is_given_time_but_no_feed),
        cmocka_unit_test(storaged_that_comes_back_in_time_changes_nothing),
        cmocka_unit_test(a_sole_group_that_grew_freezes),
        cmocka_unit_test(stopping_cleanly_disarms_only_when_nobody_is_left),
        cmocka_unit_test(served_elsewhere_lives_on_the_peers_lease_only),
        cmocka_unit_test(the_end_of_the_peers_lease_is_seen_on_a_tick),
        cmocka_unit_test(own_primary_lives_on_either_lease),
        cmocka_unit_test(a_primary_role_that_went_away_freezes),
        cmocka_unit_test(without_storaged_nothing_is_primary),
        cmocka_unit_test(a_group_held_alone_thaws_without_any_lease),
        cmocka_unit_test(a_lease_that_returns_too_late_leaves_nobody_freezing),
    };
    return cmocka_run_group_tests_name("freeze_core", tests, NULL, NULL);
}
