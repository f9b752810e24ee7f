/* The rules of R11, one function each: what is due for a guest, given all that is known. */
#include "vmha/vmha_core_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/check.h"

struct vmha_action *rules_emit(struct vmha_core *core, enum vmha_action_kind kind, const struct vmha_guest *guest)
{
    check(core->out->count < VMHA_ACTIONS_MAX);
    struct vmha_action *action = &core->out->list[core->out->count++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    if (guest) {
        action->group = guest->group;
        strcpy(action->name, guest->name);
        action->incarnation = guest->here_incarnation;
        action->generation = guest->generation;
    }
    return action;
}

void rules_note(struct vmha_core *core, const char *format, ...)
{
    struct vmha_action *action = rules_emit(core, VMHA_ACTION_NOTE, NULL);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(action->text, sizeof action->text, format, arguments);
    va_end(arguments);
}

void rules_answer(struct vmha_core *core, struct vmha_guest *guest, const char *code, const char *format, ...)
{
    if (guest->command == VMHA_COMMAND_NONE)
        return;
    struct vmha_action *action = rules_emit(core, VMHA_ACTION_ANSWER, guest);
    va_list arguments;

    action->token = guest->token;
    action->ok = !code;
    snprintf(action->code, sizeof action->code, "%s", code ? code : "");
    va_start(arguments, format);
    vsnprintf(action->text, sizeof action->text, format, arguments);
    va_end(arguments);
    guest->command = VMHA_COMMAND_NONE;
    guest->command_force = false;
}

bool rules_is_here(const struct vmha_guest *guest)
{
    return guest->life >= VMHA_STARTING;
}

bool rules_names_us(const struct vmha_core *core, const struct vmha_guest *guest)
{
    return guest->meta_known && id_equal(&guest->record.node, &core->self) &&
           guest->record.incarnation == guest->here_incarnation;
}

/* R11 i: this node is the authority for the guest's group, and the group serves (QEMU opens its disks at once). */
static bool is_authority(const struct vmha_guest *guest)
{
    return guest->view_known && guest->view.local && guest->view.serving;
}

/* R11: guests of a group that this node holds as sole member need no lease, nobody else can start them. */
static bool is_sole(const struct vmha_guest *guest)
{
    return is_authority(guest) && guest->view.member && !guest->view.peer_member;
}

struct record rules_next_record(const struct vmha_guest *guest, enum record_state state)
{
    struct record record = guest->record;

    record.state = state;
    record.force = false;
    record.reason[0] = record.text[0] = '\0';
    return record;
}

void rules_swap(struct vmha_core *core, struct vmha_guest *guest, enum vmha_swap kind, const struct record *record)
{
    check(guest->swap == VMHA_SWAP_NONE && core->storage_up && guest->meta_known);
    struct vmha_action *action = rules_emit(core, VMHA_ACTION_SWAP, guest);
    guest->swap = kind;
    guest->swap_record = *record;
    action->swap = kind;
    action->record = *record;
    strcpy(action->expected, guest->record.text);
}

/* R11 iii: the record moves by compare-and-swap before anything starts. */
static void claim(struct vmha_core *core, struct vmha_guest *guest)
{
    check(guest->life == VMHA_ABSENT && is_authority(guest));
    struct record record = rules_next_record(guest, RECORD_RUNNING);

    record.node = core->self;
    record.incarnation++;
    record.thaw = 0;
    guest->generation = core->generation;
    rules_move(guest, VMHA_CLAIMING);
    rules_swap(core, guest, VMHA_SWAP_CLAIM, &record);
}

void rules_claimed(struct vmha_core *core, struct vmha_guest *guest)
{
    check(guest->life == VMHA_CLAIMING);
    if (!core->hypervisor_up || !is_authority(guest)) {
        rules_note(core, "guest '%s' is not started: group '%s' is no longer served from this node", guest->name,
                   guest->view.name);
        rules_answer(core, guest, "unavailable", "guest '%s' starts as soon as group '%s' is served here again",
                     guest->name, guest->view.name);
        rules_move(guest, core->hypervisor_up ? VMHA_ABSENT : VMHA_UNKNOWN);
        return;
    }
    /* Never two copies: a start follows our own successful swap and finds no domain of this guest here. */
    guest->granted = guest->record.incarnation;
    check(id_equal(&guest->record.node, &core->self) && guest->record.state == RECORD_RUNNING);
    check(guest->here_incarnation == 0 && !guest->start_outstanding && !guest->registered && !guest->kill_outstanding);
    check(guest->granted > guest->signed_incarnation); /* what was signed gone never runs again */
    rules_move(guest, VMHA_STARTING);
    guest->here_incarnation = guest->granted;
    guest->granted = 0;
    guest->start_outstanding = true;
    guest->needs_resume = true;
    guest->frozen = guest->io_paused = guest->ended_by_guest = false;
    rules_note(core, "guest '%s' starts here as incarnation %llu", guest->name,
               (unsigned long long)guest->here_incarnation);
    rules_emit(core, VMHA_ACTION_START, guest);
}

void rules_kill(struct vmha_core *core, struct vmha_guest *guest, const char *why)
{
    if (guest->life == VMHA_KILLING)
        return;
    rules_note(core, "guest '%s' incarnation %llu is ended here: %s", guest->name,
               (unsigned long long)guest->here_incarnation, why);
    rules_move(guest, VMHA_KILLING);
    guest->retry_at_ms = 0;
    guest->kill_outstanding = true;
    rules_emit(core, VMHA_ACTION_KILL, guest);
}

/* The newest VMHA_RESTARTS_MAX + 1 deaths within VMHA_RESTARTS_MS are one too many. */
static bool restarts_used_up(const struct vmha_core *core, const struct vmha_guest *guest)
{
    uint64_t oldest = guest->crashes_ms[VMHA_RESTARTS_MAX];

    return oldest && core->now_ms - oldest < VMHA_RESTARTS_MS;
}

void rules_crashed(struct vmha_core *core, struct vmha_guest *guest)
{
    for (unsigned i = VMHA_RESTARTS_MAX; i; i--)
        guest->crashes_ms[i] = guest->crashes_ms[i - 1];
    guest->crashes_ms[0] = core->now_ms ? core->now_ms : 1;
}

void rules_sign_gone(struct vmha_guest *guest, uint64_t incarnation)
{
    if (incarnation > guest->signed_incarnation)
        guest->sign_again_at_ms = 0;
    if (guest->sign_incarnation < incarnation)
        guest->sign_incarnation = incarnation;
}

/* The record says "running here", no process of it is left. */
static void decide_own_absent(struct vmha_core *core, struct vmha_guest *guest)
{
    struct record record;

    if (guest->ended_by_guest || guest->give_up || restarts_used_up(core, guest)) {
        bool failed = !guest->ended_by_guest && !guest->give_up;
        record = rules_next_record(guest, failed ? RECORD_FAILED : RECORD_STOPPED);
        record.node = (struct id){0};
        snprintf(record.reason, sizeof record.reason, "%s", guest->ended_by_guest ? "shut down from "
                 "inside" : guest->reason);
        if (failed)
            snprintf(record.reason, sizeof record.reason, "ended by itself %u times within %u minutes",
                     VMHA_RESTARTS_MAX + 1, VMHA_RESTARTS_MS / 60000);
        rules_swap(core, guest, failed ? VMHA_SWAP_FAIL : VMHA_SWAP_RELEASE, &record);
    } else if (is_authority(guest)) {
        /* R11: "A node may restart its own guest under its own record whenever it may serve the group." */
        claim(core, guest);
    } else if (guest->view_known && !guest->view.local) {
        /* It does not run here and this incarnation never will again: the other node need not wait for our lease. */
        rules_sign_gone(guest, guest->record.incarnation);
    }
}

/* R11 ii: the peer's lease is over and T_kill has passed, or it signed exactly this incarnation gone. */
static bool peer_cannot_run_it(struct vmha_core *core, const struct vmha_guest *guest)
{
    if (core->peer_killed || guest->peer_gone == guest->record.incarnation)
        return true;
    core->peer_lease_wanted = true;
    return false;
}

static void decide_stopped_absent(struct vmha_core *core, struct vmha_guest *guest)
{
    bool ours = id_equal(&guest->record.node, &core->self);

    if (guest->command == VMHA_COMMAND_REMOVE) {
        struct record nothing = {0};
        rules_swap(core, guest, VMHA_SWAP_REMOVE, &nothing);
    } else if (guest->command == VMHA_COMMAND_START) {
        if (!is_authority(guest))
            rules_answer(core, guest, "unavailable", "guest '%s': group '%s' is not served from this node now; see "
                         "'hcictl status'", guest->name, guest->view.name);
        else if (ours || id_is_null(&guest->record.node) || peer_cannot_run_it(core, guest))
            claim(core, guest);
    } else if (ours) {
        struct record record = rules_next_record(guest, RECORD_STOPPED);
        record.node = (struct id){0};
        rules_swap(core, guest, VMHA_SWAP_RELEASE, &record);
    }
}

static void decide_absent(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->record.state != RECORD_RUNNING) {
        decide_stopped_absent(core, guest);
    } else if (guest->command == VMHA_COMMAND_STOP) {
        return; /* the stop's own swap goes first: commands_decide */
    } else if (id_equal(&guest->record.node, &core->self)) {
        decide_own_absent(core, guest);
    } else if (id_equal(&guest->record.node, &core->peer)) {
        /* R11 i, ii, iii in this order. While the peer lives under its lease it runs the guest, by forwarding. */
        if (is_authority(guest) && peer_cannot_run_it(core, guest)) {
            rules_note(core, "guest '%s' incarnation %llu of node %s: %s, and group '%s' is served here; taking it "
                       "over",
                       guest->name, (unsigned long long)guest->record.incarnation, core->peer_name,
                       guest->peer_gone == guest->record.incarnation ? "signed gone" : "its lease is over and T_kill "
                       "passed",
                       guest->view.name);
            claim(core, guest);
        }
    }
}

/* R8, R11: a guest may be let run under a valid lease, or when nobody else can hold its group. */
static bool may_run(const struct vmha_core *core, const struct vmha_guest *guest)
{
    return core->lease_valid || is_sole(guest);
}

static void resume(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->resume_outstanding || core->now_ms < guest->resume_at_ms)
        return;
    check(guest->register_acked && !guest->frozen && rules_names_us(core, guest));
    guest->resume_outstanding = true;
    guest->resume_at_ms = core->now_ms + VMHA_KILL_RETRY_MS;
    rules_emit(core, VMHA_ACTION_RESUME, guest);
}

/* Paused in its own cgroup, and hci-quorumd must know of it before it runs: it is the one that freezes it. */
static void decide_registering(struct vmha_core *core, struct vmha_guest *guest)
{
    if (!guest->register_acked)
        return;
    if (!guest->needs_resume) {
        rules_move(guest, VMHA_RUNNING); /* adopted */
    } else if (guest->generation != core->generation && !is_sole(guest)) {
        rules_move(guest, VMHA_FROZEN); /* R8: the lease lapsed since the swap: the record must be proved again */
    } else if (may_run(core, guest)) {
        rules_move(guest, VMHA_RESUMING);
        resume(core, guest);
    }
}

static void decide_running(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->life == VMHA_RESUMING)
        resume(core, guest);
    if (guest->life == VMHA_RUNNING && guest->io_paused && guest->view_known && guest->view.serving)
        resume(core, guest);
}

static void decide_stopping(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->life == VMHA_STOPPING) {
        if (core->now_ms >= guest->stop_at_ms || guest->command_force || guest->record.force)
            rules_kill(core, guest, "it did not shut down in time");
        return;
    }
    if (guest->record.force || guest->life != VMHA_RUNNING || guest->io_paused) {
        rules_kill(core, guest, "stopped on purpose");
        return;
    }
    rules_move(guest, VMHA_STOPPING);
    guest->stop_at_ms = core->now_ms + VMHA_STOP_MS;
    rules_note(core, "guest '%s' is asked to shut down", guest->name);
    rules_emit(core, VMHA_ACTION_SHUTDOWN, guest);
}

/* R11: "A frozen guest whose group X no longer has is killed, and signed gone"; a thaw needs a swap by
 * the authority. */
static void decide_frozen(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->view_known && !guest->view.member && guest->view.peer_member) {
        rules_kill(core, guest, "it was frozen and its group went to the other node");
        return;
    }
    if (guest->life != VMHA_FROZEN || !guest->register_acked || !may_run(core, guest) || !core->storage_up ||
        guest->swap != VMHA_SWAP_NONE || core->now_ms < guest->retry_at_ms)
        return;
    struct record record = rules_next_record(guest, RECORD_RUNNING);
    record.thaw++;
    rules_move(guest, VMHA_PROVING);
    guest->generation = core->generation;
    rules_swap(core, guest, VMHA_SWAP_PROVE, &record);
}

static void decide_killing(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->kill_outstanding || core->now_ms < guest->retry_at_ms)
        return;
    guest->kill_outstanding = true;
    rules_emit(core, VMHA_ACTION_KILL, guest);
}

static void read_later(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->reading || guest->read_wanted)
        return;
    guest->read_wanted = true;
    guest->retry_at_ms = core->now_ms + VMHA_RETRY_MS;
}

static void decide_here(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->life == VMHA_KILLING) {
        decide_killing(core, guest);
        return;
    }
    if (!guest->meta_known)
        return;
    if (guest->defined && guest->record.incarnation < guest->here_incarnation)
        read_later(core, guest); /* records only rise: this one was read from a copy that lags */
    else if (!rules_names_us(core, guest))
        rules_kill(core, guest, "its record names another node or incarnation");
    else if (guest->record.state != RECORD_RUNNING)
        decide_stopping(core, guest);
    else if (guest->life == VMHA_REGISTERING)
        decide_registering(core, guest);
    else if (guest->life == VMHA_FROZEN || guest->life == VMHA_PROVING || guest->life == VMHA_THAWING)
        decide_frozen(core, guest);
    else
        decide_running(core, guest);
}

static void decide_signing(struct vmha_core *core, struct vmha_guest *guest)
{
    uint64_t incarnation = guest->sign_incarnation;

    if (!incarnation || !core->quorum_up || guest->sign_outstanding || core->now_ms < guest->sign_again_at_ms)
        return;
    /* Signed is what no process here is, and what no start here will ever be. */
    check(guest->here_incarnation != incarnation && guest->granted != incarnation);
    guest->sign_outstanding = true;
    guest->signed_incarnation = incarnation;
    struct vmha_action *action = rules_emit(core, VMHA_ACTION_SIGN_GONE, guest);
    action->incarnation = incarnation;
}

static void decide_publish(struct vmha_core *core, struct vmha_guest *guest)
{
    guest->published_down = guest->life == VMHA_ABSENT && id_equal(&guest->record.node, &core->self);
    if (!guest->name[0] || !guest->meta_known)
        return;
    if (guest->published_life == guest->life && guest->published_state == guest->record.state &&
        guest->published_incarnation == guest->record.incarnation &&
        id_equal(&guest->published_node, &guest->record.node))
        return;
    guest->published_life = guest->life;
    guest->published_state = guest->record.state;
    guest->published_incarnation = guest->record.incarnation;
    guest->published_node = guest->record.node;
    rules_emit(core, VMHA_ACTION_PUBLISH, guest);
}

static void decide_guest(struct vmha_core *core, struct vmha_guest *guest)
{
    if (guest->read_wanted && !guest->reading && core->storage_up && core->now_ms >= guest->retry_at_ms) {
        guest->read_wanted = false;
        guest->reading = true;
        rules_emit(core, VMHA_ACTION_READ, guest);
    }
    commands_decide(core, guest);
    if (rules_is_here(guest))
        decide_here(core, guest);
    else if (guest->life == VMHA_ABSENT && guest->defined && core->storage_up && !guest->read_wanted &&
             !guest->reading && guest->swap == VMHA_SWAP_NONE && core->now_ms >= guest->retry_at_ms)
        decide_absent(core, guest);
    decide_signing(core, guest);
    decide_publish(core, guest);
}

static void decide_peer_lease(struct vmha_core *core)
{
    if (!core->peer_lease_wanted || core->peer_lease_outstanding || !core->quorum_up ||
        core->now_ms < core->peer_lease_at_ms)
        return;
    core->peer_lease_outstanding = true;
    rules_emit(core, VMHA_ACTION_ASK_PEER_LEASE, NULL);
}

static void decide_register(struct vmha_core *core)
{
    if (!core->register_dirty || core->register_outstanding || !core->quorum_up || core->now_ms < core->register_at_ms)
        return;
    core->register_dirty = false;
    core->register_outstanding = true;
    core->register_serial++;
    struct vmha_action *action = rules_emit(core, VMHA_ACTION_REGISTER, NULL);
    action->serial = core->register_serial;
}

void rules_decide(struct vmha_core *core)
{
    core->peer_lease_wanted = false;
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (core->guests[i].used)
            decide_guest(core, &core->guests[i]);
    decide_peer_lease(core);
    decide_register(core);
}
