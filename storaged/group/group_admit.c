/* Who may log in to a group's volumes. A guest's are its own (R11: an initiator's name carries guest, incarnation and
 * node; only the one that the owner record names is admitted); others have an access list. Follows the metadata. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/log.h"
#include "common/seal.h"
#include "storaged/engine/engine_private.h"

#define GUEST_IQN_PREFIX LUN_IQN_PREFIX "guest."

static json_t *entry_of(const struct group *group, const char *key)
{
    const char *text = metadata_get(&group->metadata, key);
    return text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

static const char *node_name(const struct engine *engine, const char *uuid)
{
    struct id id;
    if (!uuid || id_parse(uuid, &id) < 0)
        return NULL;
    for (unsigned i = 0; i < (engine->site->standalone ? 1u : 2u); i++)
        if (id_equal(&engine->site->nodes[i].id, &id))
            return engine->site->nodes[i].name;
    return NULL;
}

/* "": the record names nobody. */
static void name_admitted(const struct group *group, char *ret, size_t size)
{
    json_t *owner = entry_of(group, "owner"), *guest = entry_of(group, "guest");
    const char *state = json_string_value(json_object_get(owner, "state"));
    const char *node = node_name(group->engine, json_string_value(json_object_get(owner, "node")));
    const char *name = json_string_value(json_object_get(guest, "name"));
    long long incarnation = json_integer_value(json_object_get(owner, "incarnation"));
    ret[0] = 0;
    if (state && strcmp(state, "running") == 0 && node && name &&
        snprintf(ret, size, GUEST_IQN_PREFIX "%s.%lld.%s", name, incarnation, node) >= (int)size)
        ret[0] = 0;
    json_decref(owner);
    json_decref(guest);
}

static void copy_name(char *ret, size_t size, const char *text)
{
    snprintf(ret, size, "%s", text ? text : "");
}

static void update_chap(struct group *group)
{
    json_t *chap = entry_of(group, "chap");
    const char *user = json_string_value(json_object_get(chap, "user"));
    const char *secret = json_string_value(json_object_get(chap, "secret"));
    const char *mutual_user = json_string_value(json_object_get(chap, "mutual_user"));
    const char *mutual_secret = json_string_value(json_object_get(chap, "mutual_secret"));
    seal_wipe(group->chap_secret, sizeof group->chap_secret);
    seal_wipe(group->mutual_secret, sizeof group->mutual_secret);
    /* An entry that cannot be read must not open the door: nobody knows an empty secret's user. */
    group->has_chap = metadata_get(&group->metadata, "chap") != NULL;
    snprintf(group->chap_user, sizeof group->chap_user, "%s", user ? user : "");
    snprintf(group->chap_secret, sizeof group->chap_secret, "%s", secret ? secret : "");
    copy_name(group->mutual_user, sizeof group->mutual_user, mutual_user);
    copy_name(group->mutual_secret, sizeof group->mutual_secret, mutual_secret);
    json_decref(chap);
}

/* False: it cannot be read, or has more names than there are places. */
static bool read_acl(struct group *group, const json_t *acl)
{
    json_t *names = json_object_get(acl, "initiators"), *name;
    size_t index;
    group->acl_count = 0;
    if (!json_is_array(names) || json_array_size(names) > GROUP_INITIATORS_MAX)
        return false;
    json_array_foreach (names, index, name) {
        const char *text = json_string_value(name);
        if (!text || !text[0] || strlen(text) >= sizeof group->acl[0])
            return false;
        snprintf(group->acl[group->acl_count++], sizeof group->acl[0], "%s", text);
    }
    return true;
}

/* A list that is there and cannot be read admits nobody: it was meant to keep somebody out. */
static void update_acl(struct group *group)
{
    bool was_empty = group->has_acl && group->acl_count == 0 && !group->acl_is_broken, was_broken = group->acl_is_broken;
    json_t *acl = entry_of(group, "acl");
    group->has_acl = metadata_get(&group->metadata, "acl") != NULL;
    group->acl_is_broken = group->has_acl && !read_acl(group, acl);
    json_decref(acl);
    if (group->acl_is_broken)
        group->acl_count = 0;
    if (group->acl_is_broken && !was_broken) {
        log_error("group '%s': its access list cannot be read or has more than %u names: nobody may log in; set it anew with "
                  "'hcictl target set'", group->name, GROUP_INITIATORS_MAX);
    } else if (group->has_acl && group->acl_count == 0 && !group->acl_is_broken && !was_empty) {
        log_warning("group '%s': its access list is empty: nobody may log in; name initiators or remove the list with "
                    "'hcictl target set'", group->name);
    }
}

/* Names of initiators do not differ by case (RFC 7143 §4.2.7.2). */
static bool acl_admits(const struct group *group, const char *initiator)
{
    if (!group->has_acl || group->has_owner) /* R11: the owner record alone decides about a guest's volumes */
        return true;
    for (unsigned i = 0; i < group->acl_count; i++)
        if (strcasecmp(group->acl[i], initiator) == 0)
            return true;
    return false;
}

static void expel_unlisted(struct group *group)
{
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++) {
        if (!group->volumes[i].exported)
            continue;
        list_for_each_safe(item, after, &group->volumes[i].lun.nexuses) {
            struct lun_nexus *nexus = list_entry(item, struct lun_nexus, link);
            if (!acl_admits(group, nexus->initiator))
                nexus->close(nexus, "the access list does not name it any more");
        }
    }
}

void admission_update(struct group *group)
{
    char admitted[sizeof group->admitted];
    update_chap(group);
    update_acl(group);
    group->has_owner = metadata_get(&group->metadata, "owner") != NULL;
    name_admitted(group, admitted, sizeof admitted);
    if (!group->has_owner)
        expel_unlisted(group);
    if (!group->has_owner || strcmp(admitted, group->admitted) == 0) {
        snprintf(group->admitted, sizeof group->admitted, "%s", admitted);
        return;
    }
    snprintf(group->admitted, sizeof group->admitted, "%s", admitted);
    log_info("group '%s': its owner record admits %s", group->name, admitted[0] ? admitted : "nobody");
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].exported)
            lun_expel(&group->volumes[i].lun, admitted[0] ? admitted : NULL, "the guest's owner has changed");
}

/* Another initiator's nexus is on its way out. */
static bool is_drained_of_others(const struct lun *lun, const char *initiator)
{
    list_for_each(item, &lun->nexuses)
        if (strcmp(list_entry(item, struct lun_nexus, link)->initiator, initiator) != 0)
            return false;
    return true;
}

int admission_check(struct lun *lun, const char *initiator, struct lun_admission *ret)
{
    const struct group *group = list_entry(lun, struct group_volume, lun)->group;
    if (group->has_owner) {
        if (group->admitted[0] == 0 || strcmp(initiator, group->admitted) != 0) {
            ret->reason = group->admitted[0] ? "the guest's owner record admits another initiator"
                                             : "the guest's owner record admits nobody: the guest is stopped";
            return -EACCES;
        }
        if (!is_drained_of_others(lun, initiator)) {
            ret->reason = "the former owner's connections are not drained yet";
            return -EAGAIN;
        }
    }
    if (!acl_admits(group, initiator)) {
        ret->reason = group->acl_count ? "the access list does not name it; add it with 'hcictl target set'"
                                       : "the access list is empty: it admits nobody";
        return -EACCES;
    }
    ret->chap = group->has_chap;
    if (!group->has_chap)
        return 0;
    if (group->chap_secret[0] == 0 || group->chap_user[0] == 0) {
        ret->reason = "the group's chap entry has no user or no secret";
        return -EACCES;
    }
    if (strcmp(group->chap_secret, group->mutual_secret) == 0) { /* RFC 7143 §12.1.3: never one secret both ways */
        ret->reason = "the group's chap entry has the same secret for both directions; set another";
        return -EACCES;
    }
    memcpy(ret->user, group->chap_user, sizeof ret->user);
    memcpy(ret->secret, group->chap_secret, sizeof ret->secret);
    ret->mutual = group->mutual_user[0] && group->mutual_secret[0];
    memcpy(ret->mutual_user, group->mutual_user, sizeof ret->mutual_user);
    memcpy(ret->mutual_secret, group->mutual_secret, sizeof ret->mutual_secret);
    return 0;
}
