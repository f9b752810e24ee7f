/* target.show, set, chap: who may log in to a volume. Kept in the metadata of the volume's group, so on both nodes. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/seal.h"
#include "storaged/control/control_private.h"

#define INITIATORS_MAX 64u
#define SECRET_MIN 12u /* what initiators accept: Windows takes 12 to 16, RFC 7143 §9.2.1 wants 96 random bits */

static void fetch(struct control *control, struct control_request *request, json_t *params, const char *name,
                  void (*then)(struct control *control, struct pending *pending), reply_maker *reply)
{
    struct pending *pending = pending_new(control, request, ENGINE_TARGET, reply);
    pending->call.sessions = calloc(ENGINE_SESSIONS_MAX, sizeof *pending->call.sessions);
    check(pending->call.sessions);
    strcpy(pending->call.name, name);
    pending->params = json_incref(params);
    pending->then = then;
    pending_submit(pending);
}

/* ---- target.show ------------------------------------------------------------------------------------------------- */

static json_t *entry_of(const struct engine_call *call, const char *key)
{
    const char *text = metadata_get(&call->metadata, key);
    return text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

static json_t *sessions_of(const struct engine_call *call)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < call->session_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s}", "initiator", call->sessions[i].initiator, "address",
                                              call->sessions[i].address));
    return list;
}

/* An entry that cannot be read lets nobody in, and is shown as that. */
static json_t *initiators_of(const struct engine_call *call)
{
    json_t *entry = entry_of(call, "acl"), *list = json_object_get(entry, "initiators");
    list = metadata_get(&call->metadata, "acl") ? json_is_array(list) ? json_incref(list) : json_array() : json_null();
    json_decref(entry);
    return list;
}

static json_t *chap_of(const struct engine_call *call)
{
    json_t *entry = entry_of(call, "chap"), *user = json_object_get(entry, "user"),
           *mutual = json_object_get(entry, "mutual_user");
    json_t *chap = json_null();
    if (metadata_get(&call->metadata, "chap"))
        chap = json_pack("{s:O, s:O}", "user", user ? user : json_null(), "mutual_user", mutual ? mutual : json_null());
    json_decref(entry);
    return chap;
}

static json_t *target_shown(struct control *control, struct engine_call *call)
{
    char iqn[160];
    json_t *portals = json_array(), *guest = entry_of(call, "guest"), *owner = json_object_get(guest, "name");
    snprintf(iqn, sizeof iqn, "%s%s", LUN_IQN_PREFIX, call->name);
    for (unsigned i = 0; i < control->site->portal_count; i++)
        json_array_append_new(portals, json_string(control->site->portals[i]));
    json_t *json =
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:O}", "name", call->name, "iqn", iqn, "portals", portals,
                  "initiators", initiators_of(call), "chap", chap_of(call), "sessions", sessions_of(call), "group",
                  json_of_id(&call->group), "group_name", call->group_name, "guest", owner ? owner : json_null());
    json_decref(guest);
    return json;
}

void target_show_method(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = request_text(request, params, "name", GROUP_NAME_SIZE);
    if (name)
        fetch(userdata, request, params, name, NULL, target_shown);
}

/* ---- changing: read, then compare and swap ----------------------------------------------------------------------- */

static void swap_entry(struct pending *pending, const char *key, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    struct engine_call *call = &pending->call;
    int error = metadata_changes_add(&call->changes, key, metadata_get(&call->metadata, key), text);
    if (text)
        seal_wipe(text, strlen(text));
    free(text);
    json_decref(value);
    check(error == 0 || error == -ENOMEM || error == -ENOSPC);
    metadata_clear(&call->metadata);
    call->kind = ENGINE_META_SWAP;
    pending->then = NULL;
    pending->reply = reply_nothing;
    pending_submit(pending);
}

/* A guest's disk is admitted by its owner record and its own password; both are vmhad's to change (R11). */
static bool refuse_guests(struct pending *pending)
{
    if (!metadata_get(&pending->call.metadata, "guest"))
        return false;
    struct err err;
    err_set(&err, -EBUSY, "in_use",
            "target '%s': its volume belongs to a guest, and only that guest may log in; 'hcictl vm remove' ends that",
            pending->call.name);
    pending_fail(pending, &err);
    return true;
}

/* "expected": the list that the caller changed is still the present one. */
static bool refuse_stale(struct pending *pending)
{
    json_t *expected = json_object_get(pending->params, "expected"), *now = initiators_of(&pending->call);
    bool stale = expected && !json_equal(expected, now);
    json_decref(now);
    if (!stale)
        return false;
    struct err err;
    err_set(&err, -ESTALE, "changed",
            "target '%s': somebody else changed its list of initiators meanwhile; look at it and try again",
            pending->call.name);
    pending_fail(pending, &err);
    return true;
}

static void set_acl(struct control *control, struct pending *pending)
{
    json_t *initiators = json_object_get(pending->params, "initiators");
    if (!refuse_guests(pending) && !refuse_stale(pending))
        swap_entry(pending, "acl", json_is_array(initiators) ? json_pack("{s:O}", "initiators", initiators) : NULL);
}

static void set_chap(struct control *control, struct pending *pending)
{
    static const char *const keys[] = {"user", "secret", "mutual_user", "mutual_secret"};
    if (refuse_guests(pending))
        return;
    if (json_is_true(json_object_get(pending->params, "off"))) {
        swap_entry(pending, "chap", NULL);
        return;
    }
    json_t *chap = json_object();
    for (unsigned i = 0; i < 4; i++)
        if (json_is_string(json_object_get(pending->params, keys[i])))
            json_object_set(chap, keys[i], json_object_get(pending->params, keys[i]));
    swap_entry(pending, "chap", chap);
}

/* RFC 7143 §4.2.7: iqn., eui. or naa., then characters that survive stringprep unchanged. */
static bool is_initiator_name(const char *name)
{
    size_t length = name ? strlen(name) : 0;
    if (length < 5 || length > 223 ||
        (strncmp(name, "iqn.", 4) && strncmp(name, "eui.", 4) && strncmp(name, "naa.", 4)))
        return false;
    for (; *name; name++)
        if (!islower((unsigned char)*name) && !isdigit((unsigned char)*name) && !strchr("-.:", *name) &&
            (unsigned char)*name < 0x80)
            return false;
    return true;
}

static bool refuse_initiators(struct control_request *request, const char *name, json_t *list)
{
    size_t index;
    json_t *item;
    if (json_array_size(list) > INITIATORS_MAX) {
        control_fail(request, "invalid",
                     "target '%s': %zu initiators are more than the %u that fit; name fewer, or use CHAP", name,
                     json_array_size(list), INITIATORS_MAX);
        return true;
    }
    json_array_foreach(list, index, item)
    {
        const char *text = json_string_value(item);
        if (is_initiator_name(text))
            continue;
        control_fail(
            request, "invalid",
            "initiator '%.223s': that is no iSCSI name; write it as iqn.2004-10.org.example:host, in lower case",
            text ? text : "?");
        return true;
    }
    return false;
}

void target_set_method(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = request_text(request, params, "name", GROUP_NAME_SIZE);
    json_t *initiators = json_object_get(params, "initiators");
    if (!name)
        return;
    if (!json_is_array(initiators) && !json_is_null(initiators))
        control_fail(request, "invalid", "target '%s': 'initiators' must be a list of names, or null for anyone", name);
    else if (!refuse_initiators(request, name, initiators))
        fetch(userdata, request, params, name, set_acl, reply_nothing);
}

static bool is_user(const char *text)
{
    size_t length = text ? strlen(text) : 0;
    if (length == 0 || length > 63)
        return false;
    for (; *text; text++)
        if ((unsigned char)*text <= ' ' || *text == '"' || *text == '\\' || *text == ',' || *text == '\x7f')
            return false;
    return true;
}

/* NULL, or what is wrong with it; never the secret itself. */
static const char *secret_fault(const char *text)
{
    size_t length = text ? strlen(text) : 0;
    if (length < SECRET_MIN || length > 63)
        return "it must have 12 to 63 characters (12 to 16 for initiators on Windows)";
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e)
            return "it must be printable ASCII";
    return NULL;
}

static bool refuse_chap(struct control_request *request, const char *name, json_t *params)
{
    const char *user = json_string_value(json_object_get(params, "user")),
               *secret = json_string_value(json_object_get(params, "secret"));
    const char *mutual_user = json_string_value(json_object_get(params, "mutual_user"));
    const char *mutual_secret = json_string_value(json_object_get(params, "mutual_secret"));
    const char *fault = secret_fault(secret), *mutual_fault = mutual_secret ? secret_fault(mutual_secret) : NULL;
    if (!is_user(user) || (mutual_user && !is_user(mutual_user)))
        control_fail(request, "invalid",
                     "target '%s': a CHAP user is 1 to 63 characters without blanks, quotes, commas and backslashes",
                     name);
    else if (fault)
        control_fail(request, "invalid", "target '%s': the secret of '%s' is refused: %s", name, user, fault);
    else if (!mutual_user != !mutual_secret)
        control_fail(request, "invalid",
                     "target '%s': mutual CHAP needs both a user and a secret; give both or neither", name);
    else if (mutual_fault)
        control_fail(request, "invalid", "target '%s': the secret of '%s' is refused: %s", name, mutual_user,
                     mutual_fault);
    else if (mutual_secret && strcmp(secret, mutual_secret) == 0)
        control_fail(
            request, "invalid",
            "target '%s': both directions have the same secret, which proves nothing (RFC 7143 §9.2.1); choose another",
            name);
    else
        return false;
    return true;
}

void target_chap_method(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = request_text(request, params, "name", GROUP_NAME_SIZE);
    if (name && (json_is_true(json_object_get(params, "off")) || !refuse_chap(request, name, params)))
        fetch(userdata, request, params, name, set_chap, reply_nothing);
}
