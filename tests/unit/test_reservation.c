/* Persistent reservations without SCSI: the rules of SPC-4 §5.13 one by one, and the text that keeps them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "storaged/scsi/reservation_text.h"

#define TEXT_MAX 16384u

static struct reservation_nexus nexus_of(unsigned number)
{
    struct reservation_nexus nexus = {.isid = {0x00, 0x02, 0x3d, 0, 0, (uint8_t)number}, .port_group = 1};
    snprintf(nexus.initiator, sizeof nexus.initiator, "iqn.2026-01.example:host%u", number);
    return nexus;
}

static struct reservation_request request_of(unsigned number, enum reservation_action action)
{
    return (struct reservation_request){.action = action, .nexus = nexus_of(number), .key = 100 + number};
}

static enum reservation_result set_key(struct reservation_state *state, unsigned number, uint64_t key,
                                       uint64_t service_key)
{
    struct reservation_request request = request_of(number, RESERVATION_REGISTER);
    request.key = key;
    request.service_key = service_key;
    return reservation_step(state, &request);
}

static enum reservation_result act(struct reservation_state *state, unsigned number, enum reservation_action action,
                                   unsigned type)
{
    struct reservation_request request = request_of(number, action);
    request.type = (uint8_t)type;
    return reservation_step(state, &request);
}

static enum reservation_result preempt(struct reservation_state *state, unsigned number, uint64_t victims,
                                       unsigned type)
{
    struct reservation_request request = request_of(number, RESERVATION_PREEMPT);
    request.service_key = victims;
    request.type = (uint8_t)type;
    return reservation_step(state, &request);
}

/* Hosts 1 to `count` are registered, each with its own key. */
static struct reservation_state registered(unsigned count)
{
    struct reservation_state state;
    reservation_init(&state);
    for (unsigned i = 1; i <= count; i++)
        assert_int_equal(set_key(&state, i, 0, 100 + i), RESERVATION_CHANGED);
    return state;
}

static int place_of(const struct reservation_state *state, unsigned number)
{
    struct reservation_nexus nexus = nexus_of(number);
    return reservation_find(state, &nexus);
}

static enum reservation_notice notice(const struct reservation_state *old, const struct reservation_state *now,
                                      unsigned number)
{
    struct reservation_nexus nexus = nexus_of(number);
    return reservation_notice(old, now, &nexus);
}

static void registering_needs_the_key_one_has(void **unused)
{
    struct reservation_state state = registered(1);
    assert_int_equal(state.generation, 1);
    assert_int_equal(set_key(&state, 2, 7, 8), RESERVATION_CONFLICT); /* not registered: the key is 0 */
    assert_int_equal(set_key(&state, 1, 7, 8), RESERVATION_CONFLICT);
    assert_int_equal(set_key(&state, 2, 0, 0), RESERVATION_UNCHANGED);
    assert_int_equal(state.generation, 1);
    assert_int_equal(set_key(&state, 1, 101, 8), RESERVATION_CHANGED);
    assert_int_equal(state.registrants[0].key, 8);
    assert_int_equal(state.generation, 2);
    assert_int_equal(set_key(&state, 1, 8, 0), RESERVATION_CHANGED);
    assert_int_equal(state.count, 0);
}

static void ignoring_the_key_registers_and_unregisters(void **unused)
{
    struct reservation_state state = registered(1);
    struct reservation_request request = request_of(1, RESERVATION_REGISTER_AND_IGNORE);
    request.key = 999;
    request.service_key = 5;
    assert_int_equal(reservation_step(&state, &request), RESERVATION_CHANGED);
    assert_int_equal(state.registrants[0].key, 5);
    request.service_key = 0;
    assert_int_equal(reservation_step(&state, &request), RESERVATION_CHANGED);
    assert_int_equal(state.count, 0);
    assert_int_equal(reservation_step(&state, &request), RESERVATION_UNCHANGED);
}

/* SPC-4 table 66: who may read and write under each type; rows are holder, registrant, stranger. */
static void conflicts_follow_the_table(void **unused)
{
    static const struct {
        uint8_t type;
        bool read[3], write[3]; /* conflicts */
    } rows[] = {
        {RESERVATION_WRITE_EXCLUSIVE, {false, false, false}, {false, true, true}},
        {RESERVATION_EXCLUSIVE_ACCESS, {false, true, true}, {false, true, true}},
        {RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS, {false, false, false}, {false, false, true}},
        {RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS, {false, false, true}, {false, false, true}},
        {RESERVATION_WRITE_EXCLUSIVE_ALL, {false, false, false}, {false, false, true}},
        {RESERVATION_EXCLUSIVE_ACCESS_ALL, {false, false, true}, {false, false, true}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct reservation_state state = registered(2);
        assert_int_equal(act(&state, 1, RESERVATION_RESERVE, rows[i].type), RESERVATION_CHANGED);
        for (unsigned host = 1; host <= 3; host++) {
            assert_int_equal(reservation_conflicts(&state, place_of(&state, host), false), rows[i].read[host - 1]);
            assert_int_equal(reservation_conflicts(&state, place_of(&state, host), true), rows[i].write[host - 1]);
        }
    }
    struct reservation_state free_for_all = registered(2);
    assert_false(reservation_conflicts(&free_for_all, -1, true)); /* registrations alone reserve nothing */
}

static void reserving_is_exclusive_and_may_be_repeated(void **unused)
{
    struct reservation_state state = registered(2);
    assert_int_equal(act(&state, 3, RESERVATION_RESERVE, 1), RESERVATION_CONFLICT); /* not registered */
    assert_int_equal(act(&state, 1, RESERVATION_RESERVE, 1), RESERVATION_CHANGED);
    assert_int_equal(state.generation, 2); /* RESERVE does not count */
    assert_int_equal(act(&state, 1, RESERVATION_RESERVE, 1), RESERVATION_UNCHANGED);
    assert_int_equal(act(&state, 1, RESERVATION_RESERVE, 3), RESERVATION_CONFLICT);
    assert_int_equal(act(&state, 2, RESERVATION_RESERVE, 1), RESERVATION_CONFLICT);
    struct reservation_request wrong = request_of(1, RESERVATION_RESERVE);
    wrong.key = 1;
    wrong.type = 1;
    assert_int_equal(reservation_step(&state, &wrong), RESERVATION_CONFLICT);
}

static void releasing_needs_the_holder_and_the_type(void **unused)
{
    struct reservation_state state = registered(2);
    assert_int_equal(act(&state, 1, RESERVATION_RELEASE, 1), RESERVATION_UNCHANGED);
    act(&state, 1, RESERVATION_RESERVE, 1);
    assert_int_equal(act(&state, 2, RESERVATION_RELEASE, 1), RESERVATION_UNCHANGED);
    assert_int_equal(act(&state, 1, RESERVATION_RELEASE, 3), RESERVATION_BAD_RELEASE);
    assert_int_equal(act(&state, 3, RESERVATION_RELEASE, 1), RESERVATION_CONFLICT);
    assert_int_equal(state.type, 1);
    assert_int_equal(act(&state, 1, RESERVATION_RELEASE, 1), RESERVATION_CHANGED);
    assert_int_equal(state.type, RESERVATION_NONE);
    assert_int_equal(state.holder, -1);
}

static void a_release_is_told_where_rights_were_shared(void **unused)
{
    for (unsigned type = 1; type <= 8; type++) {
        if (!reservation_type_is_valid(type))
            continue;
        struct reservation_state state = registered(2), old;
        act(&state, 1, RESERVATION_RESERVE, type);
        old = state;
        assert_int_equal(act(&state, 1, RESERVATION_RELEASE, type), RESERVATION_CHANGED);
        assert_int_equal(notice(&old, &state, 1), RESERVATION_NOTICE_NONE);
        assert_int_equal(notice(&old, &state, 2), type >= 5 ? RESERVATION_NOTICE_RELEASED : RESERVATION_NOTICE_NONE);
        assert_int_equal(notice(&old, &state, 3), RESERVATION_NOTICE_NONE);
    }
}

static void unregistering_the_holder_releases(void **unused)
{
    struct reservation_state state = registered(3), old;
    act(&state, 2, RESERVATION_RESERVE, RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS);
    assert_int_equal(set_key(&state, 1, 101, 0), RESERVATION_CHANGED); /* the holder's place moves */
    assert_int_equal(state.type, RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS);
    assert_true(reservation_holds(&state, place_of(&state, 2)));
    old = state;
    assert_int_equal(set_key(&state, 2, 102, 0), RESERVATION_CHANGED);
    assert_int_equal(state.type, RESERVATION_NONE);
    assert_int_equal(notice(&old, &state, 3), RESERVATION_NOTICE_RELEASED);
    assert_int_equal(notice(&old, &state, 2), RESERVATION_NOTICE_NONE);
}

static void all_registrants_hold_until_the_last_goes(void **unused)
{
    struct reservation_state state = registered(2), old;
    assert_int_equal(act(&state, 1, RESERVATION_RESERVE, RESERVATION_EXCLUSIVE_ACCESS_ALL), RESERVATION_CHANGED);
    assert_int_equal(state.holder, -1);
    assert_true(reservation_holds(&state, 0) && reservation_holds(&state, 1));
    assert_int_equal(act(&state, 2, RESERVATION_RESERVE, RESERVATION_EXCLUSIVE_ACCESS_ALL), RESERVATION_UNCHANGED);
    old = state;
    set_key(&state, 1, 101, 0);
    assert_int_equal(state.type, RESERVATION_EXCLUSIVE_ACCESS_ALL);
    assert_int_equal(notice(&old, &state, 2), RESERVATION_NOTICE_NONE);
    set_key(&state, 2, 102, 0);
    assert_int_equal(state.type, RESERVATION_NONE);
}

static void clearing_takes_everything(void **unused)
{
    struct reservation_state state = registered(2), old;
    act(&state, 1, RESERVATION_RESERVE, 3);
    old = state;
    assert_int_equal(act(&state, 3, RESERVATION_CLEAR, 0), RESERVATION_CONFLICT);
    assert_int_equal(act(&state, 2, RESERVATION_CLEAR, 0), RESERVATION_CHANGED);
    assert_int_equal(state.count, 0);
    assert_int_equal(state.type, RESERVATION_NONE);
    assert_int_equal(state.generation, old.generation + 1);
    assert_int_equal(notice(&old, &state, 1), RESERVATION_NOTICE_PREEMPTED);
    assert_int_equal(notice(&old, &state, 2), RESERVATION_NOTICE_NONE);
}

static void preempting_the_holder_takes_the_reservation(void **unused)
{
    struct reservation_state state = registered(3), old;
    act(&state, 1, RESERVATION_RESERVE, RESERVATION_EXCLUSIVE_ACCESS_REGISTRANTS);
    old = state;
    assert_int_equal(preempt(&state, 2, 101, RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS), RESERVATION_CHANGED);
    assert_int_equal(state.type, RESERVATION_WRITE_EXCLUSIVE_REGISTRANTS);
    assert_int_equal(place_of(&state, 1), -1);
    assert_int_equal(state.holder, place_of(&state, 2));
    assert_int_equal(state.generation, old.generation + 1);
    assert_int_equal(notice(&old, &state, 1), RESERVATION_NOTICE_REGISTRATION_PREEMPTED);
    assert_int_equal(notice(&old, &state, 3), RESERVATION_NOTICE_RELEASED); /* the type is another */
    assert_int_equal(notice(&old, &state, 2), RESERVATION_NOTICE_NONE);
    old = state;
    assert_int_equal(preempt(&state, 2, 102, RESERVATION_EXCLUSIVE_ACCESS), RESERVATION_CHANGED); /* its own */
    assert_int_equal(state.type, RESERVATION_EXCLUSIVE_ACCESS);
    assert_int_equal(state.holder, place_of(&state, 2));
}

static void preempting_others_takes_only_registrations(void **unused)
{
    struct reservation_state state = registered(3), old;
    act(&state, 1, RESERVATION_RESERVE, RESERVATION_WRITE_EXCLUSIVE);
    old = state;
    assert_int_equal(preempt(&state, 2, 103, RESERVATION_EXCLUSIVE_ACCESS), RESERVATION_CHANGED);
    assert_int_equal(state.type, RESERVATION_WRITE_EXCLUSIVE);
    assert_int_equal(state.holder, place_of(&state, 1));
    assert_int_equal(notice(&old, &state, 3), RESERVATION_NOTICE_REGISTRATION_PREEMPTED);
    assert_int_equal(notice(&old, &state, 1), RESERVATION_NOTICE_NONE);
    assert_int_equal(preempt(&state, 2, 777, RESERVATION_EXCLUSIVE_ACCESS), RESERVATION_CONFLICT); /* nobody's key */
    assert_int_equal(preempt(&state, 2, 0, RESERVATION_EXCLUSIVE_ACCESS), RESERVATION_BAD_KEY);
    assert_int_equal(preempt(&state, 3, 101, RESERVATION_EXCLUSIVE_ACCESS), RESERVATION_CONFLICT); /* not registered */
}

static void preempting_all_registrants_by_key_0(void **unused)
{
    struct reservation_state state = registered(3);
    act(&state, 1, RESERVATION_RESERVE, RESERVATION_WRITE_EXCLUSIVE_ALL);
    assert_int_equal(preempt(&state, 2, 103, RESERVATION_EXCLUSIVE_ACCESS), RESERVATION_CHANGED);
    assert_int_equal(state.type, RESERVATION_WRITE_EXCLUSIVE_ALL); /* one of all: it goes, the reservation stays */
    assert_int_equal(state.count, 2);
    assert_int_equal(preempt(&state, 2, 0, RESERVATION_EXCLUSIVE_ACCESS), RESERVATION_CHANGED);
    assert_int_equal(state.count, 1);
    assert_int_equal(state.type, RESERVATION_EXCLUSIVE_ACCESS);
    assert_int_equal(state.holder, place_of(&state, 2));
}

static void all_target_ports_are_registered_at_once(void **unused)
{
    struct reservation_state state = registered(0), old;
    struct reservation_request request = request_of(1, RESERVATION_REGISTER);
    request.key = 0;
    request.service_key = 5;
    request.all_ports = true;
    assert_int_equal(reservation_step(&state, &request), RESERVATION_CHANGED);
    assert_int_equal(state.count, 2);
    assert_int_equal(state.generation, 1);
    struct reservation_nexus other = nexus_of(1);
    other.port_group = 2;
    assert_true(reservation_find(&state, &other) >= 0);
    old = state;
    request.key = 5;
    request.service_key = 0;
    assert_int_equal(reservation_step(&state, &request), RESERVATION_CHANGED);
    assert_int_equal(state.count, 0);
    assert_int_equal(reservation_notice(&old, &state, &other), RESERVATION_NOTICE_NONE); /* its own doing */
}

static void registrants_are_limited(void **unused)
{
    struct reservation_state state = registered(RESERVATION_REGISTRANTS_MAX);
    assert_int_equal(set_key(&state, 65, 0, 5), RESERVATION_FULL);
    assert_int_equal(set_key(&state, 64, 164, 5), RESERVATION_CHANGED);
    set_key(&state, 1, 101, 0);
    struct reservation_request both = request_of(65, RESERVATION_REGISTER_AND_IGNORE);
    both.service_key = 5;
    both.all_ports = true;
    struct reservation_state before = state;
    assert_int_equal(reservation_step(&state, &both), RESERVATION_FULL); /* room for one port, not for both */
    assert_memory_equal(&state, &before, sizeof state);
}

static void a_locked_state_is_opened_by_clearing(void **unused)
{
    struct reservation_state state;
    char text[TEXT_MAX];
    reservation_lock(&state);
    assert_true(reservation_conflicts(&state, -1, false));
    assert_int_equal(set_key(&state, 1, 0, 101), RESERVATION_CHANGED);
    assert_true(reservation_conflicts(&state, 0, false));
    assert_true(reservation_encode(&state, text, sizeof text) > 0);
    assert_int_equal(act(&state, 1, RESERVATION_CLEAR, 0), RESERVATION_CHANGED);
    assert_false(reservation_conflicts(&state, -1, true));
}

static void text_keeps_everything(void **unused)
{
    struct reservation_state state = registered(3), back;
    char text[TEXT_MAX];
    act(&state, 2, RESERVATION_RESERVE, RESERVATION_EXCLUSIVE_ACCESS);
    state.registrants[0].key = UINT64_MAX;
    state.registrants[1].all_ports = true;
    state.aptpl = true;
    int length = reservation_encode(&state, text, sizeof text);
    assert_int_equal(length, strlen(text));
    assert_int_equal(reservation_decode(text, &back), 0);
    assert_memory_equal(&state, &back, sizeof state);
    assert_int_equal(reservation_encode(&state, text, (size_t)length), -ENOSPC);
    assert_int_equal(reservation_encode(&state, text, (size_t)length + 1), length);
    state.registrants[0].nexus.initiator[0] = (char)0xff;
    assert_int_equal(reservation_encode(&state, text, sizeof text), -EINVAL);
}

#define HEAD                                                                                                           \
    "{\"serial\":1,\"generation\":1,\"aptpl\":false,\"last\":{\"action\":0,\"initiator\":\"a\",\"isid\":"              \
    "\"000000000000\",\"port\":1},"
#define ONE "{\"initiator\":\"a\",\"isid\":\"0123456789ab\",\"port\":1,\"key\":\"00000000000000ff\"}"

static void text_that_cannot_be_is_refused(void **unused)
{
    static const char *const bad[] = {
        "",
        "x",
        "[]",
        "{}",
        "null",
        HEAD "\"type\":0,\"holder\":-1}",
        HEAD "\"type\":2,\"holder\":0,\"registrants\":[" ONE "]}", /* no such type */
        HEAD "\"type\":9,\"holder\":0,\"registrants\":[" ONE "]}",
        HEAD "\"type\":1,\"holder\":1,\"registrants\":[" ONE "]}",         /* no such registrant */
        HEAD "\"type\":0,\"holder\":0,\"registrants\":[" ONE "]}",         /* holds nothing */
        HEAD "\"type\":7,\"holder\":0,\"registrants\":[" ONE "]}",         /* all hold it */
        HEAD "\"type\":7,\"holder\":-1,\"registrants\":[]}",               /* nobody is all */
        HEAD "\"type\":1,\"holder\":0,\"registrants\":[" ONE "," ONE "]}", /* twice */
        HEAD "\"type\":1,\"holder\":0,\"registrants\":[{\"initiator\":\"a\",\"isid\":\"0123456789ab\",\"port\":3,"
             "\"key\":\"00000000000000ff\"}]}",
        HEAD "\"type\":1,\"holder\":0,\"registrants\":[{\"initiator\":\"\",\"isid\":\"0123456789ab\",\"port\":1,"
             "\"key\":\"00000000000000ff\"}]}",
        HEAD "\"type\":1,\"holder\":0,\"registrants\":[{\"initiator\":\"a\",\"isid\":\"0123456789a\",\"port\":1,"
             "\"key\":\"00000000000000ff\"}]}",
        HEAD "\"type\":1,\"holder\":0,\"registrants\":[{\"initiator\":\"a\",\"isid\":\"0123456789ab\",\"port\":1,"
             "\"key\":\"0000000000000000\"}]}",
        HEAD "\"type\":1,\"holder\":0,\"registrants\":[{\"initiator\":\"a\",\"isid\":\"0123456789ab\",\"port\":1,"
             "\"key\":-1}]}",
        HEAD "\"type\":0,\"holder\":-1,\"registrants\":[],\"reserved\":{}}", /* by nobody */
    };
    struct reservation_state state = registered(1), before = state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(reservation_decode(bad[i], &state), -EBADMSG);
        assert_memory_equal(&state, &before, sizeof state);
    }
    assert_int_equal(reservation_decode(HEAD "\"type\":1,\"holder\":0,\"registrants\":[" ONE "]}", &state), 0);
    assert_int_equal(state.registrants[0].nexus.isid[5], 0xab);
}

/* Whatever hosts do: one holder or all, a text that brings back the same, and never a stranger who holds. */
static void any_story_keeps_its_invariants(void **unused)
{
    static const uint8_t types[] = {1, 3, 5, 6, 7, 8};
    struct reservation_state state = registered(0), back;
    char text[TEXT_MAX];
    srandom(3);
    for (unsigned i = 0; i < 4000; i++) {
        struct reservation_request request =
            request_of(1 + (unsigned)random() % 5, (enum reservation_action)(random() % RESERVATION_ACTION_COUNT));
        request.nexus.port_group = (uint16_t)(1 + random() % 2);
        request.key = random() % 4 ? request.key : 0;
        request.service_key = random() % 4 ? 101 + (uint64_t)random() % 5 : 0;
        request.type = types[random() % 6];
        request.all_ports = random() % 2;
        struct reservation_state before = state;
        enum reservation_result result = reservation_step(&state, &request);
        if (result != RESERVATION_CHANGED)
            assert_memory_equal(&state, &before, sizeof state);
        else
            assert_true(reservation_encode(&state, text, sizeof text) > 0 && reservation_decode(text, &back) == 0);
        if (result == RESERVATION_CHANGED)
            assert_memory_equal(&state, &back, sizeof state);
        assert_true(state.type == RESERVATION_NONE || state.count > 0);
        assert_true(reservation_type_is_all(state.type) || state.type == RESERVATION_NONE ? state.holder == -1
                                                                                          : state.holder >= 0);
        assert_false(reservation_holds(&state, -1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registering_needs_the_key_one_has),
        cmocka_unit_test(ignoring_the_key_registers_and_unregisters),
        cmocka_unit_test(conflicts_follow_the_table),
        cmocka_unit_test(reserving_is_exclusive_and_may_be_repeated),
        cmocka_unit_test(releasing_needs_the_holder_and_the_type),
        cmocka_unit_test(a_release_is_told_where_rights_were_shared),
        cmocka_unit_test(unregistering_the_holder_releases),
        cmocka_unit_test(all_registrants_hold_until_the_last_goes),
        cmocka_unit_test(clearing_takes_everything),
        cmocka_unit_test(preempting_the_holder_takes_the_reservation),
        cmocka_unit_test(preempting_others_takes_only_registrations),
        cmocka_unit_test(preempting_all_registrants_by_key_0),
        cmocka_unit_test(all_target_ports_are_registered_at_once),
        cmocka_unit_test(registrants_are_limited),
        cmocka_unit_test(a_locked_state_is_opened_by_clearing),
        cmocka_unit_test(text_keeps_everything),
        cmocka_unit_test(text_that_cannot_be_is_refused),
        cmocka_unit_test(any_story_keeps_its_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
