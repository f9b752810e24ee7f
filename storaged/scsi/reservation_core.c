/* Persistent reservations as a pure step: state and request in, state and result out (SPC-4 §5.13). */
#include "storaged/scsi/reservation_core.h"

#include <string.h>

#include "common/check.h"

void reservation_init(struct reservation_state *state)
{
    memset(state, 0, sizeof(*state));
    state->holder = -1;
}

void reservation_lock(struct reservation_state *state)
{
    reservation_init(state);
    state->type = RESERVATION_EXCLUSIVE_ACCESS;
}

bool reservation_type_is_valid(unsigned type)
{
    return type <= RESERVATION_EXCLUSIVE_ACCESS_ALL && (1u << type & 0x1ea); /* 1, 3, 5, 6, 7, 8 */
}

bool reservation_type_is_all(unsigned type)
{
    return type == RESERVATION_WRITE_EXCLUSIVE_ALL || type == RESERVATION_EXCLUSIVE_ACCESS_ALL;
}

/* Types whose rights every registrant shares. */
static bool is_shared(unsigned type)
{
    return type >= RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS;
}

static bool is_write_exclusive(unsigned type)
{
    return type == RESERVATION_WRITE_EXCLUSIVE || type == RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS ||
           type == RESERVATION_WRITE_EXCLUSIVE_ALL;
}

static bool same_initiator_port(const struct reservation_nexus *left, const struct reservation_nexus *right)
{
    return memcmp(left->isid, right->isid, RESERVATION_ISID_SIZE) == 0 &&
           strcmp(left->initiator, right->initiator) == 0;
}

bool reservation_nexus_equal(const struct reservation_nexus *left, const struct reservation_nexus *right)
{
    return left->port_group == right->port_group && same_initiator_port(left, right);
}

int reservation_find(const struct reservation_state *state, const struct reservation_nexus *nexus)
{
    for (unsigned i = 0; i < state->count; i++)
        if (reservation_nexus_equal(&state->registrants[i].nexus, nexus))
            return (int)i;
    return -1;
}

bool reservation_holds(const struct reservation_state *state, int registrant)
{
    if (registrant < 0 || state->type == RESERVATION_NONE)
        return false;
    return reservation_type_is_all(state->type) || state->holder == registrant;
}

bool reservation_conflicts(const struct reservation_state *state, int registrant, bool writes)
{
    if (state->type == RESERVATION_NONE || reservation_holds(state, registrant))
        return false;
    if (registrant >= 0 && is_shared(state->type))
        return false;
    return writes || !is_write_exclusive(state->type);
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

static void release(struct reservation_state *state)
{
    state->type = RESERVATION_NONE;
    state->holder = -1;
}

/* Its reservation ends with the holder; that of all registrants with the last of them (SPC-4 §5.13.11.1.3). */
static void remove_registrant(struct reservation_state *state, unsigned index)
{
    check(index < state->count);
    if (state->holder == (int)index)
        release(state);
    else if (state->holder > (int)index)
        state->holder--;
    state->count--;
    memmove(&state->registrants[index], &state->registrants[index + 1],
            (state->count - index) * sizeof(state->registrants[0]));
    memset(&state->registrants[state->count], 0, sizeof(state->registrants[0]));
    if (state->count == 0)
        release(state);
}

static void set_registrant(struct reservation_state *state, const struct reservation_nexus *nexus, uint64_t key,
                           bool all_ports)
{
    int index = reservation_find(state, nexus);
    if (index < 0)
        index = (int)state->count++;
    check(state->count <= RESERVATION_REGISTRANTS_MAX);
    state->registrants[index] = (struct reservation_registrant){.nexus = *nexus, .key = key, .all_ports = all_ports};
}

static bool has_room(const struct reservation_state *state, const struct reservation_request *request)
{
    struct reservation_nexus nexus = request->nexus;
    unsigned needed = reservation_find(state, &nexus) < 0;
    for (nexus.port_group = 1; request->all_ports && nexus.port_group <= RESERVATION_PORTS; nexus.port_group++)
        if (nexus.port_group != request->nexus.port_group)
            needed += reservation_find(state, &nexus) < 0;
    return state->count + needed <= RESERVATION_REGISTRANTS_MAX;
}

static enum reservation_result register_keys(struct reservation_state *state, const struct reservation_request *request)
{
    struct reservation_nexus nexus = request->nexus;
    if (!has_room(state, request))
        return RESERVATION_FULL;
    set_registrant(state, &nexus, request->service_key, request->all_ports);
    for (nexus.port_group = 1; request->all_ports && nexus.port_group <= RESERVATION_PORTS; nexus.port_group++)
        set_registrant(state, &nexus, request->service_key, true);
    return RESERVATION_CHANGED;
}

static void unregister(struct reservation_state *state, const struct reservation_request *request, bool all_ports)
{
    for (unsigned i = state->count; i-- > 0;) {
        const struct reservation_nexus *nexus = &state->registrants[i].nexus;
        if (reservation_nexus_equal(nexus, &request->nexus) ||
            (all_ports && same_initiator_port(nexus, &request->nexus)))
            remove_registrant(state, i);
    }
}

/* SPC-4 §5.13.7, tables 59 and 60. */
static enum reservation_result do_register(struct reservation_state *state, const struct reservation_request *request,
                                           int self)
{
    bool ignores = request->action == RESERVATION_REGISTER_AND_IGNORE;
    if (!ignores && request->key != (self < 0 ? 0 : state->registrants[self].key))
        return RESERVATION_CONFLICT;
    if (request->service_key == 0 && self < 0)
        return RESERVATION_UNCHANGED;
    if (request->service_key == 0)
        unregister(state, request, request->all_ports);
    else if (register_keys(state, request) == RESERVATION_FULL)
        return RESERVATION_FULL;
    state->aptpl = request->aptpl;
    state->generation++;
    return RESERVATION_CHANGED;
}

/* SPC-4 §5.13.9: the holder may ask for the same again, and for nothing else. */
static enum reservation_result do_reserve(struct reservation_state *state, const struct reservation_request *request,
                                          int self)
{
    check(reservation_type_is_valid(request->type));
    if (state->type != RESERVATION_NONE)
        return reservation_holds(state, self) && state->type == request->type ? RESERVATION_UNCHANGED
                                                                              : RESERVATION_CONFLICT;
    state->type = request->type;
    state->holder = reservation_type_is_all(request->type) ? -1 : self;
    return RESERVATION_CHANGED;
}

/* SPC-4 §5.13.11.2. */
static enum reservation_result do_release(struct reservation_state *state, const struct reservation_request *request,
                                          int self)
{
    if (!reservation_holds(state, self))
        return RESERVATION_UNCHANGED;
    if (state->type != request->type)
        return RESERVATION_BAD_RELEASE;
    release(state);
    return RESERVATION_CHANGED;
}

static enum reservation_result do_clear(struct reservation_state *state)
{
    release(state);
    memset(state->registrants, 0, sizeof(state->registrants));
    state->count = 0;
    state->generation++;
    return RESERVATION_CHANGED;
}

/* Removes the registrations with `key` (0: all), but `keep`. */
static unsigned remove_by_key(struct reservation_state *state, uint64_t key, const struct reservation_nexus *keep)
{
    unsigned removed = 0;
    for (unsigned i = state->count; i-- > 0;) {
        const struct reservation_registrant *registrant = &state->registrants[i];
        if ((key && registrant->key != key) || (keep && reservation_nexus_equal(&registrant->nexus, keep)))
            continue;
        remove_registrant(state, i);
        removed++;
    }
    return removed;
}

/* The reservation itself is preempted (SPC-4 §5.13.11.4.3): in one step the old one goes and the new one comes. */
static enum reservation_result take_over(struct reservation_state *state, const struct reservation_request *request)
{
    check(reservation_type_is_valid(request->type));
    release(state);
    remove_by_key(state, request->service_key, &request->nexus);
    state->type = request->type;
    state->holder = reservation_type_is_all(request->type) ? -1 : reservation_find(state, &request->nexus);
    state->generation++;
    return RESERVATION_CHANGED;
}

/* SPC-4 §5.13.11.4, figure 9. */
static enum reservation_result do_preempt(struct reservation_state *state, const struct reservation_request *request)
{
    bool is_all = reservation_type_is_all(state->type), is_held = state->holder >= 0;
    if (is_all && request->service_key == 0)
        return take_over(state, request);
    if (request->service_key == 0)
        return RESERVATION_BAD_KEY;
    if (is_held && state->registrants[state->holder].key == request->service_key)
        return take_over(state, request);
    if (remove_by_key(state, request->service_key, NULL) == 0)
        return RESERVATION_CONFLICT;
    state->generation++;
    return RESERVATION_CHANGED;
}

static enum reservation_result change(struct reservation_state *state, const struct reservation_request *request)
{
    int self = reservation_find(state, &request->nexus);
    if (request->action == RESERVATION_REGISTER || request->action == RESERVATION_REGISTER_AND_IGNORE)
        return do_register(state, request, self);
    if (self < 0 || state->registrants[self].key != request->key)
        return RESERVATION_CONFLICT;
    switch (request->action) {
    case RESERVATION_RESERVE: return do_reserve(state, request, self);
    case RESERVATION_RELEASE: return do_release(state, request, self);
    case RESERVATION_CLEAR: return do_clear(state);
    case RESERVATION_PREEMPT:
    case RESERVATION_PREEMPT_AND_ABORT: return do_preempt(state, request);
    default: check(false); return RESERVATION_CONFLICT;
    }
}

enum reservation_result reservation_step(struct reservation_state *state, const struct reservation_request *request)
{
    enum reservation_result result = change(state, request);
    check(state->holder < (int)state->count && state->count <= RESERVATION_REGISTRANTS_MAX);
    if (result != RESERVATION_CHANGED)
        return result;
    state->serial++;
    state->last_action = (uint8_t)request->action;
    state->last_actor = request->nexus;
    return result;
}

/* ---- RESERVE (6) ------------------------------------------------------------------------------------------------- */

enum reservation_result reservation_reserve_unit(struct reservation_state *state, const struct reservation_nexus *nexus)
{
    if (state->reserved)
        return reservation_nexus_equal(&state->reserved_by, nexus) ? RESERVATION_UNCHANGED : RESERVATION_CONFLICT;
    state->reserved = true;
    state->reserved_by = *nexus;
    state->serial++;
    return RESERVATION_CHANGED;
}

/* Of somebody else's nothing happens (SPC-2 §7.16). */
enum reservation_result reservation_release_unit(struct reservation_state *state, const struct reservation_nexus *nexus)
{
    if (!state->reserved || !reservation_nexus_equal(&state->reserved_by, nexus))
        return RESERVATION_UNCHANGED;
    state->reserved = false;
    memset(&state->reserved_by, 0, sizeof(state->reserved_by));
    state->serial++;
    return RESERVATION_CHANGED;
}

/* ---- who is told ------------------------------------------------------------------------------------------------- */

/* SPC-4 §5.13.11: those whose registration another removed, and registrants whose shared reservation ended. */
enum reservation_notice reservation_notice(const struct reservation_state *old, const struct reservation_state *now,
                                           const struct reservation_nexus *nexus)
{
    int before = reservation_find(old, nexus), after = reservation_find(now, nexus);
    bool is_register = now->last_action == RESERVATION_REGISTER || now->last_action == RESERVATION_REGISTER_AND_IGNORE;
    if (old->serial == now->serial || before < 0 || reservation_nexus_equal(nexus, &now->last_actor))
        return RESERVATION_NOTICE_NONE;
    if (after < 0 && is_register && same_initiator_port(nexus, &now->last_actor))
        return RESERVATION_NOTICE_NONE; /* its own initiator port, by ALL_TG_PT */
    if (after < 0)
        return now->last_action == RESERVATION_CLEAR ? RESERVATION_NOTICE_PREEMPTED
                                                     : RESERVATION_NOTICE_REGISTRATION_PREEMPTED;
    if (is_shared(old->type) && old->type != now->type)
        return RESERVATION_NOTICE_RELEASED;
    return RESERVATION_NOTICE_NONE;
}
