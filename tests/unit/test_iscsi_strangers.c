/* What anybody can send to the target: nothing of it may hurt. */
#include <sys/resource.h>

#include "tests/unit/iscsi_lab.h"

static void garbage_is_hung_up_on(void **state)
{
    struct bench *bench = *state;
    uint8_t data[4096];
    srandom(7);
    for (unsigned round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof(data); i++)
            data[i] = (uint8_t)random();
        expect_hang_up(open_socket(bench), data, sizeof(data));
    }
    expect_hang_up(open_socket(bench), "GET / HTTP/1.1\r\nHost: a-target-that-is-no-web-server\r\n\r\n", 56);
    wait_until(bench, stats.connections == 0);
}

static void oversize_headers_are_hung_up_on(void **state)
{
    struct bench *bench = *state;
    uint8_t bhs[48] = {0x43, 0x87, 0, 0, 0, 0xff, 0xff, 0xff};
    expect_hang_up(open_socket(bench), bhs, sizeof(bhs)); /* data segment of 16 MiB */
    memset(bhs, 0, sizeof(bhs));
    bhs[0] = 0x43;
    bhs[4] = 255; /* additional header of a login */
    expect_hang_up(open_socket(bench), bhs, sizeof(bhs));
    memset(bhs, 0, sizeof(bhs));
    bhs[0] = 0x01; /* a command before login */
    expect_hang_up(open_socket(bench), bhs, sizeof(bhs));
    assert_int_equal(stats_of(bench).memory_bytes, 0);
}

/* Continued login text, 8 KiB each, without an end. */
static void endless_login_text_is_hung_up_on(void **state)
{
    struct bench *bench = *state;
    static uint8_t pdus[8][48 + 8192];
    for (unsigned i = 0; i < 8; i++) {
        pdus[i][0] = 0x43;
        pdus[i][1] = 0x40; /* to be continued */
        put_be24(pdus[i] + 5, 8192);
        memset(pdus[i] + 48, 'a', 8192);
    }
    expect_hang_up(open_socket(bench), pdus, sizeof(pdus));
}

static void a_login_that_never_ends_is_ended(void **state)
{
    struct bench *bench = *state;
    uint64_t start_ms = clock_boottime_ms();
    expect_hang_up(open_socket(bench), "\x43\x87", 2);
    uint64_t took_ms = clock_boottime_ms() - start_ms;
    assert_in_range(took_ms, LOGIN_MS - 50, LOGIN_MS + 1500);
    wait_until(bench, stats.unauthenticated == 0);
}

#define MANY (ISCSI_UNAUTHENTICATED_MAX + 150)

/* Both ends of so many connections are in this process. */
static void allow_descriptors(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* More strangers than there are places, silent or not: who has something to say still gets in, who is in stays in. */
static void strangers_cannot_lock_others_out(void **state)
{
    struct bench *bench = *state;
    static int fds[MANY];
    allow_descriptors();
    struct iscsi_context *before = new_context("open");
    assert_int_equal(iscsi_full_connect_sync(before, bench->portal, 0), 0);
    for (unsigned talk = 0; talk < 2; talk++) {
        for (unsigned i = 0; i < MANY; i++) {
            fds[i] = open_socket(bench);
            if (talk)
                assert_int_equal(send(fds[i], "\x43", 1, MSG_NOSIGNAL), 1);
        }
        struct iscsi_context *context = iscsi_create_context("iqn.another");
        iscsi_set_targetname(context, LUN_IQN_PREFIX "open");
        iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
        iscsi_set_noautoreconnect(context, 1);
        assert_int_equal(iscsi_full_connect_sync(context, bench->portal, 0), 0);
        assert_true(stats_of(bench).unauthenticated <= ISCSI_UNAUTHENTICATED_MAX);
        write_and_read_back(context, 1, 4096, talk);
        write_and_read_back(before, 100, 4096, talk);
        log_out(context);
        for (unsigned i = 0; i < MANY; i++)
            close(fds[i]);
        wait_until(bench, stats.unauthenticated == 0);
    }
    log_out(before);
}

/* A login is hung up on after so many requests, whatever is in them. */
static void a_login_does_not_chat(void **state)
{
    struct bench *bench = *state;
    static uint8_t pdus[64][48 + 24];
    for (unsigned i = 0; i < 64; i++) {
        pdus[i][0] = 0x43;
        put_be24(pdus[i] + 5, 22);
        memcpy(pdus[i] + 48, "InitiatorName=iqn.raw", 22);
        if (i == 0)
            continue;
        put_be24(pdus[i] + 5, 8);
        memset(pdus[i] + 48, 0, 24);
        snprintf((char *)pdus[i] + 48, 8, "X-a=%u", i);
    }
    expect_hang_up(open_socket(bench), pdus, sizeof(pdus));
    wait_until(bench, stats.connections == 0);
}

/* The same in full feature phase: a question without an end. */
static void endless_text_is_hung_up_on(void **state)
{
    struct bench *bench = *state;
    static uint8_t request[48 + 4096] = {0x44, 0x40};
    uint8_t answer[48];
    int fd = RAW_LOG_IN(bench, "");
    put_be24(request + 5, 4096);
    put_be32(request + 20, ISCSI_TAG_NONE);
    memset(request + 48, 'a', 4096);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(send(fd, request, sizeof(request), 0), sizeof(request));
        receive(fd, answer, 48);
        memcpy(request + 20, answer + 20, 4);
    }
    expect_hang_up(fd, request, sizeof(request));
}

/* Two questions at once would share the memory of the answer. */
static void two_questions_at_once_are_hung_up_on(void **state)
{
    struct bench *bench = *state;
    uint8_t requests[2][48 + 16] = {{0x44, 0x80}, {0x44, 0x80}};
    int fd = RAW_LOG_IN(bench, "");
    for (unsigned i = 0; i < 2; i++) {
        put_be24(requests[i] + 5, 13);
        put_be32(requests[i] + 16, i);
        put_be32(requests[i] + 20, ISCSI_TAG_NONE);
        memcpy(requests[i] + 48, "SendTargets=", 13);
    }
    expect_hang_up(fd, requests, sizeof(requests));
}

/* A mutated stream of a session, again and again: nothing breaks, everything comes back. */
static void mutated_sessions(void **state)
{
    struct bench *bench = *state;
    srandom(11);
    for (unsigned round = 0; round < 300; round++) {
        uint8_t stream[6 * 560] = {0};
        size_t size = 0;
        int fd = RAW_LOG_IN(bench, "InitialR2T=No\0ImmediateData=Yes\0");
        for (unsigned i = 0; i < 6; i++) {
            uint8_t *bhs = stream + size;
            put_write(bhs, i, 1 + i, random() % 2 ? 0xa0 : 0x20, 1024);
            put_be24(bhs + 5, 512);
            if (random() % 4 == 0)
                bhs[0] = (uint8_t)(random() % 7);
            if (random() % 3 == 0)
                bhs[random() % 48] = (uint8_t)random();
            size += 48 + 512;
        }
        send(fd, stream, size, MSG_NOSIGNAL);
        close(fd);
    }
    wait_until(bench, stats.sessions == 0 && stats.connections == 0 && stats.memory_bytes == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(garbage_is_hung_up_on),
        LAB_TEST(oversize_headers_are_hung_up_on),
        LAB_TEST(endless_login_text_is_hung_up_on),
        LAB_TEST(a_login_that_never_ends_is_ended),
        LAB_TEST(strangers_cannot_lock_others_out),
        LAB_TEST(a_login_does_not_chat),
        LAB_TEST(endless_text_is_hung_up_on),
        LAB_TEST(two_questions_at_once_are_hung_up_on),
        LAB_TEST(mutated_sessions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
