/* Logins: who is let in, with which proof, and what is agreed on. */
#include "tests/unit/iscsi_lab.h"

static void discovers(void **state)
{
    struct bench *bench = *state;
    open_many_luns(bench); /* before any connection: the table is not in use yet */
    struct iscsi_context *context = iscsi_create_context("iqn.2026-01.io.hci:guest.test.1.a");
    iscsi_set_session_type(context, ISCSI_SESSION_DISCOVERY);
    assert_int_equal(iscsi_connect_sync(context, bench->portal), 0);
    assert_int_equal(iscsi_login_sync(context), 0);
    struct iscsi_discovery_address *list = iscsi_discovery_sync(context);
    unsigned count = 0;
    for (struct iscsi_discovery_address *item = list; item; item = item->next, count++) {
        char expected[80];
        snprintf(expected, sizeof(expected), "%s,1", bench->portal);
        assert_string_equal(item->portals->portal, expected);
        assert_null(item->portals->next);
        assert_string_not_equal(item->target_name, LUN_IQN_PREFIX "closed");
        assert_string_not_equal(item->target_name, LUN_IQN_PREFIX "secret"); /* nothing was proved */
    }
    assert_int_equal(count, MANY_LUNS + 1);
    iscsi_free_discovery_data(context, list);
    log_out(context);
}

/* To an initiator that takes 8 KiB at a time, the answer comes in parts of whole keys, each volume once. */
static void discovers_in_parts(void **state)
{
    static const char keys[] = "InitiatorName=iqn.raw\0SessionType=Discovery\0";
    struct bench *bench = *state;
    uint8_t request[48 + 16] = {0x44, 0x80}, answer[48];
    unsigned parts = 0, names = 0;
    open_many_luns(bench);
    int fd = raw_log_in(bench, keys, sizeof(keys) - 1);
    put_be24(request + 5, 16);
    put_be32(request + 20, ISCSI_TAG_NONE);
    memcpy(request + 48, "SendTargets=All", 16);
    assert_int_equal(send(fd, request, 64, 0), 64);
    for (bool final = false; !final; parts++) {
        char text[8192];
        receive(fd, answer, 48);
        assert_int_equal(answer[0], 0x24);
        uint32_t size = be24_at(answer + 5);
        assert_in_range(size, 1, 8192);
        receive(fd, text, (size + 3) & ~3u);
        assert_int_equal(text[size - 1], 0);
        for (char *at = text; at < text + size; at += strlen(at) + 1)
            names += strncmp(at, "TargetName=", 11) == 0;
        final = answer[1] & 0x80;
        assert_int_equal(answer[1], final ? 0x80 : 0x40);
        put_be24(request + 5, 0);
        memcpy(request + 20, answer + 20, 4);
        if (!final)
            assert_int_equal(send(fd, request, 48, 0), 48);
    }
    assert_int_equal(names, MANY_LUNS + 1);
    assert_true(parts > 1);
    close(fd);
}

static void refuses_who_may_not(void **state)
{
    struct bench *bench = *state;
    static const char *const names[] = {"closed", "secret", "nothing"};
    for (unsigned i = 0; i < 3; i++) {
        struct iscsi_context *context = new_context(names[i]);
        assert_int_not_equal(iscsi_full_connect_sync(context, bench->portal, 0), 0);
        iscsi_destroy_context(context);
    }
    assert_int_equal(stats_of(bench).logins_refused, 3);
}

static int try_chap(struct bench *bench, const char *user, const char *secret)
{
    struct iscsi_context *context = new_context("secret");
    iscsi_set_initiator_username_pwd(context, user, secret);
    int r = iscsi_full_connect_sync(context, bench->portal, 0);
    if (r == 0)
        write_and_read_back(context, 3, 8192, 1);
    if (r == 0)
        iscsi_logout_sync(context);
    iscsi_destroy_context(context);
    return r;
}

static void asks_for_the_secret(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(try_chap(bench, "guest", "not for everyone"), 0);
    assert_int_not_equal(try_chap(bench, "guest", "not for anyone"), 0);
    assert_int_not_equal(try_chap(bench, "guess", "not for everyone"), 0);
    assert_int_equal(try_chap(bench, "guest", "not for everyone"), 0);
}

static unsigned count_discovered(struct bench *bench, const char *user, const char *secret)
{
    struct iscsi_context *context = iscsi_create_context("iqn.2026-01.io.hci:guest.test.1.a");
    unsigned count = 0;
    iscsi_set_session_type(context, ISCSI_SESSION_DISCOVERY);
    if (user[0])
        iscsi_set_initiator_username_pwd(context, user, secret);
    assert_int_equal(iscsi_connect_sync(context, bench->portal), 0);
    if (iscsi_login_sync(context) == 0) {
        struct iscsi_discovery_address *list = iscsi_discovery_sync(context);
        for (struct iscsi_discovery_address *item = list; item; item = item->next)
            count++;
        iscsi_free_discovery_data(context, list);
        iscsi_logout_sync(context);
    }
    iscsi_destroy_context(context);
    return count;
}

/* Who knows a volume's secret is shown that volume, too; a wrong secret is no login at all. */
static void discovers_with_a_secret(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(count_discovered(bench, "guest", "not for everyone"), 2);
    assert_int_equal(count_discovered(bench, "guest", "not for anyone"), 0);
    assert_int_equal(count_discovered(bench, "guess", "not for everyone"), 0);
}

static int try_mutual(struct bench *bench, const char *user, const char *secret)
{
    struct iscsi_context *context = new_context("secret");
    iscsi_set_initiator_username_pwd(context, "guest", "not for everyone");
    iscsi_set_target_username_pwd(context, user, secret);
    int r = iscsi_full_connect_sync(context, bench->portal, 0);
    if (r == 0)
        iscsi_logout_sync(context);
    iscsi_destroy_context(context);
    return r;
}

/* The initiator judges the target's proof. */
static void proves_itself_to_the_initiator(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(try_mutual(bench, "target", "another secret"), 0);
    assert_int_not_equal(try_mutual(bench, "target", "a third secret"), 0);
}

/* --- byte by byte ------------------------------------------------------------------------------------------------------ */

/* One request with these keys: the status of the answer. */
static unsigned status_of(struct bench *bench, uint8_t flags, const void *keys, size_t size)
{
    uint8_t header[48];
    char text[1024];
    int fd = open_socket(bench);
    raw_send_login(fd, flags, keys, size);
    unsigned status = raw_receive_login(fd, header, text);
    close(fd);
    return status;
}
#define STATUS_OF(bench, flags, keys) status_of(bench, flags, keys, sizeof(keys) - 1)

static void refusals_say_why(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(STATUS_OF(bench, 0x87, RAW_NAMES), 0);
    assert_int_equal(STATUS_OF(bench, 0x87, "SessionType=Discovery\0"), 0x0207);
    assert_int_equal(STATUS_OF(bench, 0x87, "InitiatorName=iqn.raw\0"), 0x0207);
    assert_int_equal(STATUS_OF(bench, 0x87, "InitiatorName=iqn.raw\0SessionType=Tape\0"), 0x0209);
    assert_int_equal(STATUS_OF(bench, 0x87, "InitiatorName=iqn.raw\0TargetName=iqn.2026-01.io.hci:no\0"), 0x0203);
    assert_int_equal(STATUS_OF(bench, 0x87, "InitiatorName=iqn.raw\0TargetName=iqn.2026-01.io.hci:closed\0"), 0x0202);
    assert_int_equal(STATUS_OF(bench, 0x87, "InitiatorName=iqn.raw\0TargetName=iqn.2026-01.io.hci:secret\0"), 0x0201);
    assert_int_equal(STATUS_OF(bench, 0x81, "InitiatorName=iqn.raw\0TargetName=iqn.2026-01.io.hci:secret\0AuthMethod=None\0"), 0x0201);
    assert_int_equal(STATUS_OF(bench, 0x87, RAW_NAMES "InitiatorName=iqn.other\0"), 0x0200); /* a key twice */
    assert_int_equal(STATUS_OF(bench, 0x87, RAW_NAMES "InitialR2T=Perhaps\0"), 0x0200);
    assert_int_equal(STATUS_OF(bench, 0x84, RAW_NAMES), 0x020b); /* back a stage */
    assert_int_equal(STATUS_OF(bench, 0xc7, RAW_NAMES), 0x020b); /* to be continued, but done */
    assert_int_equal(stats_of(bench).sessions <= 1, true);
}

/* RFC 7143 §6.3.4: a TSIH must be that of the initiator's own session and connection. */
static void a_session_is_taken_up_again_only_by_its_owner(void **state)
{
    struct bench *bench = *state;
    uint8_t header[48], again[48 + 128] = {0x43, 0x87};
    char text[1024];
    int first = open_socket(bench), second;
    raw_send_login(first, 0x87, RAW_NAMES, sizeof(RAW_NAMES) - 1);
    assert_int_equal(raw_receive_login(first, header, text), 0);
    uint16_t tsih = be16_at(header + 14);
    assert_int_not_equal(tsih, 0);
    put_be24(again + 5, sizeof(RAW_NAMES) - 1);
    again[8] = 0x40;
    put_be32(again + 24, 1);
    memcpy(again + 48, RAW_NAMES, sizeof(RAW_NAMES) - 1);
    static const struct { int tsih_off; uint16_t connection; uint8_t isid; unsigned status; } tries[] = {
        {1, 0, 0x40, 0x0206}, {0, 1, 0x40, 0x0206}, {0, 0, 0x41, 0x020a}, {0, 0, 0x40, 0}};
    for (unsigned i = 0; i < 4; i++) {
        second = open_socket(bench);
        put_be16(again + 14, (uint16_t)(tsih + tries[i].tsih_off));
        put_be16(again + 20, tries[i].connection);
        again[8] = tries[i].isid;
        size_t size = 48 + ((sizeof(RAW_NAMES) - 1 + 3) & ~3u);
        assert_int_equal(send(second, again, size, 0), size);
        assert_int_equal(raw_receive_login(second, header, text), tries[i].status);
        if (tries[i].status)
            close(second);
    }
    assert_int_equal(be16_at(header + 14), tsih);
    expect_hang_up(first, "", 0); /* the old connection is gone */
    wait_until(bench, stats.sessions == 1);
    close(second);
}

/* Text in pieces: keys cut anywhere, each piece answered (RFC 7143 §6.2). */
static void login_text_may_come_in_pieces(void **state)
{
    struct bench *bench = *state;
    static const char keys[] = RAW_NAMES "HeaderDigest=CRC32C,None\0";
    uint8_t header[48];
    char text[1024];
    int fd = open_socket(bench);
    for (size_t at = 0; at < sizeof(keys) - 1; at += 33) {
        size_t size = sizeof(keys) - 1 - at < 33 ? sizeof(keys) - 1 - at : 33;
        bool last = at + size == sizeof(keys) - 1;
        raw_send_login(fd, last ? 0x87 : 0x44, keys + at, size);
        assert_int_equal(raw_receive_login(fd, header, text), 0);
        assert_int_equal(header[1], last ? 0x87 : 0x04);
    }
    assert_string_equal(raw_value(header, text, "HeaderDigest"), "CRC32C");
    assert_string_equal(raw_value(header, text, "MaxRecvDataSegmentLength"), "262144");
    close(fd);
}

/* The same after login; what can be said again takes effect. */
static void text_in_full_feature_phase(void **state)
{
    struct bench *bench = *state;
    static const char question[] = "MaxRecvDataSegmentLength=512\0DataDigest=CRC32C\0X-test.key=1\0";
    uint8_t request[48 + 64] = {0x44, 0x40}, answer[48];
    char text[512];
    int fd = RAW_LOG_IN(bench, "");
    put_be32(request + 20, ISCSI_TAG_NONE);
    put_be24(request + 5, 20);
    memcpy(request + 48, question, 20);
    assert_int_equal(send(fd, request, 48 + 20, 0), 48 + 20);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x24);
    assert_int_equal(answer[1], 0); /* go on */
    assert_int_equal(be24_at(answer + 5), 0);
    memcpy(request + 20, answer + 20, 4);
    request[1] = 0x80;
    size_t rest = sizeof(question) - 1 - 20;
    put_be24(request + 5, (uint32_t)rest);
    memcpy(request + 48, question + 20, rest);
    assert_int_equal(send(fd, request, 48 + ((rest + 3) & ~3u), 0), 48 + ((rest + 3) & ~3u));
    receive(fd, answer, 48);
    assert_int_equal(answer[1], 0x80);
    receive(fd, text, (be24_at(answer + 5) + 3) & ~3u);
    assert_string_equal(raw_value(answer, text, "DataDigest"), "Reject");
    assert_string_equal(raw_value(answer, text, "X-test.key"), "NotUnderstood");
    assert_null(raw_value(answer, text, "MaxRecvDataSegmentLength"));
    close(fd);
}

/* Discovery is for anybody: it takes no session from those who work, and does not pile up. */
static void discoveries_do_not_pile_up(void **state)
{
    struct bench *bench = *state;
    static const char keys[] = "InitiatorName=iqn.raw\0SessionType=Discovery\0";
    int fds[3 * ISCSI_DISCOVERIES_MAX];
    int good = RAW_LOG_IN(bench, "");
    for (unsigned i = 0; i < 3 * ISCSI_DISCOVERIES_MAX; i++)
        fds[i] = raw_log_in(bench, keys, sizeof(keys) - 1);
    wait_until(bench, stats.sessions <= 1 + ISCSI_DISCOVERIES_MAX);
    expect_hang_up(fds[0], "", 0); /* the oldest */
    for (unsigned i = 1; i < 3 * ISCSI_DISCOVERIES_MAX; i++)
        close(fds[i]);
    raw_take_attention(good);
    close(good);
}

/* As many sessions as there may be: the next is told so, and those that are there go on. */
static void sessions_have_an_end(void **state)
{
    struct bench *bench = *state;
    static int fds[ISCSI_SESSIONS_MAX];
    char keys[128], text[1024];
    uint8_t header[48];
    for (unsigned i = 0; i <= ISCSI_SESSIONS_MAX; i++) {
        size_t size = (size_t)snprintf(keys, sizeof(keys), "InitiatorName=iqn.raw.%u%cTargetName=iqn.2026-01.io.hci:open", i, 0) + 1;
        int fd = open_socket(bench);
        raw_send_login(fd, 0x87, keys, size);
        assert_int_equal(raw_receive_login(fd, header, text), i < ISCSI_SESSIONS_MAX ? 0 : 0x0302);
        if (i < ISCSI_SESSIONS_MAX)
            fds[i] = fd;
        else
            close(fd);
    }
    assert_int_equal(stats_of(bench).sessions, ISCSI_SESSIONS_MAX);
    assert_int_equal(count_discovered(bench, "", ""), 1); /* what they would use can still be seen */
    raw_take_attention(fds[0]);
    raw_take_attention(fds[ISCSI_SESSIONS_MAX - 1]);
    for (unsigned i = 0; i < ISCSI_SESSIONS_MAX; i++)
        close(fds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(discovers),
        LAB_TEST(discovers_in_parts),
        LAB_TEST(refuses_who_may_not),
        LAB_TEST(asks_for_the_secret),
        LAB_TEST(discovers_with_a_secret),
        LAB_TEST(proves_itself_to_the_initiator),
        LAB_TEST(refusals_say_why),
        LAB_TEST(a_session_is_taken_up_again_only_by_its_owner),
        LAB_TEST(login_text_may_come_in_pieces),
        LAB_TEST(text_in_full_feature_phase),
        LAB_TEST(discoveries_do_not_pile_up),
        LAB_TEST(sessions_have_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
