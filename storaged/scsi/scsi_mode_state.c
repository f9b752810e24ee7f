/* Changeable mode parameters to JSON and back. */
#include "storaged/scsi/scsi_mode_state.h"

#include <errno.h>

#include "storaged/scsi/reservation_text.h"

static json_t *modes_json(const struct scsi_modes *modes)
{
    return json_pack("{s:b, s:b}", "d_sense", (int)modes->d_sense, "swp", (int)modes->swp);
}

int scsi_mode_state_encode(const struct scsi_mode_state *state, char *ret, size_t size)
{
    json_t *root = json_pack("{s:I, s:I, s:o, s:o, s:o}", "serial", (json_int_t)state->serial, "resets",
                             (json_int_t)state->resets, "current", modes_json(&state->current), "saved",
                             modes_json(&state->saved), "actor", reservation_nexus_put(json_object(), &state->actor));
    if (!root)
        return -ENOMEM;
    size_t length = json_dumpb(root, ret, size, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(root);
    if (length == 0 || length >= size)
        return -ENOSPC;
    ret[length] = 0;
    struct scsi_mode_state back;
    return scsi_mode_state_decode(ret, &back) == 0 ? (int)length : -EINVAL;
}

static bool get_modes(const json_t *object, struct scsi_modes *ret)
{
    const json_t *d_sense = json_object_get(object, "d_sense"), *swp = json_object_get(object, "swp");
    ret->d_sense = json_is_true(d_sense);
    ret->swp = json_is_true(swp);
    return json_is_boolean(d_sense) && json_is_boolean(swp);
}

static bool get_count(const json_t *object, const char *name, uint64_t *ret)
{
    const json_t *value = json_object_get(object, name);
    *ret = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0 && *ret <= INT64_MAX / 2; /* it can grow */
}

int scsi_mode_state_decode(const char *text, struct scsi_mode_state *ret)
{
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    struct scsi_mode_state state = {0};
    bool valid = get_count(root, "serial", &state.serial) && get_count(root, "resets", &state.resets) &&
                 get_modes(json_object_get(root, "current"), &state.current) &&
                 get_modes(json_object_get(root, "saved"), &state.saved) &&
                 reservation_nexus_get(json_object_get(root, "actor"), &state.actor);
    json_decref(root);
    if (!valid)
        return -EBADMSG;
    *ret = state;
    return 0;
}
