/* corosync.conf: the text that is written, and the shape that corosync's parser demands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "cli/corosync_conf.h"

static struct site sample(void)
{
    return (struct site){
        .name = "shop17",
        .self = 1,
        .nodes = {{.name = "b", .id = {{1}}, .link_count = 2, .links = {"10.11.0.2", "10.12.0.2"}},
                  {.name = "a", .id = {{2}}, .link_count = 2, .links = {"10.11.0.1", "10.12.0.1"}}},
    };
}

static void test_the_whole_text(void **state)
{
    static const char expected[] =
        "# Written by hcictl from hci.conf; the same on both nodes.\n"
        "totem {\n"
        "    version: 2\n"
        "    cluster_name: shop17\n"
        "    transport: knet\n"
        "    crypto_cipher: aes256\n"
        "    crypto_hash: sha256\n"
        "    token: 1000\n"
        "}\n"
        "nodelist {\n"
        "    node {\n"
        "        name: b\n"
        "        nodeid: 1\n"
        "        ring0_addr: 10.11.0.2\n"
        "        ring1_addr: 10.12.0.2\n"
        "    }\n"
        "    node {\n"
        "        name: a\n"
        "        nodeid: 2\n"
        "        ring0_addr: 10.11.0.1\n"
        "        ring1_addr: 10.12.0.1\n"
        "    }\n"
        "}\n"
        "quorum {\n"
        "    provider: corosync_votequorum\n"
        "    two_node: 1\n"
        "    wait_for_all: 0\n"
        "}\n"
        "logging {\n"
        "    to_stderr: yes\n"
        "    to_syslog: yes\n"
        "    timestamp: on\n"
        "}\n";
    struct site site = sample();
    struct err err = {0};
    char text[COROSYNC_CONF_MAX];
    assert_int_equal(corosync_conf_format(&site, text, &err), 0);
    assert_string_equal(text, expected);
}

/* The same bytes on both nodes, whoever writes them. */
static void test_self_makes_no_difference(void **state)
{
    struct site site = sample();
    char left[COROSYNC_CONF_MAX], right[COROSYNC_CONF_MAX];
    assert_int_equal(corosync_conf_format(&site, left, NULL), 0);
    site.self = 0;
    assert_int_equal(corosync_conf_format(&site, right, NULL), 0);
    assert_string_equal(left, right);
}

/* corosync's parser wants each brace and each setting on a line of its own. */
static void test_one_thing_on_each_line(void **state)
{
    struct site site = sample();
    char text[COROSYNC_CONF_MAX];
    int depth = 0;
    assert_int_equal(corosync_conf_format(&site, text, NULL), 0);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *open = strchr(line, '{'), *close = strchr(line, '}'), *colon = strchr(line, ':');
        if (line[0] == '#')
            continue;
        assert_int_equal((open != NULL) + (close != NULL) + (colon != NULL), 1);
        assert_true((!open || !open[1]) && (!close || !close[1]));
        depth += (open != NULL) - (close != NULL);
        assert_true(depth >= 0);
    }
    assert_int_equal(depth, 0);
}

static void test_links_must_match(void **state)
{
    struct site site = sample();
    struct err err = {0};
    char text[COROSYNC_CONF_MAX];
    site.nodes[1].link_count = 1;
    assert_int_equal(corosync_conf_format(&site, text, &err), -EINVAL);
    assert_non_null(strstr(err.text, "give both the same number"));
    site.nodes[0].link_count = site.nodes[1].link_count = 0;
    assert_int_equal(corosync_conf_format(&site, text, &err), -EINVAL);
}

static void test_the_longest_site_fits(void **state)
{
    struct site site = sample();
    char text[COROSYNC_CONF_MAX];
    for (unsigned node = 0; node < 2; node++) {
        site.nodes[node].link_count = SITE_LINKS_MAX;
        memset(site.nodes[node].name, 'n', SITE_NAME_MAX - 1);
        for (unsigned link = 0; link < SITE_LINKS_MAX; link++) {
            memset(site.nodes[node].links[link], 'f', SITE_ADDRESS_MAX - 1);
            site.nodes[node].links[link][SITE_ADDRESS_MAX - 1] = 0;
        }
    }
    memset(site.name, 'c', SITE_NAME_MAX - 1);
    assert_int_equal(corosync_conf_format(&site, text, NULL), 0);
    assert_string_equal(text + strlen(text) - 2, "}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_whole_text),
        cmocka_unit_test(test_self_makes_no_difference),
        cmocka_unit_test(test_one_thing_on_each_line),
        cmocka_unit_test(test_links_must_match),
        cmocka_unit_test(test_the_longest_site_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
