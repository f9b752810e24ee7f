/* Reads and writes the owner record of a guest as JSON text. */
#include "vmha/record.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "common/check.h"

static const char *const state_names[] = {
    [RECORD_STOPPED] = "stopped",
    [RECORD_RUNNING] = "running",
    [RECORD_FAILED] = "failed",
};

const char *record_state_name(enum record_state state)
{
    check(state >= RECORD_STOPPED && state <= RECORD_FAILED);
    return state_names[state];
}

static int state_parse(const char *name, enum record_state *ret)
{
    for (unsigned i = 0; i < sizeof state_names / sizeof *state_names; i++)
        if (!strcmp(name, state_names[i])) {
            *ret = (enum record_state)i;
            return 0;
        }
    return -EINVAL;
}

void record_format(struct record *record)
{
    char node[ID_TEXT_SIZE] = "";

    if (!id_is_null(&record->node))
        id_format(&record->node, node);
    json_t *json = json_pack("{s:s, s:I, s:s}", "node", node, "incarnation", (json_int_t)record->incarnation, "state",
                             record_state_name(record->state));
    check(json);
    if (record->thaw)
        check(!json_object_set_new(json, "thaw", json_integer((json_int_t)record->thaw)));
    if (record->force)
        check(!json_object_set_new(json, "force", json_true()));
    if (record->reason[0])
        check(!json_object_set_new(json, "reason", json_string(record->reason)));
    size_t size = json_dumpb(json, record->text, sizeof record->text - 1, JSON_COMPACT);
    check(size > 0 && size < sizeof record->text); /* the fields' limits add up to less, escapes included */
    record->text[size] = '\0';
    json_decref(json);
}

static int fields_parse(json_t *json, struct record *record)
{
    const char *node, *state, *reason = "";
    json_int_t incarnation, thaw = 0;
    int force = 0;

    if (json_unpack(json, "{s:s, s:I, s:s, s?I, s?b, s?s}", "node", &node, "incarnation", &incarnation, "state", &state,
                    "thaw", &thaw, "force", &force, "reason", &reason))
        return -EINVAL;
    if (incarnation < 0 || thaw < 0 || strlen(reason) >= sizeof record->reason)
        return -EINVAL;
    if ((node[0] && id_parse(node, &record->node)) || state_parse(state, &record->state))
        return -EINVAL;
    record->incarnation = (uint64_t)incarnation;
    record->thaw = (uint64_t)thaw;
    record->force = force;
    strcpy(record->reason, reason);
    return 0;
}

int record_parse(const char *text, struct record *ret, struct err *err)
{
    struct record record = {0};

    if (strlen(text) >= sizeof record.text)
        return err_set(err, -EINVAL, "invalid", "owner record: %zu bytes exceed %u", strlen(text), RECORD_TEXT_MAX - 1);
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    int r = json ? fields_parse(json, &record) : -EINVAL;
    json_decref(json);
    if (r)
        return err_set(err, r, "invalid", "owner record '%.200s' is not of this version; restore the metadata", text);
    strcpy(record.text, text);
    *ret = record;
    return 0;
}
