/* hci.conf and secrets.conf: what is saved is loaded, and every bad input gets one sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/site.h"

#define UUID_LOW "11111111-1111-4111-8111-111111111111"
#define UUID_HIGH "99999999-9999-4999-8999-999999999999"
#define UUID_CLUSTER "55555555-5555-4555-8555-555555555555"
#define UUID_WITNESS "77777777-7777-4777-8777-777777777777"

#define CLUSTER "cluster { name = \"shop17\" uuid = \"" UUID_CLUSTER "\" profile = \"fast\" }\n"
#define NODE_A "node \"a\" { uuid = \"" UUID_HIGH "\" links = {\"10.11.0.1\", \"10.12.0.1\"} }\n"
#define NODE_B "node \"b\" { uuid = \"" UUID_LOW "\" links = {\"10.11.0.2\", \"10.12.0.2\"} }\n"
#define NODES "self = \"a\"\n" NODE_A NODE_B

static char folder[] = "/tmp/hci-test-site.XXXXXX";
static char path[sizeof(folder) + 16];

static int load(const char *text, struct site *site, struct err *err)
{
    assert_int_equal(files_replace(path, text, strlen(text), 0644, err), 0);
    memset(err, 0, sizeof(*err));
    memset(site, 0, sizeof(*site));
    int result = site_load(path, site, err);
    if (result < 0) {
        assert_non_null(strstr(err->text, path)); /* names the file */
        assert_null(strchr(err->text, '\n'));
    }
    return result;
}

static void test_minimal(void **state)
{
    struct site site;
    struct err err;

    assert_int_equal(load(CLUSTER NODES, &site, &err), 0);
    assert_string_equal(site.name, "shop17");
    assert_int_equal(site.profile.lease_ms, 1000);
    assert_int_equal(site.profile.promise_ms, 1250);
    assert_string_equal(site.nodes[0].name, "b"); /* the lower id comes first */
    assert_string_equal(site_self(&site)->name, "a");
    assert_string_equal(site_peer(&site)->name, "b");
    assert_int_equal(site.nodes[1].link_count, 2);
    assert_string_equal(site.nodes[1].links[1], "10.12.0.1");
    assert_false(site.has_witness);
    assert_int_equal(site.quorum_port, 7202);
    assert_int_equal(site.mirror_port, 7201);
    assert_int_equal(site.portal_count, 1);
    assert_string_equal(site.portals[0], "127.0.0.1:3260");
    assert_int_equal(site.watchdog_ms, 2000); /* the profile's */
    assert_int_equal(site.watchdog_reset_ms, 300);
    assert_string_equal(site.cgroup_root, "/sys/fs/cgroup/hci-guests");
    assert_string_equal(site.libvirt_uri, "qemu:///system");
    assert_string_equal(site.pki_folder, "/etc/hci/pki");
    assert_string_equal(site.state_folder, "/var/lib/hci");
    assert_string_equal(site.run_folder, "/run/hci");
}

static void test_standalone(void **state)
{
    struct site site, loaded = {0};
    struct err err;

    assert_int_equal(load(CLUSTER NODES, &site, &err), 0);
    assert_false(site.standalone);
    assert_int_equal(site_check_pair(path, &site, "hci-quorumd", &err), 0);
    assert_int_equal(load(CLUSTER NODE_A, &site, &err), 0); /* with one node there is no question who this is */
    assert_true(site.standalone);
    assert_string_equal(site_self(&site)->name, "a");
    assert_int_equal(site_check_pair(path, &site, "hci-quorumd", &err), -EINVAL);
    assert_non_null(strstr(err.text, "'a' stands alone"));
    assert_int_equal(site_save(path, &site, &err), 0);
    assert_int_equal(site_load(path, &loaded, &err), 0);
    assert_memory_equal(&site, &loaded, sizeof(site));
}

static void test_everything(void **state)
{
    struct site site;
    struct err err;

    assert_int_equal(load("# a comment\n" CLUSTER NODES
                          "witness { uuid = \"" UUID_WITNESS "\" address = \"fd00::3\" port = 1234 }\n"
                          "storage { portals = {\"127.0.0.1:3260\", \"[::1]:3261\"} mirror_port = 8001 }\n"
                          "quorum { port = 8002 }\n"
                          "watchdog { device = \"\" socket = \"/run/hci-lab/watchdog.sock\" period_ms = 4000 reset_ms = 200 }\n"
                          "guests { cgroup_root = \"/cg\" libvirt_uri = \"test:///default\" }\n"
                          "pki_folder = \"/p\"\nstate_folder = \"/s\"\nrun_folder = \"/r\"\n", &site, &err), 0);
    assert_true(site.has_witness);
    assert_string_equal(site.witness_address, "fd00::3");
    assert_int_equal(site.witness_port, 1234);
    assert_int_equal(site.portal_count, 2);
    assert_string_equal(site.portals[1], "[::1]:3261");
    assert_string_equal(site.watchdog_socket, "/run/hci-lab/watchdog.sock");
    assert_int_equal(site.watchdog_ms, 4000);
    assert_string_equal(site.run_folder, "/r");
}

static struct site example(void)
{
    struct site site = {.self = 1, .has_witness = true, .witness_port = 7203, .quorum_port = 7202, .mirror_port = 7201,
                        .portal_count = 2, .watchdog_ms = 5000, .watchdog_reset_ms = 250};

    strcpy(site.name, "shop17");
    site.id = id_random();
    assert_int_equal(site_profile_by_name("slow", &site.profile), 0);
    assert_int_equal(id_parse(UUID_LOW, &site.nodes[0].id), 0);
    assert_int_equal(id_parse(UUID_HIGH, &site.nodes[1].id), 0);
    for (unsigned node = 0; node < 2; node++) {
        sprintf(site.nodes[node].name, "node-%u.x_y", node);
        site.nodes[node].link_count = SITE_LINKS_MAX;
        for (unsigned link = 0; link < SITE_LINKS_MAX; link++)
            sprintf(site.nodes[node].links[link], "10.1%u.0.%u", link, node);
    }
    site.witness_id = id_random();
    strcpy(site.witness_address, "10.13.0.3");
    strcpy(site.portals[0], "127.0.0.1:3260");
    strcpy(site.portals[1], "[fd00::1]:3260");
    strcpy(site.watchdog_device, "/dev/watchdog0");
    strcpy(site.cgroup_root, "/sys/fs/cgroup/guests of mine");
    strcpy(site.libvirt_uri, "qemu+unix:///system?socket=/run/x#y'z");
    strcpy(site.pki_folder, "/etc/hci/pki");
    strcpy(site.state_folder, "/var/lib/hci");
    strcpy(site.run_folder, "/run/hci");
    return site;
}

static void test_round_trip(void **state)
{
    struct site site = example(), loaded = {0};
    struct err err = {0};

    assert_int_equal(site_save(path, &site, &err), 0);
    assert_int_equal(site_load(path, &loaded, &err), 0);
    assert_memory_equal(&site, &loaded, sizeof(site)); /* both started from zeros, names are zero beyond their end */
}

static void test_round_trip_of_defaults(void **state)
{
    struct site site = example(), loaded = {0};
    struct err err = {0};

    site.has_witness = false;
    site.quorum_port = site.mirror_port = 0;
    site.portal_count = 0;
    site.watchdog_ms = site.watchdog_reset_ms = 0;
    site.cgroup_root[0] = site.libvirt_uri[0] = site.pki_folder[0] = site.state_folder[0] = site.run_folder[0] = '\0';
    assert_int_equal(site_save(path, &site, &err), 0);
    assert_int_equal(site_load(path, &loaded, &err), 0);
    assert_false(loaded.has_witness);
    assert_int_equal(loaded.quorum_port, 7202);
    assert_string_equal(loaded.portals[0], "127.0.0.1:3260");
    assert_int_equal(loaded.watchdog_ms, 10000);
    assert_string_equal(loaded.pki_folder, "/etc/hci/pki");
}

static void test_save_refuses(void **state)
{
    struct err err = {0};
    struct site site = example();

    unlink(path);
    strcpy(site.nodes[0].name, "a\" } node \"evil");
    assert_int_equal(site_save(path, &site, &err), -EINVAL);
    site = example();
    strcpy(site.libvirt_uri, "qemu:///\"");
    assert_int_equal(site_save(path, &site, &err), -EINVAL);
    site = example();
    strcpy(site.cgroup_root, "/a${HOME}");
    assert_int_equal(site_save(path, &site, &err), -EINVAL);
    site = example();
    strcpy(site.witness_address, "witness.example");
    assert_int_equal(site_save(path, &site, &err), -EINVAL);
    site = example();
    site.nodes[0].link_count = SITE_LINKS_MAX + 1;
    assert_int_equal(site_save(path, &site, &err), -EINVAL);
    assert_int_not_equal(access(path, F_OK), 0); /* nothing was written */
}

static void test_bad_inputs(void **state)
{
    static const struct {
        const char *text;
        const char *names[3]; /* what the sentence must say */
    } cases[] = {
        {"", {"0 nodes"}},
        {CLUSTER "self = \"b\"\n" NODE_A, {"self 'b'", "write \"a\""}},
        {CLUSTER NODE_A "witness { uuid = \"" UUID_WITNESS "\" address = \"10.13.0.3\" }\n", {"only node 'a'", "remove the witness"}},
        {CLUSTER NODES "node \"c\" { uuid = \"" UUID_WITNESS "\" links = {\"10.1.1.1\", \"10.1.1.2\"} }", {"names 3 nodes"}},
        {CLUSTER "self = \"c\"\n" NODE_A NODE_B, {"self 'c'", "not among the nodes"}},
        {CLUSTER NODE_A NODE_B, {"which node this is", "self = "}},
        {CLUSTER "self = \"a\"\n" NODE_A NODE_A, {"line 4"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { uuid = \"" UUID_HIGH "\" links = {\"10.1.1.1\", \"10.1.1.2\"} }",
         {"same uuid", UUID_HIGH}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { uuid = \"123\" links = {\"10.11.0.2\"} }", {"node 'b'", "'123'", "UUID"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { links = {\"10.11.0.2\", \"10.12.0.2\"} }", {"node 'b' has no uuid"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { uuid = \"" UUID_LOW "\" links = {\"10.11.0\", \"10.12.0.2\"} }",
         {"node 'b'", "'10.11.0'", "IP address"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { uuid = \"" UUID_LOW "\" links = {\"10.11.0.2\"} }",
         {"node 'b' has 1 links", "node 'a' has 2", "list the same links"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { uuid = \"" UUID_LOW "\" }", {"node 'b'", "0 links"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { uuid = \"" UUID_LOW "\" links = {\"10.11.0.1\", \"10.12.0.2\"} }",
         {"'10.11.0.1'", "its own address"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b\" { uuid = \"" UUID_LOW
                 "\" links = {\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\", \"1.1.1.4\", \"1.1.1.5\"} }", {"5 links"}},
        {CLUSTER "self = \"a\"\n" NODE_A "node \"b b\" { uuid = \"" UUID_LOW "\" links = {\"10.11.0.2\", \"10.12.0.2\"} }",
         {"'b b'", "letters"}},
        {"cluster { name = \"x\" uuid = \"" UUID_CLUSTER "\" profile = \"quick\" }\n" NODES,
         {"profile 'quick'", "fast, default or slow"}},
        {"cluster { name = \"x\" }\n" NODES, {"cluster 'x' has no uuid"}},
        {"cluster { uuid = \"" UUID_CLUSTER "\" }\n" NODES, {"cluster name ''"}},
        {"cluster { name = \"0123456789012345678901234567890123456789012345678901234567890123\" }\n" NODES,
         {"cluster name", "longer than 63"}},
        {CLUSTER NODES "witness { address = \"10.13.0.3\" }\n", {"witness at '10.13.0.3' has no uuid"}},
        {CLUSTER NODES "witness { uuid = \"" UUID_WITNESS "\" address = \"w.example\" }\n", {"'w.example'", "IP address"}},
        {CLUSTER NODES "witness { uuid = \"" UUID_LOW "\" address = \"10.13.0.3\" }\n", {"uuid", "of a node"}},
        {CLUSTER NODES "witness { uuid = \"" UUID_WITNESS "\" address = \"10.13.0.3\" port = 70000 }\n",
         {"witness port 70000", "1 and 65535"}},
        {CLUSTER NODES "quorum { port = 0 }\n", {"quorum port 0"}},
        {CLUSTER NODES "quorum { port = \"many\" }\n", {"line 5", "'port'"}},
        {CLUSTER NODES "storage { mirror_port = -1 }\n", {"mirror_port -1"}},
        {CLUSTER NODES "storage { portals = {\"127.0.0.1\"} }\n", {"portal '127.0.0.1'", "ADDRESS:PORT"}},
        {CLUSTER NODES "storage { portals = {\"::1:3260\"} }\n", {"portal '::1:3260'"}},
        {CLUSTER NODES "storage { portals = {\"127.0.0.1:3260x\"} }\n", {"3260x"}},
        {CLUSTER NODES "storage { portals = {\"127.0.0.1: 3260\"} }\n", {"portal"}},
        {CLUSTER NODES "storage { portals = {\"[\"} }\n", {"portal '['"}},
        {CLUSTER NODES "storage { portals = {\"]:1\"} }\n", {"portal ']:1'"}},
        {CLUSTER NODES "watchdog { period_ms = 5 }\n", {"period_ms 5"}},
        {CLUSTER NODES "watchdog { device = \"/dev/watchdog\" socket = \"/run/w\" }\n", {"/dev/watchdog", "/run/w", "one"}},
        {CLUSTER NODES "watchdog { device = \"dev/watchdog\" }\n", {"'dev/watchdog'", "absolute"}},
        {CLUSTER NODES "state_folder = \"\"\n", {"state_folder ''", "absolute"}},
        {CLUSTER NODES "colour = \"red\"\n", {"line 5", "colour"}},
        {CLUSTER NODES "storage {\n portals = {\"127.0.0.1:3260\"\n", {"line"}},
        {"}}}}", {"line 1"}},
        {"\x01\x02", {"line"}},
    };
    struct site site;
    struct err err;

    for (unsigned index = 0; index < sizeof(cases) / sizeof(cases[0]); index++) {
        if (load(cases[index].text, &site, &err) != -EINVAL)
            fail_msg("case %u was accepted: %s", index, cases[index].text);
        for (unsigned name = 0; name < 3 && cases[index].names[name] != NULL; name++)
            if (strstr(err.text, cases[index].names[name]) == NULL)
                fail_msg("case %u: '%s' is not in: %s", index, cases[index].names[name], err.text);
        assert_string_equal(err.code, "invalid");
    }
}

static void test_missing_file(void **state)
{
    struct site site;
    struct err err;

    assert_int_equal(site_load("/nowhere/hci.conf", &site, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/hci.conf"));
}

static void test_profiles(void **state)
{
    static const char *const names[] = {"fast", "default", "slow"};
    struct site_profile profile;

    for (unsigned index = 0; index < 3; index++) {
        assert_int_equal(site_profile_by_name(names[index], &profile), 0);
        assert_string_equal(profile.name, names[index]);
        assert_true(profile.promise_ms * 100 >= profile.lease_ms * 102); /* R8 */
    }
    assert_int_equal(site_profile_by_name("", &profile), -EINVAL);
}

static void test_secrets(void **state)
{
    struct site_secrets secrets, loaded;
    struct stat status;
    struct err err = {0};

    seal_random(&secrets, sizeof(secrets));
    assert_int_equal(site_save_secrets(path, &secrets, &err), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(site_load_secrets(path, &loaded, &err), 0);
    assert_memory_equal(&secrets, &loaded, sizeof(secrets));

    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(site_load_secrets(path, &loaded, &err), -EPERM);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "0640"));
    assert_non_null(strstr(err.text, "chmod 600"));
}

static void test_bad_secrets(void **state)
{
    static const char short_key[] = "to_peer = \"abcd\"\n";
    static const char unknown[] = "to_peer = \"\"\nabcd = \"abcd\"\n";
    struct site_secrets secrets, zero = {0};
    struct err err = {0};

    assert_int_equal(files_replace(path, short_key, sizeof(short_key) - 1, 0600, &err), 0);
    assert_int_equal(site_load_secrets(path, &secrets, &err), -EINVAL);
    assert_non_null(strstr(err.text, "to_peer"));
    assert_null(strstr(err.text, "abcd")); /* never a secret */
    assert_int_equal(files_replace(path, unknown, sizeof(unknown) - 1, 0600, &err), 0);
    assert_int_equal(site_load_secrets(path, &secrets, &err), -EINVAL);
    assert_non_null(strstr(err.text, "line 2"));
    assert_null(strstr(err.text, "abcd"));
    assert_int_equal(files_replace(path, "", 0, 0600, &err), 0);
    assert_int_equal(site_load_secrets(path, &secrets, &err), 0); /* not enrolled: zero */
    assert_memory_equal(&secrets, &zero, sizeof(zero));
}

/* A daemon must not start with keys that everybody knows. */
static void test_missing_keys(void **state)
{
    struct site site = {.nodes = {{.name = "a"}, {.name = "b"}}, .has_witness = true, .witness_address = "10.13.0.3"};
    struct site_secrets full, secrets;
    struct err err = {0};

    seal_random(&full, sizeof(full));
    assert_int_equal(site_check_secrets(path, &site, &full, &err), 0);
    for (unsigned key = 0; key < 4; key++) {
        secrets = full;
        memset((uint8_t *)&secrets + key * SEAL_KEY_SIZE, 0, SEAL_KEY_SIZE);
        assert_int_equal(site_check_secrets(path, &site, &secrets, &err), -EINVAL);
        assert_non_null(strstr(err.text, path));
        assert_non_null(strstr(err.text, key < 2 ? "'hcictl cluster join'" : "'hcictl witness enroll'"));
    }
    site.has_witness = false; /* then its keys are not needed */
    assert_int_equal(site_check_secrets(path, &site, &secrets, &err), 0);
}

static int set_up(void **state)
{
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/hci.conf", folder);
    return seal_init();
}

static int tear_down(void **state)
{
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_minimal),       cmocka_unit_test(test_everything),
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_round_trip_of_defaults),
        cmocka_unit_test(test_save_refuses),  cmocka_unit_test(test_bad_inputs),
        cmocka_unit_test(test_missing_file),  cmocka_unit_test(test_profiles),
        cmocka_unit_test(test_secrets),       cmocka_unit_test(test_bad_secrets),
        cmocka_unit_test(test_missing_keys),  cmocka_unit_test(test_standalone),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
