/* Does vmhad refuse domain XML that could not be run on either node, and complete what it takes? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmha/domain_xml.h"

#define DISK(volume, target)                                                                                          \
    "<disk type='network' device='disk'><source protocol='iscsi' name='" volume "'/><target dev='" target             \
    "' bus='virtio'/></disk>"
#define DOMAIN(devices) "<domain type='qemu'><memory>65536</memory><devices>" devices "</devices></domain>"

static void refused(const char *xml, const char *because)
{
    struct domain_xml_volumes volumes = {.count = 99};
    struct err err = {0};

    assert_true(domain_xml_check("db", xml, &volumes, &err) < 0);
    if (!strstr(err.text, because))
        fail_msg("'%s' does not say '%s'", err.text, because);
    assert_null(strchr(err.text, '\n'));
    assert_non_null(strstr(err.text, "'db'"));
    assert_int_equal(volumes.count, 99);
}

static void bad_xml_is_refused(void **state)
{
    refused("", "cannot be read");
    refused("<domain>", "cannot be read");
    refused("<network/>", "not <domain>");
    refused(DOMAIN(""), "no disk");
    refused("<domain type='qemu'/>", "no disk");
    refused(DOMAIN("<disk type='file'><source file='/x'/><target dev='vda'/></disk>"), "of type 'file'");
    refused(DOMAIN("<disk><source file='/x'/><target dev='vda'/></disk>"), "of type 'file'");
    refused(DOMAIN("<disk type='block'><source dev='/dev/sda'/><target dev='vdq'/></disk>"), "vdq");
    refused(DOMAIN("<disk type='network'><source protocol='rbd' name='x'/></disk>"), "protocol='iscsi'");
    refused(DOMAIN("<disk type='network'/>"), "protocol='iscsi'");
    refused(DOMAIN("<disk type='network'><source protocol='iscsi'/></disk>"), "no volume name");
    refused(DOMAIN(DISK("iqn.2000-01.com.example:x/0", "vda")), "no volume name");
    refused(DOMAIN(DISK("v1", "vda") DISK("v1", "vdb")), "two disks name volume 'v1'");
    refused(DOMAIN(DISK("v1", "a") DISK("v2", "b") DISK("v3", "c") DISK("v4", "d") DISK("v5", "e") DISK("v6", "f")
                   DISK("v7", "g") DISK("v8", "h") DISK("v9", "i")), "more than 8");
    refused(DOMAIN(DISK("v1", "vda") "<disk type='file' device='cdrom'><source file='/iso'/></disk>"), "of type "
            "'file'");
}

static void nothing_is_expanded_or_fetched(void **state)
{
    refused("<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>", "DOCTYPE");
    refused("<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>", "DOCTYPE");
    refused("<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><domain>&b;</domain>", "DOCTYPE");
}

static void large_xml_is_refused(void **state)
{
    char *xml = malloc(DOMAIN_XML_MAX + 2);

    memset(xml, ' ', DOMAIN_XML_MAX + 1);
    xml[DOMAIN_XML_MAX + 1] = '\0';
    refused(xml, "larger than 24 KiB");
    free(xml);
}

static void names_are_checked(void **state)
{
    static const char *const bad[] = {"", "-a", "A", "a.b", "a/b", "../x", "a b", "ä",
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct err err;

    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_true(domain_xml_check_name(bad[i], &err) < 0);
    assert_int_equal(domain_xml_check_name("db-1", &err), 0);
}

static const struct domain_xml_volumes volumes = {2, {"v1", "v2"}};
static const struct id group = {{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x47, 0x88, 0x99, 1, 2, 3, 4, 5, 6, 7}};

static struct domain_xml_plan plan(void)
{
    return (struct domain_xml_plan){
        .guest = "db", .group = group, .incarnation = 8, .group_name = "g1", .volumes = &volumes,
        .initiator = "iqn.2026-01.io.hci:guest.db.8.a", .portal_host = "127.0.0.1", .portal_port = 3260,
        .chap_user = "guest-db", .secret = &group,
    };
}

static void contains(const char *xml, const char *text)
{
    if (!strstr(xml, text))
        fail_msg("no %s in %s", text, xml);
}

static void a_domain_is_completed(void **state)
{
    const char *xml = "<domain type='qemu' id='3'><name>other</name><uuid>00000000-0000-4000-8000-000000000000</uuid>"
                      "<on_crash>restart</on_crash><on_poweroff>preserve</on_poweroff><metadata><x:y "
                      "xmlns:x='urn:x'/></metadata>"
                      "<devices>" DISK("v1", "vda")
                      "<disk type='network' device='disk'><driver name='qemu' type='qcow2' cache='unsafe' "
                      "discard='unmap'/>"
                      "<source protocol='iscsi' name='v2'><host name='evil' port='1'/><initiator><iqn "
                      "name='x'/></initiator>"
                      "</source><target dev='vdb'/><readonly/></disk></devices></domain>";
    struct domain_xml_plan p = plan();
    char *complete = NULL;
    struct err err;

    assert_int_equal(domain_xml_complete(xml, &p, &complete, &err), 0);
    contains(complete, "<name>db</name>");
    contains(complete, "<uuid>11223344-5566-4788-9901-020304050607</uuid>");
    contains(complete, "<on_crash>destroy</on_crash>");
    contains(complete, "<on_poweroff>destroy</on_poweroff>");
    contains(complete, "name=\"iqn.2026-01.io.hci:v1/0\"");
    contains(complete, "name=\"iqn.2026-01.io.hci:v2/0\"");
    contains(complete, "<host name=\"127.0.0.1\" port=\"3260\"/>");
    contains(complete, "<iqn name=\"iqn.2026-01.io.hci:guest.db.8.a\"/>");
    contains(complete, "<auth username=\"guest-db\"><secret type=\"iscsi\" "
             "uuid=\"11223344-5566-4788-9901-020304050607\"/>");
    contains(complete, "cache=\"none\"");
    contains(complete, "error_policy=\"stop\"");
    contains(complete, "rerror_policy=\"stop\"");
    contains(complete, "discard=\"unmap\"");
    contains(complete, "<x:y xmlns:x=\"urn:x\"/>");
    contains(complete, "incarnation=\"8\"");
    static const char *const gone[] = {"evil", "unsafe", "qcow2", "restart<", "other", "readonly", "id=\"3\""};
    for (unsigned i = 0; i < sizeof gone / sizeof *gone; i++)
        assert_null(strstr(complete, gone[i]));
    free(complete);
}

static void a_volume_of_another_group_is_refused(void **state)
{
    struct domain_xml_plan p = plan();
    char *complete = NULL;
    struct err err;

    assert_true(domain_xml_complete(DOMAIN(DISK("v1", "vda") DISK("v7", "vdb")), &p, &complete, &err) < 0);
    assert_null(complete);
    contains(err.text, "'v7'");
    contains(err.text, "'g1'");
}

static void without_chap_there_is_no_auth(void **state)
{
    struct domain_xml_plan p = plan();
    char *complete = NULL;

    p.chap_user = NULL;
    assert_int_equal(domain_xml_complete(DOMAIN(DISK("v1", "vda")), &p, &complete, NULL), 0);
    assert_null(strstr(complete, "auth"));
    free(complete);
}

static void marks_are_read_back(void **state)
{
    struct id id;
    uint64_t incarnation;

    assert_int_equal(domain_xml_read_mark("<guest group='11223344-5566-4788-9901-020304050607' incarnation='8'/>", &id,
                                          &incarnation), 0);
    assert_memory_equal(&id, &group, sizeof id);
    assert_int_equal(incarnation, 8);
    static const char *const bad[] = {
        "",
        "<guest/>",
        "<guest group='x' incarnation='8'/>",
        "<guest group='11223344-5566-4788-9901-020304050607' incarnation='-1'/>",
        "<guest group='11223344-5566-4788-9901-020304050607' incarnation='8x'/>",
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_true(domain_xml_read_mark(bad[i], &id, &incarnation) < 0);
}

/* libvirt would keep the first of two marks: one that came with the user's XML must not stand for ours. */
static void a_mark_of_the_user_is_removed(void **state)
{
    struct domain_xml_plan p = plan();
    char *complete = NULL;

    assert_int_equal(domain_xml_complete("<domain type='qemu'><metadata><kept xmlns='urn:other'/><x:guest xmlns:x='urn:hci:guest' "
                                         "group='99999999-5566-4788-9901-020304050607' incarnation='99'/></metadata><devices>"
                                         DISK("v1", "vda") "</devices></domain>", &p, &complete, NULL), 0);
    assert_null(strstr(complete, "99999999"));
    contains(complete, "urn:other");
    contains(complete, "incarnation=\"8\"");
    free(complete);
}

static void portals_are_chosen(void **state)
{
    static const char portals[][64] = {"10.0.0.1:3260", "127.0.0.1:3261"};
    static const char six[][64] = {"[::1]:3262"}, bad[][64] = {"host"};
    struct domain_xml_plan p = plan();
    struct err err;

    assert_int_equal(domain_xml_portal(portals, 2, &p, &err), 0);
    assert_string_equal(p.portal_host, "127.0.0.1");
    assert_int_equal(p.portal_port, 3261);
    assert_int_equal(domain_xml_portal(six, 1, &p, &err), 0);
    assert_string_equal(p.portal_host, "::1");
    assert_true(domain_xml_portal(bad, 1, &p, &err) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_xml_is_refused), cmocka_unit_test(nothing_is_expanded_or_fetched),
        cmocka_unit_test(large_xml_is_refused), cmocka_unit_test(names_are_checked),
        cmocka_unit_test(a_domain_is_completed), cmocka_unit_test(a_volume_of_another_group_is_refused),
        cmocka_unit_test(without_chap_there_is_no_auth), cmocka_unit_test(marks_are_read_back),
        cmocka_unit_test(a_mark_of_the_user_is_removed), cmocka_unit_test(portals_are_chosen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
