/* Single decisions of the authority core that random schedules (tests/sim) meet rarely or cannot judge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "quorum/authority_steps.h"

static struct authority_actions actions;
static struct authority core;

static void step(struct authority_event event)
{
    event.fresh = (struct id){{9}};
    authority_step(&core, &event, &actions);
}

static const struct authority_action *action(enum authority_action_kind kind)
{
    for (unsigned i = 0; i < actions.count; i++)
        if (actions.items[i].kind == kind)
            return &actions.items[i];
    return NULL;
}

static const struct id s1 = {{1}}, s2 = {{2}};

static void begin(struct authority_record record)
{
    authority_init(&core, 1);
    step((struct authority_event){.kind = AUTHORITY_EV_START, .record = record, .highest = 5, .committed = 5});
    step((struct authority_event){.kind = AUTHORITY_EV_LEASE, .up = true, .generation = 1});
    step((struct authority_event){.kind = AUTHORITY_EV_PEER, .up = true});
    step((struct authority_event){.kind = AUTHORITY_EV_LINK, .up = true});
}

static const struct authority_record both = {.epoch = 3, .members = AUTHORITY_BOTH, .session = {{1}}};

/* R7.1: "a seq the other cannot explain": the same session, but less of it than the other knows to be on both. */
static void a_copy_that_was_set_back_is_not_explained(void **state)
{
    struct authority_record other = both;
    assert_true(authority_session_explained(&both, 900, 890, &other, 895, 880));
    assert_false(authority_session_explained(&both, 900, 890, &other, 100, 90));
    assert_false(authority_session_explained(&both, 100, 90, &other, 900, 890));
    other.session = s2;
    assert_false(authority_session_explained(&both, 900, 890, &other, 3, 3));
    other.previous_session = s1; /* opened there, not stored here before a crash */
    assert_true(authority_session_explained(&both, 900, 890, &other, 0, 0));
}

/* R2, "Disks": a node whose storage failed consents; the other one takes the group although the link lives. */
static void the_other_takes_over_from_a_failed_node(void **state)
{
    begin(both);
    step((struct authority_event){
        .kind = AUTHORITY_EV_MESSAGE,
        .message = {.kind = AUTHORITY_HELLO, .epoch = 3, .record = both, .busy = true, .failed = true}});
    step((struct authority_event){.kind = AUTHORITY_EV_TIMER});
    const struct authority_action *cas = action(AUTHORITY_ACT_CAS);
    assert_non_null(cas);
    assert_int_equal(cas->to.epoch, 4);
    assert_int_equal(cas->to.members, 1);
}

static void serve_as_sole(void)
{
    begin((struct authority_record){.epoch = 4, .members = 1, .was_primary = true, .session = {{1}}});
    assert_int_equal(core.role, AUTHORITY_SOLE);
    struct authority_record behind = both;
    step((struct authority_event){.kind = AUTHORITY_EV_MESSAGE,
                                  .message = {.kind = AUTHORITY_HELLO, .epoch = 3, .record = behind, .highest = 5, .committed = 5}});
    assert_non_null(action(AUTHORITY_ACT_SEND)); /* RESYNC */
    step((struct authority_event){.kind = AUTHORITY_EV_MESSAGE, .message = {.kind = AUTHORITY_TARGETED, .session = core.session}});
    assert_false(action(AUTHORITY_ACT_BEGIN)->everything);
    step((struct authority_event){.kind = AUTHORITY_EV_TAIL_MERGED});
}

/* R7.6: the role was left while pend was being stored; nothing is entered twice. */
static void storage_fails_while_growth_is_stored(void **state)
{
    serve_as_sole();
    step((struct authority_event){.kind = AUTHORITY_EV_IN_SYNC});
    assert_non_null(action(AUTHORITY_ACT_SAVE));
    step((struct authority_event){.kind = AUTHORITY_EV_STORE_FAILED});
    step((struct authority_event){.kind = AUTHORITY_EV_SAVED});
    assert_int_equal(core.role, AUTHORITY_IDLE);
}

/* A link that breaks between OPEN and the storing of the session leaves histories that explain each other. */
static void an_interrupted_opening_is_explained(void **state)
{
    begin(both);
    step((struct authority_event){.kind = AUTHORITY_EV_MESSAGE, .message = {.kind = AUTHORITY_OPEN, .epoch = 3, .session = s2}});
    assert_non_null(action(AUTHORITY_ACT_SAVE));
    step((struct authority_event){.kind = AUTHORITY_EV_LINK, .up = false});
    step((struct authority_event){.kind = AUTHORITY_EV_SAVED});
    assert_true(authority_session_explained(&core.record, core.highest, core.committed, &both, 5, 5));
}

/* W's refusal is not asked again at the speed of the round trip. */
static void a_refusal_is_waited_for(void **state)
{
    begin(both);
    struct authority_record behind = both;
    behind.epoch = 2;
    struct authority_event hello = {.kind = AUTHORITY_EV_MESSAGE, .message = {.kind = AUTHORITY_HELLO, .epoch = 2, .record = behind}};
    step((struct authority_event){.kind = AUTHORITY_EV_TIMER});
    step(hello);
    assert_non_null(action(AUTHORITY_ACT_CAS));
    step((struct authority_event){.kind = AUTHORITY_EV_VERDICT, .verdict = AUTHORITY_REFUSED});
    assert_null(action(AUTHORITY_ACT_CAS));
    assert_non_null(action(AUTHORITY_ACT_TIMER));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_that_was_set_back_is_not_explained),
        cmocka_unit_test(the_other_takes_over_from_a_failed_node),
        cmocka_unit_test(storage_fails_while_growth_is_stored),
        cmocka_unit_test(an_interrupted_opening_is_explained),
        cmocka_unit_test(a_refusal_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
