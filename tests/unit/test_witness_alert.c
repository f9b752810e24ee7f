/* Alerts of the witness: what is told when, once, and in which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "witness/alert_text.h"
#include "witness/limit.h"

static const struct alert_config config = {.dark_s = 60, .lost_s = 60, .degraded_s = 3600, .settle_s = 30, .repeat_s = 600};

struct story {
    struct alert_site site;
    struct alert_facts facts;
    unsigned raised[ALERT_KINDS], ended[ALERT_KINDS];
    struct alert_change last;
};

static uint64_t at(uint64_t seconds)
{
    return seconds * NSEC_PER_SEC;
}

static struct story begin(void)
{
    return (struct story){.facts = {.start_ns = at(1000), .now_ns = at(1000), .groups = 4}};
}

/* A second each: the nodes in `alive` (bits) are heard. */
static void live(struct story *story, unsigned seconds, unsigned alive)
{
    struct alert_change changes[ALERT_KINDS];
    for (unsigned i = 0; i < seconds; i++) {
        story->facts.now_ns += NSEC_PER_SEC;
        for (unsigned node = 0; node < 2; node++)
            if (alive & (1u << node))
                story->facts.heard_ns[node] = story->facts.now_ns;
        unsigned count = alert_step(&story->site, &config, &story->facts, changes);
        for (unsigned change = 0; change < count; change++) {
            story->last = changes[change];
            (changes[change].raised ? story->raised : story->ended)[changes[change].kind]++;
        }
    }
}

static unsigned told(const struct story *story)
{
    unsigned sum = 0;
    for (unsigned kind = 0; kind < ALERT_KINDS; kind++)
        sum += story->raised[kind] + story->ended[kind];
    return sum;
}

static void a_healthy_site_is_silent(void **state)
{
    struct story story = begin();
    live(&story, 10000, 3);
    assert_int_equal(told(&story), 0);
}

static void a_lost_node_is_told_once_and_its_return_once(void **state)
{
    struct story story = begin();
    live(&story, 100, 3);
    live(&story, 59, 1);
    assert_int_equal(told(&story), 0);
    live(&story, 5000, 1);
    assert_int_equal(story.raised[ALERT_NODE_LOST_B], 1);
    assert_int_equal(told(&story), 1);
    assert_int_equal(story.last.since_ns, at(1100));
    live(&story, 30, 3);
    assert_int_equal(story.ended[ALERT_NODE_LOST_B], 0);
    live(&story, 1, 3);
    assert_int_equal(story.ended[ALERT_NODE_LOST_B], 1);
    assert_int_equal(told(&story), 2);
}

static void both_at_once_are_one_alert(void **state)
{
    for (unsigned apart = 0; apart < 25; apart++) { /* the second falls silent so much later */
        struct story story = begin();
        live(&story, 100, 3);
        live(&story, apart, 2);
        live(&story, 3000, 0);
        assert_int_equal(story.raised[ALERT_SITE_DARK], 1);
        assert_int_equal(told(&story), 1);
        assert_int_equal(story.last.since_ns, at(1100 + apart));
    }
}

static void one_after_the_other_is_both(void **state)
{
    struct story story = begin();
    live(&story, 100, 3);
    live(&story, 300, 1);
    live(&story, 300, 0);
    assert_int_equal(story.raised[ALERT_NODE_LOST_B], 1);
    assert_int_equal(story.raised[ALERT_SITE_DARK], 1);
    assert_int_equal(told(&story), 2);
    live(&story, 100, 1); /* one is back: the other is still known to be lost */
    assert_int_equal(story.ended[ALERT_SITE_DARK], 1);
    assert_int_equal(told(&story), 3);
    live(&story, 100, 3);
    assert_int_equal(story.ended[ALERT_NODE_LOST_B], 1);
    assert_int_equal(story.site.active, 0);
}

static void a_site_that_was_never_heard_since_the_start_is_dark(void **state)
{
    struct story story = begin();
    live(&story, 59, 0);
    assert_int_equal(told(&story), 0);
    live(&story, 1, 0);
    assert_int_equal(story.raised[ALERT_SITE_DARK], 1);
    assert_int_equal(story.last.since_ns, at(1000));
}

static void a_flutter_is_not_told_again_and_again(void **state)
{
    struct story story = begin();
    for (unsigned i = 0; i < 20; i++) { /* 40 minutes of 70 s gone, 50 s there */
        live(&story, 50, 3);
        live(&story, 70, 1);
    }
    assert_in_range(story.raised[ALERT_NODE_LOST_B], 2, 4);
    assert_in_range(told(&story), 4, 8);
}

static void a_short_return_does_not_end_it(void **state)
{
    struct story story = begin();
    live(&story, 10, 3);
    live(&story, 100, 2);
    live(&story, 20, 3);
    live(&story, 100, 2);
    live(&story, 20, 3);
    assert_int_equal(story.raised[ALERT_NODE_LOST_A], 1);
    assert_int_equal(told(&story), 1);
}

static void degraded_is_told_when_it_lasts(void **state)
{
    struct story story = begin();
    live(&story, 10, 3);
    story.facts.single[0] = 2;
    live(&story, 3600, 3);
    assert_int_equal(told(&story), 0);
    story.facts.single[1] = 1; /* others join: it is the same trouble */
    live(&story, 2000, 3);
    assert_int_equal(story.raised[ALERT_DEGRADED], 1);
    assert_int_equal(told(&story), 1);
    assert_int_equal(story.last.since_ns, at(1011));
    story.facts.single[0] = story.facts.single[1] = 0;
    live(&story, 40, 3);
    assert_int_equal(story.ended[ALERT_DEGRADED], 1);
    story.facts.single[0] = 1;
    live(&story, 3599, 3);
    assert_int_equal(told(&story), 2);
}

static const struct alert_names names = {.site = "shop17", .nodes = {"a", "b"}, .site_id.bytes = {7}};

static struct alert describe(const struct story *story)
{
    struct alert alert;
    alert_describe(&story->last, &story->facts, &names, 1800000000, &alert);
    return alert;
}

static void assert_says(const struct alert *alert, const char *part)
{
    if (strstr(alert->sentence, part) == NULL)
        fail_msg("'%s' is not in: %s", part, alert->sentence);
}

static void the_words_say_what_since_when_what_is_safe_and_what_to_do(void **state)
{
    struct story story = begin();
    live(&story, 10, 3);
    story.facts.single[0] = 3;
    live(&story, 60, 1);
    struct alert alert = describe(&story);
    assert_string_equal(alert.kind, "node_lost");
    assert_string_equal(alert.node, "b");
    assert_string_equal(alert.since, "2027-01-15T07:59:00Z");
    assert_string_equal(alert.at, "2027-01-15T08:00:00Z");
    assert_says(&alert, "site 'shop17': node 'b' has not been heard since 2027-01-15T07:59:00Z (60 s)");
    assert_says(&alert, "3 of 4 groups");
    assert_says(&alert, "safe");
    assert_says(&alert, "look at the power and network of 'b'");
    assert_null(strstr(alert.sentence, "stand still"));
    char raised_key[sizeof alert.key];
    strcpy(raised_key, alert.key);
    live(&story, 40, 3);
    alert = describe(&story);
    assert_false(alert.raised);
    assert_string_equal(alert.key, raised_key);
    assert_says(&alert, "is heard again");
}

static void the_words_warn_of_copies_on_the_lost_node(void **state)
{
    struct story story = begin();
    live(&story, 10, 3);
    story.facts.single[1] = 1;
    live(&story, 60, 1);
    struct alert alert = describe(&story);
    assert_says(&alert, "1 of them have their only current copy on the lost node");
}

static void the_longest_names_fit(void **state)
{
    char site[64], node[64];
    memset(site, 's', 63);
    memset(node, 'n', 63);
    site[63] = node[63] = '\0';
    const struct alert_names long_names = {.site = site, .nodes = {node, node}, .site_id.bytes = {7}};
    for (unsigned kind = 0; kind < ALERT_KINDS; kind++)
        for (unsigned raised = 0; raised < 2; raised++) {
            struct alert_change change = {.kind = (enum alert_kind)kind, .raised = raised, .since_ns = at(1)};
            struct alert_facts facts = {.now_ns = at(999999), .groups = 64, .single = {32, 32}};
            struct alert alert;
            alert_describe(&change, &facts, &long_names, 1800000000, &alert);
            assert_true(strlen(alert.sentence) < sizeof alert.sentence - 1);
        }
}

static void a_rate_has_its_burst_and_its_pace(void **state)
{
    struct limit limit = {0};
    unsigned taken = 0;
    for (unsigned i = 0; i < 1000; i++)
        taken += limit_take(&limit, 10, 50, at(5));
    assert_int_equal(taken, 50);
    for (unsigned ms = 0; ms < 10000; ms++)
        taken += limit_take(&limit, 10, 50, at(5) + ms * NSEC_PER_MSEC);
    assert_in_range(taken, 50 + 99, 50 + 101);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_healthy_site_is_silent),
        cmocka_unit_test(a_lost_node_is_told_once_and_its_return_once),
        cmocka_unit_test(both_at_once_are_one_alert),
        cmocka_unit_test(one_after_the_other_is_both),
        cmocka_unit_test(a_site_that_was_never_heard_since_the_start_is_dark),
        cmocka_unit_test(a_flutter_is_not_told_again_and_again),
        cmocka_unit_test(a_short_return_does_not_end_it),
        cmocka_unit_test(degraded_is_told_when_it_lasts),
        cmocka_unit_test(the_words_say_what_since_when_what_is_safe_and_what_to_do),
        cmocka_unit_test(the_words_warn_of_copies_on_the_lost_node),
        cmocka_unit_test(the_longest_names_fit),
        cmocka_unit_test(a_rate_has_its_burst_and_its_pace),
    };
    return cmocka_run_group_tests_name("witness_alert", tests, NULL, NULL);
}
