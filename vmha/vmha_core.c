/* Takes events in: each handler only updates what is known; vmha_rules.c then emits what is due. */
#include "vmha/vmha_core.h"

#include <stdio.h>
#include <string.h>

#include "common/check.h"
#include "vmha/vmha_core_internal.h"

#define TO(state) FSM_BIT(VMHA_##state)

static const struct fsm_state life_states[VMHA_LIVES] = {
    [VMHA_UNKNOWN] = {"unknown", TO(ABSENT) | TO(REGISTERING) | TO(FROZEN) | TO(KILLING),
                      "the hypervisor has not said yet what runs here; nothing is started"},
    [VMHA_ABSENT] = {"absent", TO(UNKNOWN) | TO(CLAIMING) | TO(KILLING), "no process of it is on this node"},
    [VMHA_CLAIMING] = {"claiming", TO(UNKNOWN) | TO(ABSENT) | TO(STARTING) | TO(KILLING),
                       "the record is being moved to this node and the next incarnation"},
    [VMHA_STARTING] = {"starting", TO(REGISTERING) | TO(KILLING),
                       "the record names this node; the hypervisor starts it paused, in a cgroup of its own"},
    [VMHA_REGISTERING] = {"registering", TO(RESUMING) | TO(RUNNING) | TO(FROZEN) | TO(KILLING),
                          "hci-quorumd is told of it, so that it is frozen when the lease ends"},
    [VMHA_RESUMING] = {"resuming", TO(RUNNING) | TO(FROZEN) | TO(KILLING), "its processors are let run"},
    [VMHA_RUNNING] = {"running", TO(STOPPING) | TO(FROZEN) | TO(KILLING), "it runs here, and the record says so"},
    [VMHA_STOPPING] = {"stopping", TO(FROZEN) | TO(KILLING), "the record says stopped; its system was asked to shut "
    "down"},
    [VMHA_FROZEN] = {"frozen", TO(PROVING) | TO(KILLING), "the lease ended; it waits for a lease and the record"},
    [VMHA_PROVING] = {"proving", TO(FROZEN) | TO(THAWING) | TO(RESUMING) | TO(RUNNING) | TO(KILLING),
                      "a swap by the group's authority proves that nobody took it over"},
    [VMHA_THAWING] = {"thawing", TO(FROZEN) | TO(RESUMING) | TO(RUNNING) | TO(KILLING), "hci-quorumd thaws it"},
    [VMHA_KILLING] = {"killing", TO(UNKNOWN) | TO(ABSENT), "its processes are ended, and that is verified"},
};
const struct fsm_table vmha_life_table = {"guest life", VMHA_LIVES, life_states};

void vmha_core_init(struct vmha_core *core, const struct id *self, const char *self_name, const struct id *peer,
                    const char *peer_name)
{
    check(!id_equal(self, peer) && !id_is_null(self) && !id_is_null(peer));
    memset(core, 0, sizeof *core);
    core->self = *self;
    core->peer = *peer;
    snprintf(core->self_name, sizeof core->self_name, "%s", self_name);
    snprintf(core->peer_name, sizeof core->peer_name, "%s", peer_name);
}

static struct vmha_guest *guest_find(struct vmha_core *core, const struct id *group)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (core->guests[i].used && id_equal(&core->guests[i].group, group))
            return &core->guests[i];
    return NULL;
}

static struct vmha_guest *guest_make(struct vmha_core *core, const struct id *group)
{
    struct vmha_guest *guest = guest_find(core, group);

    for (unsigned i = 0; !guest && i < VMHA_GROUPS_MAX; i++) {
        if (core->guests[i].used)
            continue;
        guest = &core->guests[i];
        memset(guest, 0, sizeof *guest);
        guest->used = true;
        guest->group = *group;
        guest->life = core->hypervisor_up ? VMHA_ABSENT : VMHA_UNKNOWN;
    }
    if (!guest)
        rules_note(core, "a group is not watched: this node knows %u groups already, the most it can", VMHA_GROUPS_MAX);
    return guest;
}

static void on_storage(struct vmha_core *core, const struct vmha_event *event)
{
    core->storage_up = event->up;
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++) {
        struct vmha_guest *guest = &core->guests[i];
        guest->view_known = false; /* it says everything again after a connection */
        guest->read_wanted = event->up && guest->used;
    }
}

static void on_quorum(struct vmha_core *core, const struct vmha_event *event)
{
    core->quorum_up = event->up;
    core->lease_valid = false; /* until it says so */
    core->register_at_ms = core->peer_lease_at_ms = 0;
    core->register_dirty = true;
}

static void on_group(struct vmha_core *core, const struct vmha_event *event)
{
    struct vmha_guest *guest = guest_make(core, &event->group);

    if (!guest)
        return;
    if (!guest->meta_known)
        guest->read_wanted = true;
    guest->view = event->view;
    guest->view_known = true;
}

static void meta_store(struct vmha_guest *guest, const struct vmha_meta *meta)
{
    /* An answer that was overtaken by our own swap; or the group's new authority never knew of a change that was not
     * acknowledged. An answer to a question asked from now on tells which. */
    if (guest->meta_known && meta->version < guest->version && !guest->doubted) {
        guest->doubted = guest->read_wanted = true;
        return;
    }
    guest->doubted = false;
    guest->meta_known = true;
    guest->version = meta->version;
    guest->defined = meta->has_record;
    if (guest->defined)
        strcpy(guest->name, meta->name);
    else if (!rules_is_here(guest))
        guest->name[0] = '\0';
    guest->record = meta->has_record ? meta->record : (struct record){0};
}

static void on_meta(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    guest->reading = false;
    if (event->ok) {
        meta_store(guest, &event->meta);
    } else {
        guest->read_wanted = core->storage_up;
        guest->retry_at_ms = core->now_ms + VMHA_RETRY_MS;
    }
}

static void proved(struct vmha_core *core, struct vmha_guest *guest)
{
    bool sole = guest->view_known && guest->view.local && guest->view.member && !guest->view.peer_member;

    if (guest->life != VMHA_PROVING)
        return;
    if (!rules_names_us(core, guest) || (!sole && (!core->lease_valid || guest->generation != core->generation))) {
        rules_move(guest, VMHA_FROZEN); /* R8: lapsed meanwhile; the record must be proved again */
    } else if (guest->frozen) {
        rules_move(guest, VMHA_THAWING);
        rules_emit(core, VMHA_ACTION_THAW, guest);
    } else {
        rules_move(guest, guest->needs_resume ? VMHA_RESUMING : VMHA_RUNNING);
    }
}

static void swap_unavailable(struct vmha_core *core, struct vmha_guest *guest, bool changed)
{
    if (guest->life == VMHA_CLAIMING)
        rules_move(guest, core->hypervisor_up ? VMHA_ABSENT : VMHA_UNKNOWN);
    if (guest->life == VMHA_PROVING)
        rules_move(guest, VMHA_FROZEN);
    if (changed)
        return;
    /* It may have been done: what the record says now is read before anything else is tried. */
    guest->retry_at_ms = core->now_ms + VMHA_RETRY_MS;
    guest->read_wanted = true;
    rules_answer(core, guest, "unavailable", "guest '%s': the record of group '%s' cannot be changed, nobody serves "
                 "the "
                 "group now; see 'hcictl status'", guest->name, guest->view.name);
}

static void swap_done(struct vmha_core *core, struct vmha_guest *guest, enum vmha_swap kind)
{
    switch (kind) {
    case VMHA_SWAP_CLAIM:
        if (guest->life == VMHA_CLAIMING)
            rules_claimed(core, guest);
        break;
    case VMHA_SWAP_PROVE:
        proved(core, guest);
        break;
    case VMHA_SWAP_RELEASE:
    case VMHA_SWAP_FAIL:
        guest->ended_by_guest = guest->give_up = false;
        rules_note(core, "guest '%s' is %s%s%s", guest->name, record_state_name(guest->record.state),
                   guest->record.reason[0] ? ": " : "", guest->record.reason);
        break;
    case VMHA_SWAP_REMOVE:
        rules_answer(core, guest, NULL, "guest removed");
        break;
    case VMHA_SWAP_STOP:
    case VMHA_SWAP_NONE:
        break;
    }
}

static void on_swapped(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    enum vmha_swap kind = guest->swap;

    check(kind != VMHA_SWAP_NONE);
    guest->swap = VMHA_SWAP_NONE;
    if (event->swap_result == VMHA_SWAP_UNAVAILABLE) {
        swap_unavailable(core, guest, false);
        return;
    }
    meta_store(guest, &event->meta);
    if (event->swap_result == VMHA_SWAP_CHANGED)
        swap_unavailable(core, guest, true);
    else
        swap_done(core, guest, kind);
}

static void on_peer_lease(struct vmha_core *core, const struct vmha_event *event)
{
    core->peer_lease_outstanding = false;
    core->peer_killed = event->ok && event->killed_in_ms == 0;
    uint64_t wait_ms = event->ok ? event->killed_in_ms : VMHA_RETRY_MS; /* "never", while T_kill is not known */
    core->peer_lease_at_ms = core->now_ms + (wait_ms < VMHA_ASK_AGAIN_MS ? wait_ms : VMHA_ASK_AGAIN_MS);
    for (unsigned i = 0; event->ok && event->killed_in_ms && i < VMHA_GROUPS_MAX; i++) {
        struct vmha_guest *guest = &core->guests[i];
        if (guest->used && guest->command == VMHA_COMMAND_START && guest->life == VMHA_ABSENT &&
            id_equal(&guest->record.node, &core->peer) && guest->peer_gone != guest->record.incarnation)
            rules_answer(core, guest, "busy", "guest '%s' is still shutting down on node %s; try again when 'hcictl vm "
                         "list' names no node for it", guest->name, core->peer_name);
    }
}

static void on_frozen(struct vmha_core *core, const struct vmha_event *event)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++) {
        struct vmha_guest *guest = &core->guests[i];
        if (!guest->used || !guest->registered)
            continue;
        guest->frozen = false;
        for (unsigned k = 0; k < event->frozen.count; k++)
            guest->frozen |= !strcmp(guest->name, event->frozen.names[k]);
        bool moving = guest->life >= VMHA_REGISTERING && guest->life <= VMHA_STOPPING;
        if (guest->frozen && moving) {
            rules_note(core, "guest '%s' is frozen: the lease of this node ended", guest->name);
            rules_move(guest, VMHA_FROZEN);
        }
    }
}

static void register_guest(struct vmha_core *core, struct vmha_guest *guest, bool registered)
{
    guest->registered = registered;
    guest->register_acked = false;
    guest->register_serial = core->register_serial + 1;
    core->register_dirty = true;
}

static void on_registered(struct vmha_core *core, const struct vmha_event *event)
{
    core->register_outstanding = false;
    if (!event->ok) {
        core->register_dirty = true;
        core->register_at_ms = core->now_ms + VMHA_RETRY_MS;
        return;
    }
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (core->guests[i].registered && core->guests[i].register_serial <= event->serial)
            core->guests[i].register_acked = true;
}

static void on_thawed(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    if (guest->life != VMHA_THAWING)
        return;
    if (event->ok) {
        guest->frozen = false;
        rules_note(core, "guest '%s' goes on: the record still names this node", guest->name);
        rules_move(guest, guest->needs_resume ? VMHA_RESUMING : VMHA_RUNNING);
    } else {
        guest->retry_at_ms = core->now_ms + VMHA_RETRY_MS;
        rules_move(guest, VMHA_FROZEN);
    }
}

static void on_signed(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    guest->sign_outstanding = false;
    guest->sign_again_at_ms = core->now_ms + (event->ok ? VMHA_SIGN_AGAIN_MS : VMHA_RETRY_MS);
    if (event->ok && guest->sign_incarnation == event->incarnation)
        guest->sign_incarnation = 0; /* set again while the record still names it */
}

static void on_found(struct vmha_core *core, const struct vmha_event *event)
{
    struct vmha_guest *guest = guest_make(core, &event->group);

    if (!guest)
        return;
    if (!guest->meta_known)
        strcpy(guest->name, event->name);
    guest->found = true;
    if (guest->life == VMHA_KILLING || (rules_is_here(guest) && guest->here_incarnation == event->incarnation))
        return;
    if (guest->life == VMHA_STARTING)
        return; /* its answer decides */
    guest->here_incarnation = event->incarnation;
    register_guest(core, guest, true);
    guest->needs_resume = guest->io_paused = guest->ended_by_guest = false;
    guest->frozen = event->found.frozen;
    if (guest->life != VMHA_UNKNOWN || event->incarnation <= guest->signed_incarnation) {
        rules_kill(core, guest, "it is not the one this node started");
    } else if (event->found.paused) {
        /* Every start is paused until all of R11 is done. One found so never ran, and may have been signed gone. */
        rules_kill(core, guest, "it was found paused");
    } else {
        rules_note(core, "guest '%s' incarnation %llu is found %s here", guest->name,
                   (unsigned long long)event->incarnation, guest->frozen ? "frozen" : "running");
        rules_move(guest, guest->frozen ? VMHA_FROZEN : VMHA_REGISTERING);
    }
}

static void on_listed(struct vmha_core *core)
{
    core->hypervisor_up = true;
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++) {
        struct vmha_guest *guest = &core->guests[i];
        if (!guest->used || guest->found)
            continue;
        if (guest->life == VMHA_UNKNOWN) {
            rules_move(guest, VMHA_ABSENT);
        } else if (rules_is_here(guest) && !guest->start_outstanding && guest->life != VMHA_KILLING) {
            rules_crashed(core, guest);
            rules_kill(core, guest, "the hypervisor no longer knows it");
        }
    }
}

static void on_hypervisor_lost(struct vmha_core *core)
{
    core->hypervisor_up = false;
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (core->guests[i].used && core->guests[i].life == VMHA_ABSENT)
            rules_move(&core->guests[i], VMHA_UNKNOWN);
}

static void on_started(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    guest->start_outstanding = false;
    if (guest->life != VMHA_STARTING) {
        guest->kill_again = guest->kill_outstanding; /* killed meanwhile: what the start left behind goes too */
        guest->retry_at_ms = 0;
        return;
    }
    if (event->ok) {
        register_guest(core, guest, true);
        rules_move(guest, VMHA_REGISTERING);
        return;
    }
    snprintf(guest->reason, sizeof guest->reason, "%s", event->reason);
    guest->give_up = guest->command == VMHA_COMMAND_START;
    rules_answer(core, guest, "start", "guest '%s' did not start: %s", guest->name, event->reason);
    if (!guest->give_up)
        rules_crashed(core, guest);
    rules_kill(core, guest, event->reason);
}

static void on_resumed(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    guest->resume_outstanding = false;
    if (!event->ok) {
        rules_note(core, "guest '%s' is not resumed yet: %s", guest->name, event->reason);
        return;
    }
    guest->needs_resume = guest->io_paused = false;
    if (guest->life == VMHA_RESUMING) {
        rules_move(guest, VMHA_RUNNING);
        rules_note(core, "guest '%s' runs here as incarnation %llu", guest->name,
                   (unsigned long long)guest->here_incarnation);
    }
}

static void on_killed(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    guest->kill_outstanding = false;
    check(guest->life == VMHA_KILLING);
    if (!event->ok || guest->start_outstanding || guest->kill_again) {
        if (!event->ok)
            rules_note(core, "guest '%s' is not verified dead yet: %s", guest->name, event->reason);
        guest->retry_at_ms = guest->kill_again ? 0 : core->now_ms + VMHA_KILL_RETRY_MS;
        guest->kill_again = false;
        return;
    }
    if (!guest->ended_by_guest) /* else the other node would start it again before the record says stopped */
        rules_sign_gone(guest, guest->here_incarnation);
    if (guest->registered)
        register_guest(core, guest, false);
    bool restart = guest->crashes_ms[0] && core->now_ms - guest->crashes_ms[0] < VMHA_START_RETRY_MS;
    guest->retry_at_ms = restart && guest->crashes_ms[1] ? core->now_ms + VMHA_START_RETRY_MS : 0;
    guest->here_incarnation = 0;
    guest->frozen = guest->io_paused = guest->needs_resume = false;
    if (guest->command == VMHA_COMMAND_START)
        rules_answer(core, guest, "ended", "guest '%s' was ended here again before it ran; see the log", guest->name);
    rules_move(guest, core->hypervisor_up ? VMHA_ABSENT : VMHA_UNKNOWN);
    if (!guest->defined)
        guest->name[0] = '\0';
}

static void on_ended(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    if (!rules_is_here(guest) || guest->life == VMHA_KILLING || guest->start_outstanding)
        return;
    if (guest->life != VMHA_STOPPING && event->by_guest)
        guest->ended_by_guest = true;
    else if (guest->life != VMHA_STOPPING)
        rules_crashed(core, guest);
    rules_kill(core, guest, event->by_guest ? "its system shut down" : "its QEMU process ended");
}

static void on_guest_event(struct vmha_core *core, struct vmha_guest *guest, const struct vmha_event *event)
{
    switch (event->kind) {
    case VMHA_EVENT_META_CHANGED: guest->read_wanted = true; break;
    case VMHA_EVENT_META: on_meta(core, guest, event); break;
    case VMHA_EVENT_SWAPPED: on_swapped(core, guest, event); break;
    case VMHA_EVENT_THAWED: on_thawed(core, guest, event); break;
    case VMHA_EVENT_SIGNED: on_signed(core, guest, event); break;
    case VMHA_EVENT_STARTED: on_started(core, guest, event); break;
    case VMHA_EVENT_RESUMED: on_resumed(core, guest, event); break;
    case VMHA_EVENT_KILLED: on_killed(core, guest, event); break;
    case VMHA_EVENT_DOMAIN_ENDED: on_ended(core, guest, event); break;
    case VMHA_EVENT_IO_ERROR: guest->io_paused = rules_is_here(guest); break;
    default: check(!"an event of a guest");
    }
}

static void on_event(struct vmha_core *core, const struct vmha_event *event)
{
    struct vmha_guest *guest;

    switch (event->kind) {
    case VMHA_EVENT_TICK: break;
    case VMHA_EVENT_STORAGE: on_storage(core, event); break;
    case VMHA_EVENT_QUORUM: on_quorum(core, event); break;
    case VMHA_EVENT_GROUP: on_group(core, event); break;
    case VMHA_EVENT_LEASE:
        core->lease_valid = event->lease.valid;
        core->generation = event->lease.generation;
        break;
    case VMHA_EVENT_PEER_LEASE: on_peer_lease(core, event); break;
    case VMHA_EVENT_PEER_GONE:
        guest = guest_make(core, &event->group);
        if (guest && event->incarnation > guest->peer_gone)
            guest->peer_gone = event->incarnation;
        break;
    case VMHA_EVENT_FROZEN: on_frozen(core, event); break;
    case VMHA_EVENT_REGISTERED: on_registered(core, event); break;
    case VMHA_EVENT_LISTING:
        for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
            core->guests[i].found = false;
        break;
    case VMHA_EVENT_DOMAIN_FOUND: on_found(core, event); break;
    case VMHA_EVENT_LISTED: on_listed(core); break;
    case VMHA_EVENT_HYPERVISOR_LOST: on_hypervisor_lost(core); break;
    case VMHA_EVENT_ASKED_START: commands_ask(core, event, VMHA_COMMAND_START); break;
    case VMHA_EVENT_ASKED_STOP: commands_ask(core, event, VMHA_COMMAND_STOP); break;
    case VMHA_EVENT_ASKED_REMOVE: commands_ask(core, event, VMHA_COMMAND_REMOVE); break;
    default:
        guest = guest_find(core, &event->group);
        if (guest)
            on_guest_event(core, guest, event);
    }
}

void vmha_core_step(struct vmha_core *core, const struct vmha_event *event, struct vmha_actions *ret)
{
    check(event->now_ms >= core->now_ms);
    core->now_ms = event->now_ms;
    core->peer_killed = false;
    core->out = ret;
    ret->count = 0;
    on_event(core, event);
    rules_decide(core);
    core->out = NULL;
}

static void earlier(uint64_t now_ms, uint64_t at_ms, uint64_t *deadline_ms)
{
    if (at_ms > now_ms && at_ms < *deadline_ms)
        *deadline_ms = at_ms;
}

uint64_t vmha_core_deadline_ms(const struct vmha_core *core)
{
    uint64_t deadline_ms = UINT64_MAX;

    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++) {
        const struct vmha_guest *guest = &core->guests[i];
        if (!guest->used)
            continue;
        earlier(core->now_ms, guest->retry_at_ms, &deadline_ms);
        earlier(core->now_ms, guest->resume_at_ms, &deadline_ms);
        if (guest->life == VMHA_STOPPING)
            earlier(core->now_ms, guest->stop_at_ms, &deadline_ms);
        if (guest->sign_incarnation)
            earlier(core->now_ms, guest->sign_again_at_ms, &deadline_ms);
    }
    if (core->peer_lease_wanted)
        earlier(core->now_ms, core->peer_lease_at_ms, &deadline_ms);
    if (core->register_dirty)
        earlier(core->now_ms, core->register_at_ms, &deadline_ms);
    return deadline_ms;
}
