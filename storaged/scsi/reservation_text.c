/* Persistent reservations to JSON and back: numbers in hexadecimal where they are keys, everything checked. */
#include "storaged/scsi/reservation_text.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- out --------------------------------------------------------------------------------------------------------- */

json_t *reservation_nexus_put(json_t *object, const struct reservation_nexus *nexus)
{
    char isid[2 * RESERVATION_ISID_SIZE + 1];
    for (unsigned i = 0; i < RESERVATION_ISID_SIZE; i++)
        snprintf(isid + 2 * i, 3, "%02x", nexus->isid[i]);
    json_object_set_new(object, "initiator", json_string(nexus->initiator));
    json_object_set_new(object, "isid", json_string(isid));
    json_object_set_new(object, "port", json_integer(nexus->port_group));
    return object;
}

static json_t *registrant_json(const struct reservation_registrant *registrant)
{
    char key[17];
    json_t *object = reservation_nexus_put(json_object(), &registrant->nexus);
    snprintf(key, sizeof key, "%016" PRIx64, registrant->key);
    json_object_set_new(object, "key", json_string(key));
    if (registrant->all_ports)
        json_object_set_new(object, "all_ports", json_true());
    return object;
}

static json_t *optional_nexus(bool present, const struct reservation_nexus *nexus)
{
    return present ? reservation_nexus_put(json_object(), nexus) : NULL;
}

static json_t *state_json(const struct reservation_state *state)
{
    json_t *registrants = json_array();
    for (unsigned i = 0; i < state->count; i++)
        json_array_append_new(registrants, registrant_json(&state->registrants[i]));
    json_t *last = optional_nexus(state->last_actor.initiator[0], &state->last_actor);
    if (last)
        json_object_set_new(last, "action", json_integer(state->last_action));
    return json_pack("{s:I, s:I, s:i, s:i, s:b, s:o, s:o*, s:o*}", "serial", (json_int_t)state->serial, "generation",
                     (json_int_t)state->generation, "type", (int)state->type, "holder", state->holder, "aptpl",
                     (int)state->aptpl, "registrants", registrants, "last", last, "reserved",
                     optional_nexus(state->reserved, &state->reserved_by));
}

int reservation_encode(const struct reservation_state *state, char *ret, size_t size)
{
    json_t *root = state_json(state);
    if (!root)
        return -ENOMEM;
    size_t length = json_dumpb(root, ret, size, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(root);
    if (length == 0 || length >= size)
        return -ENOSPC;
    ret[length] = 0;
    struct reservation_state back; /* a name that is no UTF-8 does not come through */
    return reservation_decode(ret, &back) == 0 && back.count == state->count ? (int)length : -EINVAL;
}

/* ---- in ---------------------------------------------------------------------------------------------------------- */

static bool get_number(const json_t *object, const char *name, json_int_t low, json_int_t high, json_int_t *ret)
{
    const json_t *value = json_object_get(object, name);
    *ret = json_integer_value(value);
    return json_is_integer(value) && *ret >= low && *ret <= high;
}

/* Exactly `digits` of 0-9, a-f. */
static bool get_hex(const char *text, size_t digits, uint64_t *ret)
{
    if (!text || strlen(text) != digits || strspn(text, "0123456789abcdef") != digits)
        return false;
    *ret = strtoull(text, NULL, 16);
    return true;
}

bool reservation_nexus_get(const json_t *object, struct reservation_nexus *ret)
{
    const char *initiator = json_string_value(json_object_get(object, "initiator"));
    uint64_t isid;
    json_int_t port;
    memset(ret, 0, sizeof *ret);
    if (!initiator || !initiator[0] || strlen(initiator) >= sizeof ret->initiator)
        return false;
    if (!get_hex(json_string_value(json_object_get(object, "isid")), 2 * RESERVATION_ISID_SIZE, &isid))
        return false;
    if (!get_number(object, "port", 1, RESERVATION_PORTS, &port))
        return false;
    strcpy(ret->initiator, initiator);
    for (unsigned i = 0; i < RESERVATION_ISID_SIZE; i++)
        ret->isid[i] = (uint8_t)(isid >> 8 * (RESERVATION_ISID_SIZE - 1 - i));
    ret->port_group = (uint16_t)port;
    return true;
}

static bool get_registrants(const json_t *array, struct reservation_state *state)
{
    if (!json_is_array(array) || json_array_size(array) > RESERVATION_REGISTRANTS_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *object = json_array_get(array, i);
        struct reservation_registrant registrant = {.all_ports = json_is_true(json_object_get(object, "all_ports"))};
        if (!reservation_nexus_get(object, &registrant.nexus) || reservation_find(state, &registrant.nexus) >= 0)
            return false;
        if (!get_hex(json_string_value(json_object_get(object, "key")), 16, &registrant.key) || registrant.key == 0)
            return false;
        state->registrants[state->count++] = registrant;
    }
    return true;
}

static bool get_last(const json_t *last, struct reservation_state *state)
{
    json_int_t action;
    if (!last) /* RESERVE (6) alone */
        return true;
    if (!get_number(last, "action", 0, RESERVATION_ACTION_COUNT - 1, &action) ||
        !reservation_nexus_get(last, &state->last_actor))
        return false;
    state->last_action = (uint8_t)action;
    return true;
}

/* A type of one holder may have none: reservation_lock, and registrations since. */
static bool holder_is_possible(const struct reservation_state *state)
{
    if (state->type == RESERVATION_NONE || reservation_type_is_all(state->type))
        return state->holder == -1 && (state->type == RESERVATION_NONE || state->count > 0);
    return reservation_type_is_valid(state->type);
}

static bool get_state(const json_t *root, struct reservation_state *state)
{
    json_int_t serial, generation, type, holder;
    reservation_init(state);
    if (!get_registrants(json_object_get(root, "registrants"), state))
        return false;
    if (!get_number(root, "serial", 0, INT64_MAX / 2, &serial) ||
        !get_number(root, "generation", 0, UINT32_MAX, &generation) ||
        !get_number(root, "type", 0, RESERVATION_EXCLUSIVE_ACCESS_ALL, &type) ||
        !get_number(root, "holder", -1, (json_int_t)state->count - 1, &holder))
        return false;
    state->serial = (uint64_t)serial;
    state->generation = (uint32_t)generation;
    state->type = (uint8_t)type;
    state->holder = (int)holder;
    state->aptpl = json_is_true(json_object_get(root, "aptpl"));
    const json_t *reserved = json_object_get(root, "reserved");
    state->reserved = reserved != NULL;
    return holder_is_possible(state) && get_last(json_object_get(root, "last"), state) &&
           (!reserved || reservation_nexus_get(reserved, &state->reserved_by));
}

int reservation_decode(const char *text, struct reservation_state *ret)
{
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    struct reservation_state state;
    bool valid = get_state(root, &state);
    json_decref(root);
    if (!valid)
        return -EBADMSG;
    *ret = state;
    return 0;
}
