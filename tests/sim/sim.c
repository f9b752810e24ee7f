/* Runs two authority cores and a witness against random schedules and checks the protocol's invariants at each step.
 *
 * One block of data, two nodes, W. A seed decides everything: which message is delivered, when a link breaks (noticed by
 * each side on its own), when a node crashes with or without its pending save, when a lease lapses, when W is deaf.
 * `sim --seed N [--seeds COUNT] [--steps N] [--verbose]`; a violation prints the seed and the story and exits 1. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quorum/authority_core.h"

#define QUEUE_MAX 64
#define NO_VERSION 0

enum packet_kind { PACKET_CORE, PACKET_TAIL_END, PACKET_WRITE, PACKET_WRITE_ACK, PACKET_COMMIT, PACKET_COPY, PACKET_COPY_ACK };
struct packet {
    enum packet_kind kind;
    struct authority_message message;
    struct id session;
    uint64_t epoch;
    int version;
    bool dirty;
};
struct queue {
    struct packet items[QUEUE_MAX];
    unsigned count;
};

struct node {
    bool up, failed;   /* failed: its disks, until the next boot */
    struct authority core;
    struct authority_record stored; /* survives a crash */
    bool save_pending;
    int data;          /* version of the one block, durable */
    bool dirty;        /* durable */
    bool uncommitted;  /* the tail: journaled in a session, commit not known */
    uint64_t highest;
    bool lease;
    bool unapplied;    /* R8: the lease was acknowledged before W's last change, which this node may not know */
    uint64_t generation;
    bool link;         /* this side thinks the link is up */
    /* the write in flight or held */
    int writing;       /* version, or NO_VERSION */
    bool local_done, remote_done, started;
    /* session driver */
    struct id session;
    uint64_t session_epoch;
    bool serving, sourcing, copy_out, reconciling, hold_writes, quiesce_due;
    bool timer, ask_lease;
    struct authority_action cas; /* outstanding */
    bool cas_out;
    struct queue in;
};

struct world {
    struct node nodes[2];
    uint64_t witness_epoch;
    uint8_t witness_members;
    bool witness_up;
    int acked, last_read, next_version;
    uint64_t random, id_counter;
    unsigned step;
    bool verbose, calm;
    unsigned writes_acked;
    const char *mutation;
};

static uint64_t next_random(struct world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}
static bool chance(struct world *w, unsigned percent) { return next_random(w) % 100 < percent; }

static void tell(struct world *w, const char *format, ...)
{
    if (!w->verbose)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%6u  ", w->step);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

static bool mutated(const struct world *w, const char *name) { return w->mutation && !strcmp(w->mutation, name); }
static char name_of(const struct world *w, const struct node *n) { return (char)('A' + (n - w->nodes)); }
static struct node *peer_of(struct world *w, struct node *n) { return &w->nodes[1 - (n - w->nodes)]; }

static void push(struct world *w, struct node *from, const struct packet *packet)
{
    struct node *to = peer_of(w, from);
    if (from->link && to->link && to->up && to->in.count < QUEUE_MAX)
        to->in.items[to->in.count++] = *packet;
}

static void event(struct world *w, struct node *n, struct authority_event e);

static bool may_serve(const struct node *n)
{
    return n->up && n->serving && authority_may_serve(&n->core, n->lease, n->generation);
}

static void do_local_write(struct world *w, struct node *n)
{
    if (n->core.role == AUTHORITY_SOLE)
        n->dirty |= !mutated(w, "no_dirty"); /* R3 */
    else
        n->uncommitted = !mutated(w, "no_tail");
    n->data = n->writing;
    n->local_done = true;
    if (n->core.role != AUTHORITY_SOLE)
        n->highest++;
}

static void perform(struct world *w, struct node *n, const struct authority_action *action)
{
    struct packet packet = {0};
    switch (action->kind) {
    case AUTHORITY_ACT_SAVE:
        n->save_pending = true;
        return;
    case AUTHORITY_ACT_SEND:
        packet.kind = PACKET_CORE;
        packet.message = action->message;
        push(w, n, &packet);
        return;
    case AUTHORITY_ACT_CAS:
        n->cas = *action;
        n->cas_out = true;
        return;
    case AUTHORITY_ACT_QUIESCE:
        n->serving = n->sourcing = n->reconciling = n->hold_writes = n->copy_out = false;
        n->local_done = n->remote_done = n->started = false;
        n->dirty |= n->uncommitted;
        n->uncommitted = false;
        n->quiesce_due = true;
        return;
    case AUTHORITY_ACT_BEGIN:
        n->session = action->session;
        n->session_epoch = action->epoch;
        if (action->as == AUTHORITY_OPENING || action->as == AUTHORITY_SECONDARY)
            n->highest = 0;
        if (action->everything)
            n->dirty = true;
        return;
    case AUTHORITY_ACT_END:
        n->sourcing = n->hold_writes = n->copy_out = false;
        return;
    case AUTHORITY_ACT_SEND_TAIL:
        packet.kind = PACKET_TAIL_END;
        packet.session = n->core.session;
        packet.dirty = n->dirty && !mutated(w, "no_tail_merge");
        push(w, n, &packet);
        return;
    case AUTHORITY_ACT_RECONCILE:
        n->reconciling = true;
        n->copy_out = false;
        return;
    case AUTHORITY_ACT_RESYNC:
        n->sourcing = true;
        n->copy_out = false;
        return;
    case AUTHORITY_ACT_FORGET_TAIL:
        n->dirty = false;
        return;
    case AUTHORITY_ACT_RAISE:
        n->session = action->session;
        n->session_epoch = action->epoch;
        n->highest = 0;
        n->sourcing = false;
        return;
    case AUTHORITY_ACT_SERVE:
        n->serving = true;
        n->hold_writes = false;
        return;
    case AUTHORITY_ACT_FORWARD:
        return;
    case AUTHORITY_ACT_DROP_HELD:
        n->writing = NO_VERSION;
        n->started = n->local_done = n->remote_done = false;
        return;
    case AUTHORITY_ACT_TIMER:
        n->timer = action->delay_ms != 0;
        return;
    case AUTHORITY_ACT_ASK_PEER_LEASE:
        n->ask_lease = true;
        return;
    case AUTHORITY_ACT_FOUNDED:
        return;
    }
}

static void event(struct world *w, struct node *n, struct authority_event e)
{
    e.fresh = (struct id){0};
    w->id_counter++;
    memcpy(e.fresh.bytes, &w->id_counter, sizeof w->id_counter);
    int before = n->core.role;
    struct authority_actions actions;
    authority_step(&n->core, &e, &actions);
    if (before != n->core.role)
        tell(w, "%c %s -> %s: %s (epoch %llu members %u)", name_of(w, n), fsm_name(&authority_roles, before),
             fsm_name(&authority_roles, n->core.role), n->core.reason, (unsigned long long)n->core.record.epoch,
             n->core.record.members);
    for (unsigned i = 0; i < actions.count; i++)
        perform(w, n, &actions.items[i]);
}

static void simple(struct world *w, struct node *n, enum authority_event_kind kind, bool up)
{
    event(w, n, (struct authority_event){.kind = kind, .up = up, .generation = n->generation});
}

/* ---- the witness: the judge of R4 and R8, in its simplest form --------------------------------------------------- */

static bool claims_primary(const struct node *n)
{
    return n->core.role == AUTHORITY_OPENING || authority_is_authority(&n->core);
}

static void witness_answer(struct world *w, struct node *n)
{
    struct node *other = peer_of(w, n);
    const struct authority_action *cas = &n->cas;
    struct authority_event e = {.kind = AUTHORITY_EV_VERDICT};
    bool matches = false;
    for (unsigned i = 0; i < cas->from_count; i++)
        matches |= cas->from[i].epoch == w->witness_epoch && cas->from[i].members == w->witness_members;
    bool shrink = cas->to.members == n->core.self;
    if (w->witness_epoch == cas->to.epoch && w->witness_members == cas->to.members) {
        e.verdict = AUTHORITY_OK;
    } else if (matches && shrink && other->lease && claims_primary(other) && !cas->record.was_primary && !mutated(w, "no_lease")) {
        e.verdict = AUTHORITY_WAIT;
        e.wait_ms = 1;
    } else if (matches) {
        w->witness_epoch = cas->to.epoch;
        w->witness_members = cas->to.members;
        w->nodes[0].unapplied = w->nodes[1].unapplied = true;
        e.verdict = AUTHORITY_OK;
    } else if (w->witness_epoch < cas->from[0].epoch) {
        e.verdict = AUTHORITY_BEHIND;
    } else {
        e.verdict = w->witness_members & n->core.self ? AUTHORITY_ADOPT : AUTHORITY_STALE;
    }
    e.epoch = w->witness_epoch;
    e.members = w->witness_members;
    static const char *const words[] = {"ok", "stale", "adopt", "behind", "wait", "refused", "no answer"};
    tell(w, "W answers %c: %s (epoch %llu members %u)", name_of(w, n), words[e.verdict],
         (unsigned long long)w->witness_epoch, w->witness_members);
    if (chance(w, 15)) /* the reply is lost: the driver repeats until NO_ANSWER */
        e.verdict = AUTHORITY_NO_ANSWER;
    n->cas_out = false;
    event(w, n, e);
}

/* ---- the mirror link ------------------------------------------------------------------------------------------------- */

static void break_link_at(struct world *w, struct node *n)
{
    if (!n->link)
        return;
    n->link = false;
    n->in.count = 0;
    tell(w, "%c notices that the link is gone", name_of(w, n));
    simple(w, n, AUTHORITY_EV_LINK, false);
}

static void deliver(struct world *w, struct node *n)
{
    struct packet p = n->in.items[0];
    memmove(n->in.items, n->in.items + 1, (n->in.count - 1) * sizeof p);
    n->in.count--;
    struct packet answer = {0};
    switch (p.kind) {
    case PACKET_CORE:
        tell(w, "%c receives message %u (epoch %llu, role %u, busy %d)", name_of(w, n), p.message.kind,
             (unsigned long long)p.message.epoch, p.message.role, p.message.busy);
        event(w, n, (struct authority_event){.kind = AUTHORITY_EV_MESSAGE, .message = p.message});
        return;
    case PACKET_TAIL_END:
        if (!id_equal(&p.session, &n->core.session))
            return;
        n->dirty |= p.dirty;
        simple(w, n, AUTHORITY_EV_TAIL_MERGED, true);
        return;
    case PACKET_WRITE:
        if (n->core.role != AUTHORITY_SECONDARY || !id_equal(&p.session, &n->session) || p.epoch != n->session_epoch)
            return;
        n->data = p.version;
        n->uncommitted = !mutated(w, "no_tail");
        n->highest++;
        answer = (struct packet){.kind = PACKET_WRITE_ACK, .session = p.session, .epoch = p.epoch, .version = p.version};
        push(w, n, &answer);
        return;
    case PACKET_WRITE_ACK:
        if (id_equal(&p.session, &n->core.session) && n->writing == p.version && n->started &&
            (n->core.role == AUTHORITY_PRIMARY || n->core.role == AUTHORITY_GROWING))
            n->remote_done = true;
        return;
    case PACKET_COMMIT:
        if (n->core.role == AUTHORITY_SECONDARY && id_equal(&p.session, &n->session) && n->data == p.version)
            n->uncommitted = false;
        return;
    case PACKET_COPY:
        if ((n->core.role != AUTHORITY_SECONDARY && n->core.role != AUTHORITY_TARGET) || !id_equal(&p.session, &n->session))
            return;
        n->data = p.version;
        answer = (struct packet){.kind = PACKET_COPY_ACK, .session = p.session, .version = p.version};
        push(w, n, &answer);
        return;
    case PACKET_COPY_ACK:
        if (!id_equal(&p.session, &n->core.session) || !n->copy_out)
            return;
        n->copy_out = false;
        if (n->data == p.version || mutated(w, "resync_race")) /* I8: no write touched the block since */
            n->dirty = false;
        return;
    }
}

/* ---- one step of the drivers -------------------------------------------------------------------------------------------- */

static void run_io(struct world *w, struct node *n)
{
    int role = n->core.role;
    if (n->reconciling && role == AUTHORITY_OPENING && !n->copy_out) {
        if (n->dirty && !mutated(w, "no_tail_reconcile")) {
            n->copy_out = true;
            push(w, n, &(struct packet){.kind = PACKET_COPY, .session = n->core.session, .version = n->data});
        } else {
            n->reconciling = false;
            simple(w, n, AUTHORITY_EV_RECONCILED, true);
        }
        return;
    }
    if (n->sourcing && role == AUTHORITY_SOLE && !n->copy_out && !(n->started && n->hold_writes)) {
        n->hold_writes |= chance(w, 30); /* R7.3: the last pass holds new writes */
        if (n->dirty) {
            n->copy_out = true;
            push(w, n, &(struct packet){.kind = PACKET_COPY, .session = n->core.session, .version = n->data});
        } else if (!n->started) {
            n->hold_writes = true;
            n->sourcing = false;
            simple(w, n, AUTHORITY_EV_IN_SYNC, true);
        }
        return;
    }
    if (!n->serving)
        return;
    if (n->writing == NO_VERSION && !n->hold_writes && may_serve(n) && chance(w, 50)) {
        n->writing = ++w->next_version;
        n->started = n->local_done = n->remote_done = false;
    }
    if (n->writing == NO_VERSION || (n->hold_writes && !n->started))
        return;
    if (!n->started) {
        n->started = true;
        n->writing = ++w->next_version; /* a held write that runs again is ordered where it runs */
        if (role != AUTHORITY_SOLE)
            push(w, n, &(struct packet){.kind = PACKET_WRITE, .session = n->core.session, .epoch = n->session_epoch, .version = n->writing});
    } else if (!n->local_done) {
        do_local_write(w, n);
    } else if ((role == AUTHORITY_SOLE || n->remote_done || mutated(w, "ack_one")) && may_serve(n)) {
        w->acked = n->writing > w->acked ? n->writing : w->acked;
        w->writes_acked++;
        if (role != AUTHORITY_SOLE) {
            push(w, n, &(struct packet){.kind = PACKET_COMMIT, .session = n->core.session, .version = n->writing});
            n->uncommitted = false;
        }
        tell(w, "%c acknowledges write %d as %s", name_of(w, n), n->writing, fsm_name(&authority_roles, role));
        n->writing = NO_VERSION;
        n->started = false;
    }
}

static void crash(struct world *w, struct node *n)
{
    tell(w, "%c loses power", name_of(w, n));
    n->failed = false;
    if (n->save_pending && chance(w, 50))
        n->stored = n->core.record; /* the save was already durable */
    n->up = n->link = n->serving = n->save_pending = n->cas_out = n->timer = n->ask_lease = n->quiesce_due = false;
    n->sourcing = n->reconciling = n->copy_out = n->hold_writes = n->started = false;
    n->writing = NO_VERSION;
    n->dirty |= n->uncommitted; /* replay finds the tail in the journal */
    n->uncommitted = false;
    n->in.count = 0;
    n->core.role = AUTHORITY_IDLE;
}

static void boot(struct world *w, struct node *n)
{
    tell(w, "%c boots with epoch %llu members %u pending %llu incomplete %d", name_of(w, n),
         (unsigned long long)n->stored.epoch, n->stored.members, (unsigned long long)n->stored.pending, n->stored.incomplete);
    n->up = true;
    if (n->lease)
        n->generation++;
    n->lease = false;
    authority_init(&n->core, (uint8_t)(1 << (n - w->nodes)));
    event(w, n, (struct authority_event){.kind = AUTHORITY_EV_START, .record = n->stored, .highest = n->highest});
}

static void renew_lease(struct world *w, struct node *n)
{
    if (!w->witness_up || (n->lease && !n->unapplied))
        return;
    /* R8: W's acknowledgement counts only once every exclusion up to it was applied */
    event(w, n, (struct authority_event){.kind = AUTHORITY_EV_RECORD, .epoch = w->witness_epoch, .members = w->witness_members});
    n->unapplied = false;
    if (n->lease)
        return;
    n->lease = true;
    simple(w, n, AUTHORITY_EV_LEASE, true);
}

static void lapse_lease(struct world *w, struct node *n)
{
    if (!n->lease)
        return;
    n->lease = false;
    n->generation++;
    tell(w, "%c: its lease lapses", name_of(w, n));
    if (n->up)
        simple(w, n, AUTHORITY_EV_LEASE, false);
}

static void node_step(struct world *w, struct node *n)
{
    struct node *other = peer_of(w, n);
    unsigned faults = w->calm ? 0 : 1;
    switch (next_random(w) % 12) {
    case 0:
        if (!n->up)
            boot(w, n);
        else if ((faults && chance(w, 3)) || (w->calm && n->failed && chance(w, 10)))
            crash(w, n);
        else if (faults && !n->failed && chance(w, 1)) {
            tell(w, "%c: its storage fails", name_of(w, n));
            n->failed = true;
            simple(w, n, AUTHORITY_EV_STORE_FAILED, true);
        }
        return;
    case 1:
        if (faults && chance(w, 8))
            break_link_at(w, n);
        else if (!other->link)
            break_link_at(w, n);
        return;
    case 2:
        if (n->up && other->up && !n->link && !other->link) {
            n->link = other->link = true;
            simple(w, n, AUTHORITY_EV_LINK, true);
            simple(w, other, AUTHORITY_EV_LINK, true);
        }
        return;
    case 3:
        if (n->up && n->save_pending) {
            n->save_pending = false;
            n->stored = n->core.record;
            simple(w, n, AUTHORITY_EV_SAVED, true);
        }
        return;
    case 4:
        if (n->up && n->quiesce_due) {
            n->quiesce_due = false;
            event(w, n, (struct authority_event){.kind = AUTHORITY_EV_QUIESCED, .highest = n->highest});
        }
        return;
    case 5:
        if (n->up && n->cas_out) {
            if (w->witness_up)
                witness_answer(w, n);
            else {
                n->cas_out = false;
                event(w, n, (struct authority_event){.kind = AUTHORITY_EV_VERDICT, .verdict = AUTHORITY_NO_ANSWER});
            }
        }
        return;
    case 6:
        if (n->up && n->timer) {
            n->timer = false;
            simple(w, n, AUTHORITY_EV_TIMER, true);
        } else if (n->up && n->ask_lease) {
            n->ask_lease = false;
            event(w, n, (struct authority_event){.kind = AUTHORITY_EV_PEER_LEASE,
                                                 .wait_ms = other->lease && other->unapplied && !mutated(w, "no_lease") ? 1 : 0});
        }
        return;
    case 7:
        if (faults && chance(w, 10))
            lapse_lease(w, n);
        else if (!n->up && chance(w, 30))
            lapse_lease(w, n); /* a dead node's lease ends */
        else if (n->up && chance(w, 40))
            renew_lease(w, n);
        return;
    case 8:
        if (n->up && chance(w, 20))
            simple(w, n, AUTHORITY_EV_PEER, other->up);
        return;
    default:
        if (n->up && n->in.count && chance(w, 60))
            deliver(w, n);
        else if (n->up)
            run_io(w, n);
        return;
    }
}

static const char *violation(struct world *w)
{
    for (unsigned i = 0; i < 2; i++) {
        struct node *n = &w->nodes[i], *other = &w->nodes[1 - i];
        if (!may_serve(n))
            continue;
        if (may_serve(other))
            return "I1: two authorities serve";
        bool overlapped = n->started; /* reads that overlap an uncommitted write wait */
        if (!overlapped && n->data < w->acked)
            return "I2: an acknowledged write is gone";
        if (!overlapped && n->data < w->last_read)
            return "I3: a value that was read vanished";
        if (!overlapped)
            w->last_read = n->data;
        bool session = n->core.role == AUTHORITY_PRIMARY && other->up && other->core.role == AUTHORITY_SECONDARY &&
                       id_equal(&n->core.session, &other->core.session);
        if (session && !overlapped && n->data != other->data)
            return "I6: members of a live session differ";
    }
    return NULL;
}

static int run_seed(struct world *w, uint64_t seed, unsigned steps)
{
    bool verbose = w->verbose;
    const char *mutation = w->mutation;
    memset(w, 0, sizeof *w);
    w->verbose = verbose;
    w->mutation = mutation;
    w->random = seed * 0x9E3779B97F4A7C15ull + 0x1234567;
    w->witness_epoch = 1;
    w->witness_members = AUTHORITY_BOTH;
    w->witness_up = true;
    for (unsigned i = 0; i < 2; i++)
        w->nodes[i].stored = (struct authority_record){.epoch = 1, .members = AUTHORITY_BOTH};
    for (w->step = 0; w->step < steps; w->step++) {
        w->calm = w->step > steps - steps / 4;
        if (w->calm)
            w->witness_up = true;
        else if (next_random(w) % 200 == 0)
            w->witness_up = !w->witness_up;
        node_step(w, &w->nodes[next_random(w) % 2]);
        const char *why = violation(w);
        if (why) {
            printf("seed %llu step %u: %s (acked %d, data %d and %d)\n", (unsigned long long)seed, w->step, why, w->acked,
                   w->nodes[0].data, w->nodes[1].data);
            return 1;
        }
    }
    /* liveness: when the faults have stopped both copies become current again and someone is primary */
    struct node *a = &w->nodes[0], *b = &w->nodes[1];
    bool pair = false;
    for (unsigned more = 0; !pair && more < steps; more++, w->step++) {
        node_step(w, &w->nodes[next_random(w) % 2]);
        pair = (a->core.role == AUTHORITY_PRIMARY && b->core.role == AUTHORITY_SECONDARY) ||
               (b->core.role == AUTHORITY_PRIMARY && a->core.role == AUTHORITY_SECONDARY);
    }
    if (!pair) {
        printf("seed %llu: no recovery after the faults stopped: A %s (%s), B %s (%s)\n", (unsigned long long)seed,
               fsm_name(&authority_roles, a->core.role), a->core.reason, fsm_name(&authority_roles, b->core.role), b->core.reason);
        for (unsigned i = 0; i < 2; i++) {
            struct authority *c = &w->nodes[i].core;
            printf("    %c: up %d link %d lease %d session %d saving %d asking %d quiescing %d timer %d peer known %d busy %d role %u\n",
                   'A' + (int)i, w->nodes[i].up, c->link_up, c->lease_valid, !id_is_null(&c->session), c->saving,
                   c->cas_outstanding, c->quiescing, c->timer_running, c->peer_known, c->peer.busy, c->peer.role);
        }
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},   {"seeds", required_argument, NULL, 'n'},
                                            {"steps", required_argument, NULL, 't'},  {"verbose", no_argument, NULL, 'v'},
                                            {"without", required_argument, NULL, 'w'}, {NULL, 0, NULL, 0}};
    uint64_t seed = 1, seeds = 1;
    unsigned steps = 4000;
    static struct world world;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 'n': seeds = strtoull(optarg, NULL, 10); break;
        case 't': steps = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'v': world.verbose = true; break;
        case 'w': world.mutation = optarg; break;
        default: return 2;
        }
    }
    unsigned long long acked = 0;
    for (uint64_t i = 0; i < seeds; i++) {
        if (run_seed(&world, seed + i, steps))
            return 1;
        acked += world.writes_acked;
    }
    printf("%llu seeds of %u steps, %llu writes acknowledged, 0 violations\n", (unsigned long long)seeds, steps, acked);
    return 0;
}
