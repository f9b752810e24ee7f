/* Who may log in to a group's volumes (R11: an initiator's name carries guest, incarnation and node; only the one that
 * the owner record names is admitted). Follows the metadata. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/seal.h"
#include "storaged/engine_private.h"

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

static void update_chap(struct group *group)
{
    json_t *chap = entry_of(group, "chap");
    const char *user = json_string_value(json_object_get(chap, "user"));
    const char *secret = json_string_value(json_object_get(chap, "secret"));
    seal_wipe(group->chap_secret, sizeof group->chap_secret);
    /* An entry that cannot be read must not open the door: nobody knows an empty secret's user. */
    group->has_chap = metadata_get(&group->metadata, "chap") != NULL;
    snprintf(group->chap_user, sizeof group->chap_user, "%s", user ? user : "");
    snprintf(group->chap_secret, sizeof group->chap_secret, "%s", secret ? secret : "");
    json_decref(chap);
}

void admission_update(struct group *group)
{
    char admitted[sizeof group->admitted];
    update_chap(group);
    group->has_owner = metadata_get(&group->metadata, "owner") != NULL;
    name_admitted(group, admitted, sizeof admitted);
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
    ret->chap = group->has_chap;
    if (!group->has_chap)
        return 0;
    if (group->chap_secret[0] == 0 || group->chap_user[0] == 0) {
        ret->reason = "the group's chap entry has no user or no secret";
        return -EACCES;
    }
    memcpy(ret->user, group->chap_user, sizeof ret->user);
    memcpy(ret->secret, group->chap_secret, sizeof ret->secret);
    return 0;
}
