/* The domain XML that a user gives: what passes the check can be completed, and its mark can be read back. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vmha/domain_xml.h"

/* libvirt hands back the mark alone. Of several elements that look like it, the one made here must be there. */
static bool has_mark(const char *whole, const struct id *expected_group, uint64_t expected_incarnation)
{
    for (const char *mark = strstr(whole, "<hci:guest "); mark; mark = strstr(mark + 1, "<hci:guest ")) {
        struct id group;
        uint64_t incarnation;
        const char *end = strstr(mark, "/>");
        char *alone = end ? fuzz_text(mark, (size_t)(end - mark) + 2) : NULL;
        bool found = alone && domain_xml_read_mark(alone, &group, &incarnation) == 0 &&
                     id_equal(&group, expected_group) && incarnation == expected_incarnation;
        free(alone);
        if (found)
            return true;
    }
    return false;
}

static void complete(const char *xml, const struct domain_xml_volumes *volumes)
{
    struct domain_xml_plan plan = {
        .guest = "web", .group = {.bytes = {1, 2, 3}}, .incarnation = 7, .group_name = "web", .volumes = volumes,
        .initiator = "iqn.2026-01.io.hci:guest.web.7.a", .portal_host = "127.0.0.1", .portal_port = 3260,
        .chap_user = "guest", .secret = &plan.group};
    struct err err;
    char *whole = NULL;
    if (domain_xml_complete(xml, &plan, &whole, &err) < 0)
        return;
    check(has_mark(whole, &plan.group, plan.incarnation));
    free(whole);
    fuzz_planted(volumes->count > 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct domain_xml_volumes volumes;
    struct err err;
    struct id group;
    uint64_t incarnation;
    char *text = fuzz_text(data, size);
    if (domain_xml_check("web", text, &volumes, &err) == 0)
        complete(text, &volumes);
    (void)domain_xml_read_mark(text, &group, &incarnation);
    (void)domain_xml_check_name(text, &err);
    free(text);
    return 0;
}
