/* vm.add: the XML is checked by us and by libvirt, then definition, CHAP secret and record are written in one swap. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/seal.h"
#include "vmha/daemon.h"

#define CHAP_BYTES 16u

struct adding {
    struct daemon *daemon;
    struct control_request *request;
    char name[VMHA_NAME_MAX];
    char *xml;
    struct domain_xml_volumes volumes; /* that the disks name */
    struct id group;
    char group_name[VMHA_NAME_MAX];
};

static void adding_end(struct adding *adding)
{
    free(adding->xml);
    free(adding);
}

static void fail(struct adding *adding, const struct err *err)
{
    control_fail_err(adding->request, err);
    adding_end(adding);
}

static void on_stored(json_t *result, json_t *error, void *userdata)
{
    struct adding *adding = userdata;
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *text = json_string_value(json_object_get(error, "message"));

    if (!error)
        control_reply(adding->request, NULL);
    else if (code && !strcmp(code, "changed"))
        control_fail(adding->request, "exists", "guest '%s': group '%s' has a guest already; 'hcictl vm list' shows it",
                     adding->name, adding->group_name);
    else
        control_fail(adding->request, code ? code : "unavailable", "guest '%s' was not stored: %s", adding->name,
                     text ? text : "no reason given");
    adding_end(adding);
}

static json_t *chap_entry(const char *name)
{
    uint8_t bytes[CHAP_BYTES];
    char user[VMHA_NAME_MAX + 8], secret[2 * CHAP_BYTES + 1];

    seal_random(bytes, sizeof bytes);
    for (unsigned i = 0; i < CHAP_BYTES; i++)
        snprintf(secret + 2 * i, 3, "%02x", bytes[i]);
    snprintf(user, sizeof user, "guest-%s", name);
    json_t *entry = json_pack("{s:s, s:s}", "user", user, "secret", secret);
    seal_wipe(secret, sizeof secret);
    seal_wipe(bytes, sizeof bytes);
    return entry;
}

/* Steals `entry`; NULL when it was not made. */
static json_t *change_from_nothing(const char *key, json_t *entry)
{
    cleanup_free char *text = json_dumps(entry, JSON_COMPACT);

    check(entry && text);
    json_decref(entry);
    return json_pack("{s:s, s:n, s:s}", "key", key, "expected", "value", text);
}

static void store(struct adding *adding)
{
    char group[ID_TEXT_SIZE];
    struct record record = {.state = RECORD_STOPPED};
    json_t *changes = json_array();

    record_format(&record);
    json_array_append_new(changes, change_from_nothing("guest", json_pack("{s:s, s:s}", "name", adding->name, "xml",
                                                                          adding->xml)));
    json_array_append_new(changes, change_from_nothing("chap", chap_entry(adding->name)));
    json_array_append_new(changes, json_pack("{s:s, s:n, s:s}", "key", "owner", "expected", "value", record.text));
    control_client_call(adding->daemon->storaged, "meta.swap",
                        json_pack("{s:s, s:o}", "group", id_format(&adding->group, group), "changes",
                                  changes), on_stored,
                        adding);
}

static void on_checked(const char *error, void *userdata)
{
    struct adding *adding = userdata;

    if (!error) {
        store(adding);
        return;
    }
    control_fail(adding->request, "invalid", "guest '%s': libvirt refuses its XML: %s; correct it", adding->name,
                 error);
    adding_end(adding);
}

/* The group of a volume, from the answer to group.list. */
static json_t *group_of(json_t *groups, const char *name)
{
    json_t *entry, *volume;
    size_t index, inner;

    json_array_foreach(json_object_get(groups, "groups"), index, entry)
        json_array_foreach(json_object_get(entry, "volumes"), inner, volume) {
            const char *text = json_string_value(json_object_get(volume, "name"));
            if (text && !strcmp(text, name))
                return entry;
        }
    return NULL;
}

static int find_group(struct adding *adding, json_t *groups, struct err *err)
{
    json_t *first = NULL;

    for (unsigned i = 0; i < adding->volumes.count; i++) {
        json_t *group = group_of(groups, adding->volumes.names[i]);
        if (!group)
            return err_set(err, -ENOENT, "not_found", "guest '%s': volume '%s' does not exist; make it with 'hcictl "
                           "volume "
                           "create' or correct the disk", adding->name, adding->volumes.names[i]);
        if (first && group != first)
            return err_set(err, -EINVAL, "invalid", "guest '%s': volume '%s' is of group '%s', volume '%s' of group "
                           "'%s'; the "
                           "disks of a guest are volumes of one group: 'hcictl volume create' takes "
                           "--group", adding->name,
                           adding->volumes.names[0], json_string_value(json_object_get(first, "name")),
                           adding->volumes.names[i], json_string_value(json_object_get(group, "name")));
        first = group;
    }
    const char *id = json_string_value(json_object_get(first, "group"));
    const char *name = json_string_value(json_object_get(first, "name"));
    if (!id || id_parse(id, &adding->group))
        return err_set(err, -EPROTO, "internal", "guest '%s': hci-storaged names no group; see its log", adding->name);
    snprintf(adding->group_name, sizeof adding->group_name, "%s", name ? name : "");
    return 0;
}

static void on_groups(json_t *result, json_t *error, void *userdata)
{
    struct adding *adding = userdata;
    struct domain_xml_plan plan;
    struct domain_xml_volumes volumes;
    char initiator[DOMAIN_XML_INITIATOR_MAX];
    cleanup_free char *complete = NULL;
    struct err err = {.code = "unavailable", .text = "hci-storaged does not answer; look at 'systemctl status "
    "hci-storaged'"};

    int r = error ? -EIO : find_group(adding, result, &err);
    if (!r)
        r = guests_plan(adding->daemon, adding->name, 1, &plan, initiator, &err);
    if (!r && guests_volumes(result, &adding->group, &volumes, &plan.group_name))
        r = -EIO;
    if (!r) {
        plan.group = adding->group;
        plan.volumes = &volumes;
        r = domain_xml_complete(adding->xml, &plan, &complete, &err); /* without CHAP: libvirt has no secret yet */
    }
    if (r)
        fail(adding, &err);
    else
        hypervisor_check(adding->daemon->hypervisor, complete, on_checked, adding);
}

static int begin(struct daemon *daemon, const char *name, const char *xml, struct domain_xml_volumes *ret,
                 struct err *err)
{
    unsigned count = 0;

    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        count += daemon->core->guests[i].used && daemon->core->guests[i].defined;
    int r = domain_xml_check(name, xml, ret, err);
    if (r)
        return r;
    if (vmha_core_by_name(daemon->core, name))
        return err_set(err, -EEXIST, "exists", "guest '%s' exists already; choose another name", name);
    if (count >= HYPERVISOR_DOMAINS_MAX)
        return err_set(err, -ENOSPC, "limit", "guest '%s': there are %u guests already, the most a pair of nodes runs",
                       name,
                       count);
    return 0;
}

void control_vm_add(struct control_request *request, json_t *params, void *userdata)
{
    struct daemon *daemon = userdata;
    const char *name = json_string_value(json_object_get(params, "name"));
    const char *xml = json_string_value(json_object_get(params, "xml"));
    struct domain_xml_volumes volumes;
    struct err err;

    if (!name || !xml) {
        control_fail(request, "invalid", "the guest's name or XML is missing; give \"name\" and \"xml\"");
        return;
    }
    if (begin(daemon, name, xml, &volumes, &err)) {
        control_fail_err(request, &err);
        return;
    }
    struct adding *adding = calloc(1, sizeof *adding);
    check(adding);
    adding->daemon = daemon;
    adding->request = request;
    adding->volumes = volumes;
    strcpy(adding->name, name);
    adding->xml = strdup(xml);
    check(adding->xml);
    control_client_call(daemon->storaged, "group.list", NULL, on_groups, adding);
}
