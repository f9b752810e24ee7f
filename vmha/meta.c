/* Reads the metadata of a group: "guest" (definition), "owner" (record), "chap". */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "vmha/daemon.h"

static void forget_secret(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

void meta_forget(struct definition *definition)
{
    free(definition->guest_text);
    forget_secret(definition->chap_text);
    free(definition->xml);
    free(definition->chap_user);
    forget_secret(definition->chap_secret);
    *definition = (struct definition){0};
}

static struct definition *definition_make(struct daemon *daemon, const struct id *group)
{
    struct definition *definition = daemon_definition(daemon, group);

    for (unsigned i = 0; !definition && i < VMHA_GROUPS_MAX; i++)
        if (!daemon->definitions[i].used) {
            definition = &daemon->definitions[i];
            definition->used = true;
            definition->group = *group;
        }
    return definition;
}

static char *copy(const char *text)
{
    char *copied = text ? strdup(text) : NULL;

    check(!text || copied);
    return copied;
}

static int read_chap(struct definition *definition, const char *text)
{
    const char *user, *secret;

    if (!text)
        return 0;
    json_t *json = json_loads(text, 0, NULL);
    int r = json ? json_unpack(json, "{s:s, s:s}", "user", &user, "secret", &secret) : -1;
    if (!r) {
        definition->chap_text = copy(text);
        definition->chap_user = copy(user);
        definition->chap_secret = copy(secret);
    }
    json_decref(json);
    return r ? -EINVAL : 0;
}

static int read_guest(struct definition *definition, const char *text, char name[static VMHA_NAME_MAX])
{
    const char *guest, *xml;

    json_t *json = json_loads(text, 0, NULL);
    int r = json ? json_unpack(json, "{s:s, s:s}", "name", &guest, "xml", &xml) : -1;
    if (!r && !domain_xml_check_name(guest, NULL)) {
        definition->guest_text = copy(text);
        definition->xml = copy(xml);
        strcpy(name, guest);
    } else {
        r = -EINVAL;
    }
    json_decref(json);
    return r;
}

static void complain(struct definition *definition, uint64_t version, const char *what)
{
    if (definition->complained_version == version)
        return;
    definition->complained_version = version;
    log_error("a group's guest cannot be managed: %s; nothing about it is changed", what);
}

static int read_entries(struct definition *definition, json_t *entries, struct vmha_meta *meta)
{
    const char *guest = json_string_value(json_object_get(entries, "guest"));
    const char *owner = json_string_value(json_object_get(entries, "owner"));
    const char *chap = json_string_value(json_object_get(entries, "chap"));
    uint64_t complained = definition->complained_version;
    struct id group = definition->group;
    struct err err;

    meta_forget(definition);
    *definition = (struct definition){.used = true, .group = group, .complained_version = complained};
    if (!guest || !owner)
        return 0;
    if (record_parse(owner, &meta->record, &err)) {
        complain(definition, meta->version, err.text);
        return -EINVAL;
    }
    if (read_guest(definition, guest, meta->name) || read_chap(definition, chap)) {
        complain(definition, meta->version, "its entry 'guest' or 'chap' is not of this version");
        return -EINVAL;
    }
    meta->has_record = true;
    return 0;
}

int meta_read(struct daemon *daemon, const struct id *group, json_t *result, struct vmha_meta *ret)
{
    struct definition *definition = definition_make(daemon, group);
    struct vmha_meta meta = {0};
    json_int_t version;
    json_t *entries;

    if (!definition || json_unpack(result, "{s:I, s:o}", "version", &version, "entries", &entries) ||
        !json_is_object(entries))
        return -EINVAL;
    meta.version = (uint64_t)version;
    int r = read_entries(definition, entries, &meta);
    if (!r)
        *ret = meta;
    return r;
}
