/* A guest as its group's metadata tells it: "guest", "owner" and "chap" as any node may have written them, made into
 * the domain that would be started. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vmha/daemon.h"

struct definition *daemon_definition(struct daemon *daemon, const struct id *group)
{
    for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
        if (daemon->definitions[i].used && id_equal(&daemon->definitions[i].group, group))
            return &daemon->definitions[i];
    return NULL;
}

static void make_domain(const struct definition *definition, const struct vmha_meta *meta)
{
    struct domain_xml_volumes volumes;
    struct err err;
    char *whole = NULL;
    struct domain_xml_plan plan = {
        .guest = meta->name, .group = definition->group, .incarnation = meta->record.incarnation, .group_name = "g",
        .volumes = &volumes, .initiator = "iqn.2026-01.io.hci:guest.x.1.a", .portal_host = "127.0.0.1",
        .portal_port = 3260,
        .chap_user = definition->chap_user, .secret = &definition->group};
    if (domain_xml_check(meta->name, definition->xml, &volumes, &err) == 0 &&
        domain_xml_complete(definition->xml, &plan, &whole, &err) == 0)
        fuzz_planted(definition->chap_secret != NULL);
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct daemon daemon;
    struct vmha_meta meta = {0};
    struct id group = {.bytes = {1}};
    json_t *result = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (result && meta_read(&daemon, &group, result, &meta) == 0 && meta.has_record)
        make_domain(daemon_definition(&daemon, &group), &meta);
    struct definition *definition = daemon_definition(&daemon, &group);
    if (definition)
        meta_forget(definition);
    json_decref(result);
    return 0;
}
