/* An iSCSI target on a thread of its own with volumes in memory, and initiators to it: libiscsi, or raw sockets. For the
 * tests of the target. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/bytes.h"
#include "common/clock.h"
#include "storaged/iscsi/iscsi_pdu.h"
#include "storaged/iscsi/iscsi_target.h"
#include "tests/block/ram_lun.h"

#define VOLUME_BYTES (64u << 20)
#define MEMORY_BYTES (4u << 20) /* small, so that commands have to wait for it */
#define LOGIN_MS 1500u
#define STALL_MS 3000u /* long enough for a busy test machine not to meet it by chance */
#define MANY_LUNS 120u

/* --- the target, on a thread of its own ---------------------------------------------------------------------------- */

struct bench {
    struct ring *ring;
    struct iobuf_arena *arena;
    struct lun_table *table;
    struct iscsi_target *target;
    struct ram_lun ram, closed, secret;
    struct ram_lun many[MANY_LUNS]; /* only names, for discovery */
    pthread_t thread;
    struct ring_timer draining;
    char portal[64];
};

/* Runs a function on the ring's thread and waits for it. */
struct call {
    struct ring_mail mail;
    void (*function)(struct bench *bench, void *argument);
    struct bench *bench;
    void *argument;
    pthread_mutex_t mutex;
    pthread_cond_t done_condition;
    bool done;
};

static inline void call_run(struct ring_mail *mail)
{
    struct call *call = list_entry(mail, struct call, mail);
    call->function(call->bench, call->argument);
    pthread_mutex_lock(&call->mutex);
    call->done = true;
    pthread_cond_signal(&call->done_condition);
    pthread_mutex_unlock(&call->mutex);
}

static inline void call_ring(struct bench *bench, void (*function)(struct bench *, void *), void *argument)
{
    struct call call = {.mail.run = call_run, .function = function, .bench = bench, .argument = argument};
    pthread_mutex_init(&call.mutex, NULL);
    pthread_cond_init(&call.done_condition, NULL);
    ring_post(bench->ring, &call.mail);
    pthread_mutex_lock(&call.mutex);
    while (!call.done)
        pthread_cond_wait(&call.done_condition, &call.mutex);
    pthread_mutex_unlock(&call.mutex);
    pthread_mutex_destroy(&call.mutex);
    pthread_cond_destroy(&call.done_condition);
}

static inline void read_stats(struct bench *bench, void *argument)
{
    iscsi_target_get_stats(bench->target, argument);
}

static inline struct iscsi_target_stats stats_of(struct bench *bench)
{
    struct iscsi_target_stats stats;
    call_ring(bench, read_stats, &stats);
    return stats;
}

static inline void set_holds(struct bench *bench, void *argument)
{
    bench->ram.holds = argument != NULL;
    if (!argument)
        ram_lun_kick(&bench->ram);
}

static inline void *thread_main(void *argument)
{
    struct bench *bench = argument;
    ring_run(bench->ring);
    return NULL;
}

static inline void open_many_luns(struct bench *bench)
{
    for (unsigned i = 0; i < MANY_LUNS; i++) {
        struct lun *lun = &bench->many[i].lun;
        *lun = bench->ram.lun;
        snprintf(lun->name, sizeof(lun->name), "a-volume-with-a-rather-long-name-%03u", i);
        assert_int_equal(lun_table_add(bench->table, lun), 0);
    }
}

static inline int setup(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    struct iscsi_target_options options = {.port_group = 1, .memory_bytes = MEMORY_BYTES, .login_ms = LOGIN_MS, .stall_ms = STALL_MS};
    struct err err;
    assert_int_equal(ring_new(64, &bench->ring), 0);
    assert_int_equal(iobuf_arena_new(2 * MEMORY_BYTES, &bench->arena), 0);
    bench->table = lun_table_new();
    assert_int_equal(ram_lun_open(&bench->ram, bench->ring, "open", VOLUME_BYTES), 0);
    assert_int_equal(ram_lun_open(&bench->closed, bench->ring, "closed", 1 << 20), 0);
    assert_int_equal(ram_lun_open(&bench->secret, bench->ring, "secret", 1 << 20), 0);
    bench->closed.admission = -EACCES;
    strcpy(bench->secret.user, "guest");
    strcpy(bench->secret.secret, "not for everyone");
    strcpy(bench->secret.mutual_user, "target");
    strcpy(bench->secret.mutual_secret, "another secret");
    assert_int_equal(lun_table_add(bench->table, &bench->ram.lun), 0);
    assert_int_equal(lun_table_add(bench->table, &bench->closed.lun), 0);
    assert_int_equal(lun_table_add(bench->table, &bench->secret.lun), 0);
    assert_int_equal(lun_table_add(bench->table, &bench->ram.lun), -EEXIST);
    assert_int_equal(iscsi_target_new(bench->ring, bench->arena, bench->table, &options, &bench->target), 0);
    assert_int_equal(iscsi_target_listen(bench->target, "127.0.0.1:0", &err), 0);
    snprintf(bench->portal, sizeof(bench->portal), "127.0.0.1:%u", iscsi_target_port(bench->target, 0));
    pthread_create(&bench->thread, NULL, thread_main, bench);
    *state = bench;
    return 0;
}

static inline void look_whether_drained(struct ring_timer *timer)
{
    struct bench *bench = list_entry(timer, struct bench, draining);
    struct iscsi_target_stats stats;
    iscsi_target_get_stats(bench->target, &stats);
    if (stats.sessions || stats.connections)
        ring_timer_start(bench->ring, timer, 5);
    else
        ring_stop(bench->ring);
}

static inline void stop(struct bench *bench, void *argument)
{
    iscsi_target_stop(bench->target);
    bench->draining.expired = look_whether_drained;
    ring_timer_start(bench->ring, &bench->draining, 1);
}

/* Whatever a test did: everything comes back, nothing is left in the arena (which check()s that). */
static inline int teardown(void **state)
{
    struct bench *bench = *state;
    struct iscsi_target_stats stats;
    call_ring(bench, stop, NULL);
    pthread_join(bench->thread, NULL);
    iscsi_target_get_stats(bench->target, &stats);
    assert_int_equal(stats.memory_bytes, 0);
    iscsi_target_free(bench->target);
    for (struct lun *lun; (lun = lun_table_at(bench->table, 0));)
        lun_table_remove(bench->table, lun);
    ram_lun_close(&bench->ram);
    ram_lun_close(&bench->closed);
    ram_lun_close(&bench->secret);
    lun_table_free(bench->table);
    iobuf_arena_free(bench->arena);
    ring_free(bench->ring);
    free(bench);
    return 0;
}

/* Waits until the counter is as wanted; what a closed socket causes comes a little later. */
#define wait_until(bench, condition)                                                                                           \
    do {                                                                                                                       \
        struct iscsi_target_stats stats;                                                                                       \
        uint64_t deadline_ms = clock_boottime_ms() + 5000;                                                                     \
        while (stats = stats_of(bench), !(condition) && clock_boottime_ms() < deadline_ms)                                     \
            usleep(2000);                                                                                                      \
        assert_true(condition);                                                                                                \
    } while (0)

/* --- libiscsi as the initiator ---------------------------------------------------------------------------------------- */

static inline struct iscsi_context *new_context(const char *target)
{
    struct iscsi_context *context = iscsi_create_context("iqn.2026-01.io.hci:guest.test.1.a");
    char name[256];
    snprintf(name, sizeof(name), "%s%s", LUN_IQN_PREFIX, target);
    iscsi_set_targetname(context, name);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_timeout(context, 10);
    iscsi_set_isid_oui(context, 1, 1);
    return context;
}

static inline struct iscsi_context *log_in(struct bench *bench, const char *target)
{
    struct iscsi_context *context = new_context(target);
    if (iscsi_full_connect_sync(context, bench->portal, 0) != 0)
        fail_msg("login: %s", iscsi_get_error(context));
    return context;
}

static inline void log_out(struct iscsi_context *context)
{
    iscsi_logout_sync(context);
    iscsi_destroy_context(context);
}

static inline void finish(struct scsi_task *task)
{
    assert_non_null(task);
    assert_int_equal(task->status, SCSI_STATUS_GOOD);
    scsi_free_scsi_task(task);
}

static inline void fill(uint8_t *data, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 512 + seed);
}

static inline void write_and_read_back(struct iscsi_context *context, uint64_t sector, uint32_t size, unsigned seed)
{
    uint8_t *data = malloc(size);
    fill(data, size, seed);
    finish(iscsi_write16_sync(context, 0, sector, data, size, 512, 0, 0, 0, 0, 0));
    struct scsi_task *task = iscsi_read16_sync(context, 0, sector, size, 512, 0, 0, 0, 0, 0);
    assert_non_null(task);
    assert_int_equal(task->status, SCSI_STATUS_GOOD);
    assert_int_equal(task->datain.size, size);
    assert_memory_equal(task->datain.data, data, size);
    scsi_free_scsi_task(task);
    free(data);
}

/* --- many commands at once, by libiscsi ------------------------------------------------------------------------------ */

struct flight {
    unsigned pending, good, bad;
};

static inline void landed(struct iscsi_context *context, int status, void *data, void *userdata)
{
    struct flight *flight = userdata;
    flight->pending--;
    if (status == SCSI_STATUS_GOOD)
        flight->good++;
    else
        flight->bad++;
    scsi_free_scsi_task(data);
}

static inline void serve_until(struct iscsi_context *context, const unsigned *pending, unsigned most)
{
    uint64_t deadline_ms = clock_boottime_ms() + 20000;
    while (*pending > most && clock_boottime_ms() < deadline_ms) {
        struct pollfd poll_fd = {.fd = iscsi_get_fd(context), .events = (short)iscsi_which_events(context)};
        poll(&poll_fd, 1, 100);
        if (iscsi_service(context, poll_fd.revents) < 0)
            break;
    }
    assert_true(*pending <= most);
}

/* --- raw sockets --------------------------------------------------------------------------------------------------- */

static inline int open_socket(struct bench *bench)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strchr(bench->portal, ':') + 1))};
    struct timeval patience = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Sends and expects the target to hang up, whatever it says before. */
static inline void expect_hang_up(int fd, const void *data, size_t size)
{
    char byte[512];
    ssize_t r;
    send(fd, data, size, MSG_NOSIGNAL);
    while ((r = recv(fd, byte, sizeof(byte), 0)) > 0 || (r < 0 && errno == EINTR))
        ;
    assert_true(r == 0 || errno == ECONNRESET);
    close(fd);
}

static inline void receive(int fd, void *data, size_t size)
{
    for (size_t got = 0; got < size;) { /* the kernel's work for the ring interrupts calls of this thread */
        ssize_t r = recv(fd, (uint8_t *)data + got, size - got, 0);
        assert_true(r > 0 || (r < 0 && errno == EINTR));
        got += r > 0 ? (size_t)r : 0;
    }
}

/* One login request with these keys; `flags` are the header's second byte. */
static inline void raw_send_login(int fd, uint8_t flags, const void *keys, size_t size)
{
    uint8_t request[48 + 1024] = {0x43, flags};
    put_be24(request + 5, (uint32_t)size);
    request[8] = 0x40;
    put_be32(request + 24, 1); /* CmdSN */
    memcpy(request + 48, keys, size);
    assert_int_equal(send(fd, request, 48 + ((size + 3) & ~3u), 0), 48 + ((size + 3) & ~3u));
}

/* The text of the answer, and the status. */
static inline unsigned raw_receive_login(int fd, uint8_t header[static 48], char text[static 1024])
{
    memset(text, 0, 1024);
    receive(fd, header, 48);
    assert_int_equal(header[0], 0x23);
    assert_in_range(be24_at(header + 5), 0, 1020);
    receive(fd, text, (be24_at(header + 5) + 3) & ~3u);
    return be16_at(header + 36);
}

/* Logs in with these keys; returns the socket. */
static inline int raw_log_in(struct bench *bench, const char *keys, size_t size)
{
    uint8_t header[48];
    char text[1024];
    int fd = open_socket(bench);
    raw_send_login(fd, 0x87, keys, size);
    assert_int_equal(raw_receive_login(fd, header, text), 0);
    return fd;
}

/* What the answer says of the key; NULL: nothing. */
static inline const char *raw_value(const uint8_t header[static 48], const char *text, const char *key)
{
    for (const char *at = text; at < text + be24_at(header + 5); at += strlen(at) + 1)
        if (strncmp(at, key, strlen(key)) == 0 && at[strlen(key)] == '=')
            return at + strlen(key) + 1;
    return NULL;
}
#define RAW_NAMES "InitiatorName=iqn.raw\0TargetName=iqn.2026-01.io.hci:open\0SessionType=Normal\0"
#define RAW_LOG_IN(bench, keys) raw_log_in(bench, RAW_NAMES keys, sizeof(RAW_NAMES keys) - 1)

static inline void put_write(uint8_t *bhs, uint32_t tag, uint32_t command_sn, uint8_t flags, uint32_t expected)
{
    bhs[0] = 0x01;
    bhs[1] = flags;
    put_be32(bhs + 16, tag);
    put_be32(bhs + 20, expected);
    put_be32(bhs + 24, command_sn);
    bhs[32] = 0x2a;
    put_be16(bhs + 32 + 7, (uint16_t)(expected / 512));
}

/* The first SCSI command is answered with POWER ON; TEST UNIT READY takes that. */
static inline void raw_take_attention(int fd)
{
    uint8_t request[48] = {0x01, 0x80}, answer[48], sense[20];
    put_be32(request + 24, 1);
    assert_int_equal(send(fd, request, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[3], SCSI_STATUS_CHECK_CONDITION);
    receive(fd, sense, 20);
}

#define LAB_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
