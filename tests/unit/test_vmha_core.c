/* Does the core of hci-vmhad keep each rule of R11? Every test fails when its rule is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmha/vmha_core.h"

static const struct id node_a = {{0xa}}, node_b = {{0xb}}, group = {{0x61}};

struct fixture {
    struct vmha_core core;
    struct vmha_actions actions;
    uint64_t now_ms;
    uint64_t version;
    struct record swapped; /* of the last SWAP */
};

static struct vmha_event event_of(enum vmha_event_kind kind)
{
    return (struct vmha_event){.kind = kind, .group = group, .ok = true, .up = true};
}

static void step(struct fixture *f, struct vmha_event event)
{
    event.now_ms = f->now_ms;
    vmha_core_step(&f->core, &event, &f->actions);
    for (unsigned i = 0; i < f->actions.count; i++)
        if (f->actions.list[i].kind == VMHA_ACTION_SWAP)
            f->swapped = f->actions.list[i].record;
}

static const struct vmha_action *emitted(const struct fixture *f, enum vmha_action_kind kind)
{
    for (unsigned i = 0; i < f->actions.count; i++)
        if (f->actions.list[i].kind == kind)
            return &f->actions.list[i];
    return NULL;
}

static void simple(struct fixture *f, enum vmha_event_kind kind)
{
    step(f, event_of(kind));
}

static void view(struct fixture *f, bool serving, bool local, bool member, bool peer_member)
{
    struct vmha_event event = event_of(VMHA_EVENT_GROUP);

    event.view = (struct vmha_view){"db", serving, local, member, peer_member};
    step(f, event);
}

static void put_meta(struct fixture *f, struct vmha_event event, struct id node, uint64_t incarnation,
                     enum record_state state)
{
    event.meta.version = ++f->version;
    strcpy(event.meta.name, "db");
    event.meta.has_record = true;
    event.meta.record = (struct record){.node = node, .incarnation = incarnation, .state = state};
    record_format(&event.meta.record);
    step(f, event);
}

static void meta(struct fixture *f, struct id node, uint64_t incarnation, enum record_state state)
{
    put_meta(f, event_of(VMHA_EVENT_META), node, incarnation, state);
}

static void swap_ok(struct fixture *f)
{
    struct vmha_event event = event_of(VMHA_EVENT_SWAPPED);

    event.meta.version = ++f->version;
    strcpy(event.meta.name, "db");
    event.meta.has_record = true;
    event.meta.record = f->swapped;
    record_format(&event.meta.record);
    step(f, event);
}

static void swap_changed(struct fixture *f, struct id node, uint64_t incarnation, enum record_state state)
{
    struct vmha_event event = event_of(VMHA_EVENT_SWAPPED);

    event.swap_result = VMHA_SWAP_CHANGED;
    put_meta(f, event, node, incarnation, state);
}

static void lease(struct fixture *f, bool valid, uint64_t generation)
{
    struct vmha_event event = event_of(VMHA_EVENT_LEASE);

    event.lease.valid = valid;
    event.lease.generation = generation;
    step(f, event);
}

static void peer_lease(struct fixture *f, uint64_t killed_in_ms)
{
    struct vmha_event event = event_of(VMHA_EVENT_PEER_LEASE);

    event.killed_in_ms = killed_in_ms;
    step(f, event);
}

static void peer_gone(struct fixture *f, uint64_t incarnation)
{
    struct vmha_event event = event_of(VMHA_EVENT_PEER_GONE);

    event.incarnation = incarnation;
    step(f, event);
}

static void registered(struct fixture *f)
{
    struct vmha_event event = event_of(VMHA_EVENT_REGISTERED);

    event.serial = f->core.register_serial;
    step(f, event);
}

static void frozen(struct fixture *f, bool is_frozen)
{
    static const char *const names[] = {"db"};
    struct vmha_event event = event_of(VMHA_EVENT_FROZEN);

    event.frozen.names = names;
    event.frozen.count = is_frozen;
    step(f, event);
}

static void found(struct fixture *f, uint64_t incarnation, bool paused, bool is_frozen)
{
    struct vmha_event event = event_of(VMHA_EVENT_DOMAIN_FOUND);

    strcpy(event.name, "db");
    event.incarnation = incarnation;
    event.found.paused = paused;
    event.found.frozen = is_frozen;
    step(f, event);
}

static void ask(struct fixture *f, enum vmha_event_kind kind, bool force)
{
    struct vmha_event event = event_of(kind);

    strcpy(event.name, "db");
    event.token = 77;
    event.force = force;
    step(f, event);
}

static struct vmha_guest *guest(struct fixture *f)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (f->core.guests[i].used && !memcmp(&f->core.guests[i].group, &group, sizeof group))
            return &f->core.guests[i];
    fail();
    return NULL;
}

static void failed(struct fixture *f, enum vmha_event_kind kind)
{
    struct vmha_event event = event_of(kind);

    event.ok = false;
    strcpy(event.reason, "told to");
    step(f, event);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    vmha_core_init(&f->core, &node_a, "a", &node_b, "b");
    f->now_ms = 1000;
    f->version = 10;
    simple(f, VMHA_EVENT_STORAGE);
    simple(f, VMHA_EVENT_QUORUM);
    registered(f);
    lease(f, true, 1);
    simple(f, VMHA_EVENT_LISTING);
    simple(f, VMHA_EVENT_LISTED);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

/* The guest runs here as incarnation 8, in a group that both nodes hold. */
static void run_here(struct fixture *f)
{
    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    swap_ok(f);
    simple(f, VMHA_EVENT_STARTED);
    registered(f);
    simple(f, VMHA_EVENT_RESUMED);
    assert_int_equal(guest(f)->life, VMHA_RUNNING);
}

static void rule_i_only_the_authority_takes_over(void **state)
{
    struct fixture *f = *state;

    view(f, true, false, true, true);
    meta(f, node_b, 7, RECORD_RUNNING);
    peer_gone(f, 7);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    view(f, false, true, true, false); /* authority, not serving yet: QEMU would hang opening its disk */
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    view(f, true, true, true, false);
    assert_non_null(emitted(f, VMHA_ACTION_SWAP));
}

static void rule_ii_waits_for_the_lease_and_t_kill(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, false);
    meta(f, node_b, 7, RECORD_RUNNING);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    assert_non_null(emitted(f, VMHA_ACTION_ASK_PEER_LEASE));
    peer_lease(f, 5000);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    assert_int_equal(vmha_core_deadline_ms(&f->core), f->now_ms + 5000);
    f->now_ms += 4999;
    simple(f, VMHA_EVENT_TICK);
    assert_null(emitted(f, VMHA_ACTION_ASK_PEER_LEASE));
    f->now_ms += 1;
    simple(f, VMHA_EVENT_TICK);
    assert_null(emitted(f, VMHA_ACTION_SWAP)); /* time alone proves nothing: it may have been renewed */
    assert_non_null(emitted(f, VMHA_ACTION_ASK_PEER_LEASE));
    peer_lease(f, 0);
    assert_non_null(emitted(f, VMHA_ACTION_SWAP));
}

static void rule_ii_an_unanswered_question_proves_nothing(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, false);
    meta(f, node_b, 7, RECORD_RUNNING);
    failed(f, VMHA_EVENT_PEER_LEASE);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
}

static void rule_ii_an_old_answer_is_not_used_later(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, false);
    meta(f, node_b, 7, RECORD_RUNNING);
    view(f, false, true, true, false);
    peer_lease(f, 0); /* not serving now: the answer goes by */
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    view(f, true, true, true, false);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    assert_non_null(emitted(f, VMHA_ACTION_ASK_PEER_LEASE));
}

static void rule_ii_a_peer_without_a_watchdog_is_never_killed(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, false);
    meta(f, node_b, 7, RECORD_RUNNING);
    peer_lease(f, INT64_MAX);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    assert_int_equal(vmha_core_deadline_ms(&f->core), f->now_ms + VMHA_ASK_AGAIN_MS);
}

static void rule_ii_gone_counts_for_exactly_that_incarnation(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, false);
    meta(f, node_b, 7, RECORD_RUNNING);
    peer_gone(f, 6);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    peer_gone(f, 7);
    const struct vmha_action *swap = emitted(f, VMHA_ACTION_SWAP);
    assert_non_null(swap);
    assert_memory_equal(&swap->record.node, &node_a, sizeof node_a);
    assert_int_equal(swap->record.incarnation, 8);
    assert_int_equal(swap->record.state, RECORD_RUNNING);
    assert_non_null(strstr(swap->expected, "\"incarnation\":7"));
}

static void rule_iii_starts_only_after_the_swap(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    assert_non_null(emitted(f, VMHA_ACTION_SWAP));
    assert_null(emitted(f, VMHA_ACTION_START));
    swap_changed(f, node_b, 8, RECORD_RUNNING);
    assert_null(emitted(f, VMHA_ACTION_START));
    assert_int_equal(guest(f)->life, VMHA_ABSENT);
}

static void rule_iii_an_unanswered_swap_starts_nothing(void **state)
{
    struct fixture *f = *state;
    struct vmha_event event = event_of(VMHA_EVENT_SWAPPED);

    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    event.swap_result = VMHA_SWAP_UNAVAILABLE;
    step(f, event);
    assert_null(emitted(f, VMHA_ACTION_START));
    f->now_ms += VMHA_RETRY_MS;
    simple(f, VMHA_EVENT_TICK);
    assert_non_null(emitted(f, VMHA_ACTION_READ));
    meta(f, node_a, 8, RECORD_RUNNING); /* it had been done */
    assert_null(emitted(f, VMHA_ACTION_START));
    assert_int_equal(f->swapped.incarnation, 9);
}

static void a_claim_is_dropped_when_the_group_moved_meanwhile(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    view(f, true, false, true, true);
    swap_ok(f);
    assert_null(emitted(f, VMHA_ACTION_START));
    assert_int_equal(guest(f)->life, VMHA_ABSENT);
}

static void nothing_starts_before_the_hypervisor_listed(void **state)
{
    struct fixture *f = *state;

    simple(f, VMHA_EVENT_HYPERVISOR_LOST);
    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    simple(f, VMHA_EVENT_LISTING);
    found(f, 7, false, false);
    simple(f, VMHA_EVENT_LISTED);
    assert_null(emitted(f, VMHA_ACTION_SWAP)); /* it runs already: adopted */
    registered(f);
    assert_int_equal(guest(f)->life, VMHA_RUNNING);
}

static void a_guest_runs_only_after_quorumd_knows_it(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    swap_ok(f);
    simple(f, VMHA_EVENT_STARTED);
    assert_non_null(emitted(f, VMHA_ACTION_REGISTER));
    assert_null(emitted(f, VMHA_ACTION_RESUME));
    failed(f, VMHA_EVENT_REGISTERED);
    assert_null(emitted(f, VMHA_ACTION_RESUME));
    f->now_ms += VMHA_RETRY_MS;
    simple(f, VMHA_EVENT_TICK);
    registered(f);
    assert_non_null(emitted(f, VMHA_ACTION_RESUME));
}

static void an_acknowledgement_of_an_older_list_does_not_count(void **state)
{
    struct fixture *f = *state;
    struct vmha_event old = event_of(VMHA_EVENT_REGISTERED);

    simple(f, VMHA_EVENT_QUORUM); /* a list is under way while the guest starts */
    lease(f, true, 1);
    old.serial = f->core.register_serial;
    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    swap_ok(f);
    simple(f, VMHA_EVENT_STARTED);
    step(f, old);
    assert_null(emitted(f, VMHA_ACTION_RESUME));
    assert_non_null(emitted(f, VMHA_ACTION_REGISTER));
}

static void no_lease_no_resume(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    swap_ok(f);
    simple(f, VMHA_EVENT_STARTED);
    lease(f, false, 2);
    registered(f);
    assert_null(emitted(f, VMHA_ACTION_RESUME));
    lease(f, true, 2); /* R8: it lapsed in between, so the record must be proved again */
    assert_null(emitted(f, VMHA_ACTION_RESUME));
    assert_int_equal(emitted(f, VMHA_ACTION_SWAP)->swap, VMHA_SWAP_PROVE);
    swap_ok(f);
    assert_non_null(emitted(f, VMHA_ACTION_RESUME));
}

static void a_sole_member_needs_no_lease(void **state)
{
    struct fixture *f = *state;

    lease(f, false, 2);
    view(f, true, true, true, false);
    meta(f, node_a, 7, RECORD_RUNNING);
    swap_ok(f);
    simple(f, VMHA_EVENT_STARTED);
    registered(f);
    assert_non_null(emitted(f, VMHA_ACTION_RESUME));
}

static void a_thaw_needs_lease_and_swap(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    lease(f, false, 2);
    frozen(f, true);
    assert_int_equal(guest(f)->life, VMHA_FROZEN);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    lease(f, true, 2);
    assert_null(emitted(f, VMHA_ACTION_THAW));
    const struct vmha_action *swap = emitted(f, VMHA_ACTION_SWAP);
    assert_non_null(swap);
    assert_int_equal(swap->record.incarnation, 8);
    assert_int_equal(swap->record.thaw, 1);
    swap_ok(f);
    assert_non_null(emitted(f, VMHA_ACTION_THAW));
    simple(f, VMHA_EVENT_THAWED);
    assert_int_equal(guest(f)->life, VMHA_RUNNING);
}

static void a_thaw_is_not_used_when_the_lease_lapsed_again(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    lease(f, false, 2);
    frozen(f, true);
    lease(f, true, 2);
    lease(f, false, 3);
    lease(f, true, 3);
    swap_ok(f); /* of generation 2 */
    assert_null(emitted(f, VMHA_ACTION_THAW));
    assert_non_null(emitted(f, VMHA_ACTION_SWAP));
}

static void a_takeover_wins_over_a_thaw(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    lease(f, false, 2);
    frozen(f, true);
    lease(f, true, 2);
    swap_changed(f, node_b, 9, RECORD_RUNNING);
    assert_null(emitted(f, VMHA_ACTION_THAW));
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
}

static void a_frozen_guest_whose_group_is_lost_is_killed_and_signed(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    lease(f, false, 2);
    frozen(f, true);
    view(f, false, false, false, true);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
    assert_null(emitted(f, VMHA_ACTION_SIGN_GONE));
    failed(f, VMHA_EVENT_KILLED);
    assert_null(emitted(f, VMHA_ACTION_SIGN_GONE)); /* only what is verified is signed */
    f->now_ms += VMHA_KILL_RETRY_MS;
    simple(f, VMHA_EVENT_TICK);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
    simple(f, VMHA_EVENT_KILLED);
    assert_int_equal(emitted(f, VMHA_ACTION_SIGN_GONE)->incarnation, 8);
}

static void a_running_guest_goes_on_by_forwarding(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    view(f, true, false, false, true); /* a disk died here; the lease is fine */
    assert_null(emitted(f, VMHA_ACTION_KILL));
    assert_int_equal(guest(f)->life, VMHA_RUNNING);
}

static void a_guest_the_record_does_not_name_is_killed(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    meta(f, node_b, 9, RECORD_RUNNING);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
}

static void a_record_older_than_the_domain_is_not_believed(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    meta(f, node_b, 6, RECORD_RUNNING);
    assert_null(emitted(f, VMHA_ACTION_KILL));
    f->now_ms += VMHA_RETRY_MS;
    simple(f, VMHA_EVENT_TICK);
    assert_non_null(emitted(f, VMHA_ACTION_READ));
}

static void a_domain_found_paused_never_goes_on(void **state)
{
    struct fixture *f = *state;

    simple(f, VMHA_EVENT_HYPERVISOR_LOST);
    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    simple(f, VMHA_EVENT_LISTING);
    found(f, 7, true, false);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
    simple(f, VMHA_EVENT_LISTED);
    simple(f, VMHA_EVENT_KILLED);
    assert_int_equal(f->swapped.incarnation, 8);
}

static void what_was_signed_gone_is_not_adopted(void **state)
{
    struct fixture *f = *state;

    view(f, true, false, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    assert_int_equal(emitted(f, VMHA_ACTION_SIGN_GONE)->incarnation, 7);
    simple(f, VMHA_EVENT_SIGNED);
    simple(f, VMHA_EVENT_HYPERVISOR_LOST);
    simple(f, VMHA_EVENT_LISTING);
    found(f, 7, false, false);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
}

static void a_frozen_domain_found_is_proved_first(void **state)
{
    struct fixture *f = *state;

    simple(f, VMHA_EVENT_HYPERVISOR_LOST);
    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    simple(f, VMHA_EVENT_LISTING);
    found(f, 7, false, true);
    simple(f, VMHA_EVENT_LISTED);
    registered(f);
    assert_int_equal(emitted(f, VMHA_ACTION_SWAP)->swap, VMHA_SWAP_PROVE);
    swap_ok(f);
    assert_non_null(emitted(f, VMHA_ACTION_THAW));
}

static void a_kill_during_a_start_is_repeated_after_it(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, true);
    meta(f, node_a, 7, RECORD_RUNNING);
    swap_ok(f);
    meta(f, node_b, 9, RECORD_RUNNING);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
    simple(f, VMHA_EVENT_STARTED); /* the domain appeared, perhaps after the kill looked */
    simple(f, VMHA_EVENT_KILLED);
    assert_null(emitted(f, VMHA_ACTION_SIGN_GONE));
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
    simple(f, VMHA_EVENT_KILLED);
    assert_int_equal(emitted(f, VMHA_ACTION_SIGN_GONE)->incarnation, 8);
}

static void a_stop_writes_the_record_first(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    ask(f, VMHA_EVENT_ASKED_STOP, false);
    assert_int_equal(emitted(f, VMHA_ACTION_SWAP)->record.state, RECORD_STOPPED);
    assert_null(emitted(f, VMHA_ACTION_SHUTDOWN));
    swap_ok(f);
    assert_non_null(emitted(f, VMHA_ACTION_SHUTDOWN));
    f->now_ms += VMHA_STOP_MS;
    simple(f, VMHA_EVENT_TICK);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
    simple(f, VMHA_EVENT_KILLED);
    assert_true(emitted(f, VMHA_ACTION_ANSWER)->ok);
    assert_int_equal(f->swapped.state, RECORD_STOPPED);
    assert_true(id_is_null(&f->swapped.node));
    swap_ok(f);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
}

static void a_forced_stop_kills_at_once(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    ask(f, VMHA_EVENT_ASKED_STOP, true);
    swap_ok(f);
    assert_null(emitted(f, VMHA_ACTION_SHUTDOWN));
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
}

static void a_stopped_guest_is_not_taken_over(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, false);
    meta(f, node_b, 7, RECORD_STOPPED);
    peer_gone(f, 7);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
}

static void a_start_waits_for_the_other_nodes_verified_stop(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, true);
    meta(f, node_b, 7, RECORD_STOPPED); /* b has not released it: it may be shutting down */
    ask(f, VMHA_EVENT_ASKED_START, false);
    assert_null(emitted(f, VMHA_ACTION_SWAP));
    peer_lease(f, 3000);
    assert_false(emitted(f, VMHA_ACTION_ANSWER)->ok);
    ask(f, VMHA_EVENT_ASKED_START, false);
    peer_gone(f, 7);
    assert_non_null(emitted(f, VMHA_ACTION_SWAP));
}

static void a_start_elsewhere_names_the_node(void **state)
{
    struct fixture *f = *state;

    view(f, true, false, true, true);
    meta(f, (struct id){0}, 0, RECORD_STOPPED);
    ask(f, VMHA_EVENT_ASKED_START, false);
    const struct vmha_action *answer = emitted(f, VMHA_ACTION_ANSWER);
    assert_false(answer->ok);
    assert_string_equal(answer->code, "not_here");
    assert_non_null(strstr(answer->text, "on node b"));
}

static void a_failed_start_is_told_and_given_up(void **state)
{
    struct fixture *f = *state;

    view(f, true, true, true, true);
    meta(f, (struct id){0}, 0, RECORD_STOPPED);
    ask(f, VMHA_EVENT_ASKED_START, false);
    swap_ok(f);
    failed(f, VMHA_EVENT_STARTED);
    assert_false(emitted(f, VMHA_ACTION_ANSWER)->ok);
    assert_non_null(strstr(emitted(f, VMHA_ACTION_ANSWER)->text, "told to"));
    simple(f, VMHA_EVENT_KILLED);
    assert_int_equal(emitted(f, VMHA_ACTION_SWAP)->swap, VMHA_SWAP_RELEASE);
}

static void a_crash_is_restarted_three_times(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    for (unsigned i = 0; i <= VMHA_RESTARTS_MAX; i++) {
        f->now_ms += 60000;
        simple(f, VMHA_EVENT_DOMAIN_ENDED);
        assert_non_null(emitted(f, VMHA_ACTION_KILL)); /* verified before it is started again */
        simple(f, VMHA_EVENT_KILLED);
        simple(f, VMHA_EVENT_SIGNED);
        registered(f);
        f->now_ms += VMHA_START_RETRY_MS;
        simple(f, VMHA_EVENT_TICK);
        swap_ok(f);
        if (i == VMHA_RESTARTS_MAX)
            break;
        assert_int_equal(guest(f)->life, VMHA_STARTING);
        simple(f, VMHA_EVENT_STARTED);
        registered(f);
        simple(f, VMHA_EVENT_RESUMED);
    }
    assert_int_equal(guest(f)->record.state, RECORD_FAILED);
    assert_int_equal(guest(f)->life, VMHA_ABSENT);
}

static void old_crashes_are_forgotten(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    for (unsigned i = 0; i < 3 * VMHA_RESTARTS_MAX; i++) {
        f->now_ms += VMHA_RESTARTS_MS / 2;
        simple(f, VMHA_EVENT_DOMAIN_ENDED);
        simple(f, VMHA_EVENT_KILLED);
        simple(f, VMHA_EVENT_SIGNED);
        registered(f);
        f->now_ms += VMHA_START_RETRY_MS;
        simple(f, VMHA_EVENT_TICK);
        swap_ok(f);
        assert_int_equal(guest(f)->life, VMHA_STARTING);
        simple(f, VMHA_EVENT_STARTED);
        registered(f);
        simple(f, VMHA_EVENT_RESUMED);
    }
}

static void a_guest_that_shut_itself_down_is_not_signed_before_its_record(void **state)
{
    struct fixture *f = *state;
    struct vmha_event event = event_of(VMHA_EVENT_DOMAIN_ENDED);

    run_here(f);
    event.by_guest = true;
    step(f, event);
    simple(f, VMHA_EVENT_KILLED);
    assert_null(emitted(f, VMHA_ACTION_SIGN_GONE)); /* or the other node would start it again */
    assert_int_equal(emitted(f, VMHA_ACTION_SWAP)->record.state, RECORD_STOPPED);
}

static void an_io_error_is_resumed_when_the_group_serves(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    view(f, false, true, true, true);
    f->now_ms += 5000;
    simple(f, VMHA_EVENT_IO_ERROR);
    assert_null(emitted(f, VMHA_ACTION_RESUME));
    view(f, true, true, true, true);
    assert_non_null(emitted(f, VMHA_ACTION_RESUME));
}

static void a_domain_lost_from_the_list_is_a_crash(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    simple(f, VMHA_EVENT_HYPERVISOR_LOST);
    assert_int_equal(guest(f)->life, VMHA_RUNNING); /* libvirtd away: the guest runs on */
    simple(f, VMHA_EVENT_LISTING);
    simple(f, VMHA_EVENT_LISTED);
    assert_non_null(emitted(f, VMHA_ACTION_KILL));
}

/* What was stored but never acknowledged is not the group's truth when the other node becomes its authority. */
static void an_older_record_counts_when_it_is_said_again(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    f->version -= 2;
    meta(f, node_b, 9, RECORD_RUNNING);
    assert_non_null(emitted(f, VMHA_ACTION_READ));
    f->version -= 1;
    meta(f, node_b, 9, RECORD_RUNNING);
    assert_true(guest(f)->record.incarnation == 9);
}

static void an_overtaken_answer_is_dropped(void **state)
{
    struct fixture *f = *state;

    run_here(f);
    f->version -= 2;
    meta(f, node_b, 9, RECORD_RUNNING);
    assert_null(emitted(f, VMHA_ACTION_KILL));
}

static void records_survive_their_text(void **state)
{
    struct record record = {.node = node_a, .incarnation = 12, .state = RECORD_FAILED, .thaw = 3, .force = true}, read;
    struct err err;

    strcpy(record.reason, "a \"quoted\" reason");
    record_format(&record);
    assert_int_equal(record_parse(record.text, &read, &err), 0);
    assert_memory_equal(&record, &read, sizeof record);
    assert_int_not_equal(record_parse("{\"node\":\"x\",\"incarnation\":1,\"state\":\"running\"}", &read, &err), 0);
    assert_int_not_equal(record_parse("{\"node\":\"\",\"incarnation\":-1,\"state\":\"running\"}", &read, &err), 0);
    assert_int_not_equal(record_parse("{\"node\":\"\",\"incarnation\":1,\"state\":\"flying\"}", &read, &err), 0);
    assert_int_not_equal(record_parse("", &read, &err), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(rule_i_only_the_authority_takes_over), T(rule_ii_waits_for_the_lease_and_t_kill),
        T(rule_ii_an_unanswered_question_proves_nothing), T(rule_ii_an_old_answer_is_not_used_later),
        T(rule_ii_a_peer_without_a_watchdog_is_never_killed), T(rule_ii_gone_counts_for_exactly_that_incarnation),
        T(rule_iii_starts_only_after_the_swap),
        T(rule_iii_an_unanswered_swap_starts_nothing), T(a_claim_is_dropped_when_the_group_moved_meanwhile),
        T(nothing_starts_before_the_hypervisor_listed), T(a_guest_runs_only_after_quorumd_knows_it),
        T(an_acknowledgement_of_an_older_list_does_not_count), T(no_lease_no_resume), T(a_sole_member_needs_no_lease),
        T(a_thaw_needs_lease_and_swap), T(a_thaw_is_not_used_when_the_lease_lapsed_again),
        T(a_takeover_wins_over_a_thaw),
        T(a_frozen_guest_whose_group_is_lost_is_killed_and_signed), T(a_running_guest_goes_on_by_forwarding),
        T(a_guest_the_record_does_not_name_is_killed), T(a_record_older_than_the_domain_is_not_believed),
        T(a_domain_found_paused_never_goes_on), T(what_was_signed_gone_is_not_adopted),
        T(a_frozen_domain_found_is_proved_first), T(a_kill_during_a_start_is_repeated_after_it),
        T(a_stop_writes_the_record_first), T(a_forced_stop_kills_at_once), T(a_stopped_guest_is_not_taken_over),
        T(a_start_waits_for_the_other_nodes_verified_stop), T(a_start_elsewhere_names_the_node),
        T(a_failed_start_is_told_and_given_up), T(a_crash_is_restarted_three_times), T(old_crashes_are_forgotten),
        T(a_guest_that_shut_itself_down_is_not_signed_before_its_record),
        T(an_io_error_is_resumed_when_the_group_serves),
        T(a_domain_lost_from_the_list_is_a_crash),
        T(an_overtaken_answer_is_dropped), T(an_older_record_counts_when_it_is_said_again), T(records_survive_their_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
