/* The iSCSI target as initiators meet it: over loopback, with libiscsi and with raw sockets, on a volume in memory. */
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
#include "storaged/iscsi_pdu.h"
#include "storaged/iscsi_target.h"
#include "tests/block/ram_lun.h"

#define VOLUME_BYTES (64u << 20)
#define MEMORY_BYTES (4u << 20) /* small, so that commands have to wait for it */
#define LOGIN_MS 1500u
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

static void call_run(struct ring_mail *mail)
{
    struct call *call = list_entry(mail, struct call, mail);
    call->function(call->bench, call->argument);
    pthread_mutex_lock(&call->mutex);
    call->done = true;
    pthread_cond_signal(&call->done_condition);
    pthread_mutex_unlock(&call->mutex);
}

static void call_ring(struct bench *bench, void (*function)(struct bench *, void *), void *argument)
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

static void read_stats(struct bench *bench, void *argument)
{
    iscsi_target_get_stats(bench->target, argument);
}

static struct iscsi_target_stats stats_of(struct bench *bench)
{
    struct iscsi_target_stats stats;
    call_ring(bench, read_stats, &stats);
    return stats;
}

static void set_holds(struct bench *bench, void *argument)
{
    bench->ram.holds = argument != NULL;
    if (!argument)
        ram_lun_kick(&bench->ram);
}

static void *thread_main(void *argument)
{
    struct bench *bench = argument;
    ring_run(bench->ring);
    return NULL;
}

static void open_many_luns(struct bench *bench)
{
    for (unsigned i = 0; i < MANY_LUNS; i++) {
        struct lun *lun = &bench->many[i].lun;
        *lun = bench->ram.lun;
        snprintf(lun->name, sizeof(lun->name), "a-volume-with-a-rather-long-name-%03u", i);
        assert_int_equal(lun_table_add(bench->table, lun), 0);
    }
}

static int setup(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    struct iscsi_target_options options = {.port_group = 1, .memory_bytes = MEMORY_BYTES, .login_ms = LOGIN_MS};
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

static void look_whether_drained(struct ring_timer *timer)
{
    struct bench *bench = list_entry(timer, struct bench, draining);
    struct iscsi_target_stats stats;
    iscsi_target_get_stats(bench->target, &stats);
    if (stats.sessions || stats.connections)
        ring_timer_start(bench->ring, timer, 5);
    else
        ring_stop(bench->ring);
}

static void stop(struct bench *bench, void *argument)
{
    iscsi_target_stop(bench->target);
    bench->draining.expired = look_whether_drained;
    ring_timer_start(bench->ring, &bench->draining, 1);
}

/* Whatever a test did: everything comes back, nothing is left in the arena (which check()s that). */
static int teardown(void **state)
{
    struct bench *bench = *state;
    struct iscsi_target_stats stats;
    call_ring(bench, stop, NULL);
    pthread_join(bench->thread, NULL);
    iscsi_target_get_stats(bench->target, &stats);
    assert_int_equal(stats.memory_bytes, 0);
    iscsi_target_free(bench->target);
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

static struct iscsi_context *new_context(const char *target)
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

static struct iscsi_context *log_in(struct bench *bench, const char *target)
{
    struct iscsi_context *context = new_context(target);
    if (iscsi_full_connect_sync(context, bench->portal, 0) != 0)
        fail_msg("login: %s", iscsi_get_error(context));
    return context;
}

static void log_out(struct iscsi_context *context)
{
    iscsi_logout_sync(context);
    iscsi_destroy_context(context);
}

static void finish(struct scsi_task *task)
{
    assert_non_null(task);
    assert_int_equal(task->status, SCSI_STATUS_GOOD);
    scsi_free_scsi_task(task);
}

static void fill(uint8_t *data, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 512 + seed);
}

static void write_and_read_back(struct iscsi_context *context, uint64_t sector, uint32_t size, unsigned seed)
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
    }
    assert_int_equal(count, MANY_LUNS + 2);
    iscsi_free_discovery_data(context, list);
    log_out(context);
}

static void logs_in_and_asks(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *context = log_in(bench, "open");
    struct scsi_task *task = iscsi_inquiry_sync(context, 0, 0, 0, 255);
    struct scsi_inquiry_standard *inquiry = scsi_datain_unmarshall(task);
    assert_string_equal(inquiry->vendor_identification, "HCI     ");
    finish(task);
    task = iscsi_inquiry_sync(context, 0, 1, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, 255);
    struct scsi_inquiry_block_limits *limits = scsi_datain_unmarshall(task);
    assert_int_equal(limits->max_xfer_len, 2048);
    finish(task);
    task = iscsi_readcapacity16_sync(context, 0);
    struct scsi_readcapacity16 *capacity = scsi_datain_unmarshall(task);
    assert_int_equal(capacity->returned_lba, VOLUME_BYTES / 512 - 1);
    finish(task);
    task = iscsi_reportluns_sync(context, 0, 64);
    struct scsi_reportluns_list *luns = scsi_datain_unmarshall(task);
    assert_int_equal(luns->num, 1);
    finish(task);
    log_out(context);
    wait_until(bench, stats.sessions == 0 && stats.connections == 0);
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

/* Mutual CHAP is refused, not half done. */
static void refuses_mutual_chap(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *context = new_context("secret");
    iscsi_set_initiator_username_pwd(context, "guest", "not for everyone");
    iscsi_set_target_username_pwd(context, "target", "another secret");
    assert_int_not_equal(iscsi_full_connect_sync(context, bench->portal, 0), 0);
    iscsi_destroy_context(context);
}

static void every_way_of_sending(void **state)
{
    struct bench *bench = *state;
    for (unsigned way = 0; way < 8; way++) {
        struct iscsi_context *context = new_context("open");
        iscsi_set_header_digest(context, way & 1 ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
        iscsi_set_immediate_data(context, way & 2 ? ISCSI_IMMEDIATE_DATA_YES : ISCSI_IMMEDIATE_DATA_NO);
        iscsi_set_initial_r2t(context, way & 4 ? ISCSI_INITIAL_R2T_YES : ISCSI_INITIAL_R2T_NO);
        assert_int_equal(iscsi_full_connect_sync(context, bench->portal, 0), 0);
        for (uint32_t size = 512; size <= 1u << 20; size *= 2)
            write_and_read_back(context, way * 1000 + 1, size, way);
        write_and_read_back(context, 77, 3 * 512, way);
        log_out(context);
    }
}

static void reads_and_writes_ten(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *context = log_in(bench, "open");
    uint8_t data[4096];
    fill(data, sizeof(data), 5);
    finish(iscsi_write10_sync(context, 0, 8, data, sizeof(data), 512, 0, 0, 1, 0, 0));
    finish(iscsi_synchronizecache10_sync(context, 0, 0, 0, 0, 0));
    struct scsi_task *task = iscsi_read10_sync(context, 0, 8, sizeof(data), 512, 0, 0, 0, 0, 0);
    assert_memory_equal(task->datain.data, data, sizeof(data));
    finish(task);
    struct unmap_list list = {.lba = 8, .num = 4};
    finish(iscsi_unmap_sync(context, 0, 0, 0, &list, 1));
    task = iscsi_read10_sync(context, 0, 8, sizeof(data), 512, 0, 0, 0, 0, 0);
    memset(data, 0, 2048);
    assert_memory_equal(task->datain.data, data, sizeof(data));
    finish(task);
    task = iscsi_read10_sync(context, 0, VOLUME_BYTES / 512, 512, 512, 0, 0, 0, 0, 0);
    assert_int_equal(task->status, SCSI_STATUS_CHECK_CONDITION);
    assert_int_equal(task->sense.ascq, SCSI_SENSE_ASCQ_LBA_OUT_OF_RANGE);
    scsi_free_scsi_task(task);
    log_out(context);
}

/* --- many commands at once ---------------------------------------------------------------------------------------------- */

struct flight {
    unsigned pending, good, bad;
};

static void landed(struct iscsi_context *context, int status, void *data, void *userdata)
{
    struct flight *flight = userdata;
    flight->pending--;
    if (status == SCSI_STATUS_GOOD)
        flight->good++;
    else
        flight->bad++;
    scsi_free_scsi_task(data);
}

static void serve_until(struct iscsi_context *context, const unsigned *pending, unsigned most)
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

/* 512 KiB each: far more than the target's memory. Nothing fails, nothing gets stuck, the bound holds. */
static void many_large_commands_share_little_memory(void **state)
{
    struct bench *bench = *state;
    enum { COUNT = 100, SIZE = 512 * 1024 };
    for (int way = 0; way < 2; way++) {
        struct iscsi_context *context = new_context("open");
        struct flight flight = {0};
        uint8_t *data = malloc(SIZE);
        fill(data, SIZE, (unsigned)way);
        iscsi_set_immediate_data(context, way ? ISCSI_IMMEDIATE_DATA_YES : ISCSI_IMMEDIATE_DATA_NO);
        iscsi_set_initial_r2t(context, way ? ISCSI_INITIAL_R2T_NO : ISCSI_INITIAL_R2T_YES);
        assert_int_equal(iscsi_full_connect_sync(context, bench->portal, 0), 0);
        for (unsigned i = 0; i < COUNT; i++) {
            assert_non_null(iscsi_write16_task(context, 0, i * 1024, data, SIZE, 512, 0, 0, 0, 0, 0, landed, &flight));
            flight.pending++;
        }
        serve_until(context, &flight.pending, 0);
        /* With data sent unasked, a full target may answer TASK SET FULL, which initiators send again. */
        if (way == 0)
            assert_int_equal(flight.good, COUNT);
        assert_int_equal(flight.good + flight.bad, COUNT);
        assert_true(flight.good > 0);
        assert_memory_equal(bench->ram.memory, data, SIZE);
        log_out(context);
        free(data);
    }
    assert_true(stats_of(bench).memory_waits > 0);
}

static void small_commands_in_any_order(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *context = log_in(bench, "open");
    struct flight flight = {0};
    uint8_t data[4096];
    bench->ram.backwards = true;
    for (unsigned i = 0; i < 5000; i++) {
        fill(data, sizeof(data), i);
        if (i % 2)
            assert_non_null(iscsi_write10_task(context, 0, i % 500 * 8, data, sizeof(data), 512, 0, 0, 0, 0, 0, landed, &flight));
        else
            assert_non_null(iscsi_read10_task(context, 0, i % 500 * 8, sizeof(data), 512, 0, 0, 0, 0, 0, landed, &flight));
        flight.pending++;
        serve_until(context, &flight.pending, 300); /* more than the window */
    }
    serve_until(context, &flight.pending, 0);
    assert_int_equal(flight.good, 5000);
    log_out(context);
}

/* --- losing, coming back, aborting ----------------------------------------------------------------------------------------- */

static void the_same_nexus_waits_for_draining(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *first = log_in(bench, "open"), *second;
    struct flight flight = {0};
    uint8_t data[4096] = {1};
    call_ring(bench, set_holds, bench);
    assert_non_null(iscsi_write10_task(first, 0, 0, data, sizeof(data), 512, 0, 0, 0, 0, 0, landed, &flight));
    flight.pending++;
    while (iscsi_out_queue_length(first) > 0)
        iscsi_service(first, POLLOUT);
    wait_until(bench, stats.commands > 0 && stats.memory_bytes > 0);
    second = new_context("open"); /* same initiator name and ISID */
    assert_int_equal(iscsi_connect_sync(second, bench->portal), 0);
    assert_int_equal(iscsi_login_sync(second), 0);
    assert_int_equal(bench->ram.drops, 1);
    assert_int_equal(stats_of(bench).sessions, 1);
    call_ring(bench, set_holds, NULL);
    assert_int_equal(bench->ram.memory[0], 0); /* the lost nexus' write is not carried out afterwards */
    log_out(second);
    iscsi_destroy_context(first);
}

static void tmf_done(struct iscsi_context *context, int status, void *data, void *userdata)
{
    unsigned *response = userdata;
    *response = data ? *(uint32_t *)data : 99;
}

/* The answer to a reset comes only when the write it aborted is out of the group's hands. */
static void aborting_waits_for_draining(void **state)
{
    struct bench *bench = *state;
    static const enum iscsi_task_mgmt_funcs functions[] = {ISCSI_TM_ABORT_TASK, ISCSI_TM_ABORT_TASK_SET, ISCSI_TM_LUN_RESET,
                                                           ISCSI_TM_TARGET_WARM_RESET};
    for (unsigned i = 0; i < 4; i++) {
        struct iscsi_context *context = log_in(bench, "open");
        struct flight flight = {0};
        uint8_t data[4096] = {1};
        unsigned response = 77;
        call_ring(bench, set_holds, bench);
        struct scsi_task *task = iscsi_write10_task(context, 0, 0, data, sizeof(data), 512, 0, 0, 0, 0, 0, landed, &flight);
        while (iscsi_out_queue_length(context) > 0) /* libiscsi sends what is immediate first */
            assert_int_equal(iscsi_service(context, POLLOUT), 0);
        assert_int_equal(iscsi_task_mgmt_async(context, 0, functions[i], task->itt, task->cmdsn, tmf_done, &response), 0);
        for (int turn = 0; turn < 20; turn++) {
            struct pollfd poll_fd = {.fd = iscsi_get_fd(context), .events = (short)iscsi_which_events(context)};
            poll(&poll_fd, 1, 10);
            assert_int_equal(iscsi_service(context, poll_fd.revents), 0);
        }
        assert_int_equal(response, 77);
        call_ring(bench, set_holds, NULL);
        for (int turn = 0; turn < 200 && response == 77; turn++) {
            struct pollfd poll_fd = {.fd = iscsi_get_fd(context), .events = (short)iscsi_which_events(context)};
            poll(&poll_fd, 1, 10);
            assert_int_equal(iscsi_service(context, poll_fd.revents), 0);
        }
        assert_int_equal(response, 0);
        assert_int_equal(flight.good + flight.bad, 0); /* no answer to an aborted command */
        if (functions[i] == ISCSI_TM_LUN_RESET || functions[i] == ISCSI_TM_TARGET_WARM_RESET) {
            struct scsi_task *ready = iscsi_testunitready_sync(context, 0);
            assert_int_equal(ready->sense.key, SCSI_SENSE_UNIT_ATTENTION);
            scsi_free_scsi_task(ready);
        }
        finish(iscsi_testunitready_sync(context, 0));
        iscsi_scsi_cancel_task(context, task);
        log_out(context);
    }
}

static void expel(struct bench *bench, void *argument)
{
    lun_expel(&bench->ram.lun, NULL, "the test wants it");
}

static void the_group_can_close_a_nexus(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *context = log_in(bench, "open");
    call_ring(bench, expel, NULL);
    wait_until(bench, stats.sessions == 0);
    iscsi_destroy_context(context);
    context = log_in(bench, "open");
    log_out(context);
}

/* --- strangers -------------------------------------------------------------------------------------------------------------- */

static int open_socket(struct bench *bench)
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
static void expect_hang_up(int fd, const void *data, size_t size)
{
    char byte[512];
    ssize_t r;
    send(fd, data, size, MSG_NOSIGNAL);
    while ((r = recv(fd, byte, sizeof(byte), 0)) > 0 || (r < 0 && errno == EINTR))
        ;
    assert_true(r == 0 || errno == ECONNRESET);
    close(fd);
}

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

/* Strangers fill the table: the oldest goes, and who has something to say still gets in. */
static void strangers_cannot_lock_others_out(void **state)
{
    struct bench *bench = *state;
    int fds[100];
    for (unsigned i = 0; i < 100; i++)
        fds[i] = open_socket(bench);
    struct iscsi_context *context = log_in(bench, "open");
    assert_true(stats_of(bench).unauthenticated <= ISCSI_UNAUTHENTICATED_MAX);
    log_out(context);
    for (unsigned i = 0; i < 100; i++)
        close(fds[i]);
}

/* --- raw full feature phase ------------------------------------------------------------------------------------------------- */

static void receive(int fd, void *data, size_t size)
{
    for (size_t got = 0; got < size;) { /* the kernel's work for the ring interrupts calls of this thread */
        ssize_t r = recv(fd, (uint8_t *)data + got, size - got, 0);
        assert_true(r > 0 || (r < 0 && errno == EINTR));
        got += r > 0 ? (size_t)r : 0;
    }
}

/* Logs in with these keys; returns the socket. */
static int raw_log_in(struct bench *bench, const char *keys, size_t size)
{
    uint8_t request[48 + 1024] = {0x43, 0x87}, response[48], text[1024];
    int fd = open_socket(bench);
    put_be24(request + 5, (uint32_t)size);
    request[8] = 0x40;
    put_be32(request + 24, 1); /* CmdSN */
    memcpy(request + 48, keys, size);
    assert_int_equal(send(fd, request, 48 + ((size + 3) & ~3u), 0), 48 + ((size + 3) & ~3u));
    receive(fd, response, 48);
    assert_int_equal(response[0], 0x23);
    assert_int_equal(be16_at(response + 36), 0);
    receive(fd, text, (be24_at(response + 5) + 3) & ~3u);
    return fd;
}
#define RAW_NAMES "InitiatorName=iqn.raw\0TargetName=iqn.2026-01.io.hci:open\0SessionType=Normal\0"
#define RAW_LOG_IN(bench, keys) raw_log_in(bench, RAW_NAMES keys, sizeof(RAW_NAMES keys) - 1)

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
    assert_int_equal(names, MANY_LUNS + 2);
    assert_true(parts > 1);
    close(fd);
}

/* NOP-Out with data and both digests, split into single bytes: the digests of the answer are right. */
static void both_digests_and_single_bytes(void **state)
{
    struct bench *bench = *state;
    uint8_t request[48 + 4 + 8 + 4] = {0x40, 0x80}, answer[64];
    int fd = RAW_LOG_IN(bench, "HeaderDigest=CRC32C\0DataDigest=CRC32C\0");
    put_be24(request + 5, 5);
    put_be32(request + 16, 0x1234);
    put_be32(request + 20, ISCSI_TAG_NONE);
    put_be32(request + 24, 1);
    memcpy(request + 52, "hello", 5);
    iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), request, 48), request + 48);
    iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), request + 52, 8), request + 60);
    for (size_t i = 0; i < sizeof(request); i++)
        assert_int_equal(send(fd, request + i, 1, 0), 1);
    receive(fd, answer, 64);
    assert_int_equal(answer[0], 0x20);
    assert_int_equal(be24_at(answer + 5), 5);
    assert_true(iscsi_digest_matches(iscsi_digest_add(iscsi_digest_begin(), answer, 48), answer + 48));
    assert_memory_equal(answer + 52, "hello\0\0\0", 8);
    assert_true(iscsi_digest_matches(iscsi_digest_add(iscsi_digest_begin(), answer + 52, 8), answer + 60));
    request[61] ^= 1; /* a wrong data digest ends the connection: error recovery level 0 */
    expect_hang_up(fd, request, sizeof(request));
}

static void put_write(uint8_t *bhs, uint32_t tag, uint32_t command_sn, uint8_t flags, uint32_t expected)
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
static void raw_take_attention(int fd)
{
    uint8_t request[48] = {0x01, 0x80}, answer[48], sense[20];
    put_be32(request + 24, 1);
    assert_int_equal(send(fd, request, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[3], SCSI_STATUS_CHECK_CONDITION);
    receive(fd, sense, 20);
}

static void data_out_must_be_what_was_asked_for(void **state)
{
    struct bench *bench = *state;
    /* What is wrong: DataSN, offset, transfer tag, too much, final bit too early. */
    for (unsigned wrong = 0; wrong < 6; wrong++) {
        uint8_t write[48] = {0}, data[48 + 1536] = {0x05, 0x80}, r2t[48];
        int fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=No\0");
        raw_take_attention(fd);
        put_write(write, 5, 2, 0xa0, 1024);
        assert_int_equal(send(fd, write, 48, 0), 48);
        receive(fd, r2t, 48);
        assert_int_equal(r2t[0], 0x31);
        assert_int_equal(be32_at(r2t + 44), 1024);
        put_be24(data + 5, wrong == 4 ? 1536 : wrong == 5 ? 512 : 1024);
        put_be32(data + 16, 5);
        put_be32(data + 20, be32_at(r2t + 20) + (wrong == 3));
        put_be32(data + 36, wrong == 1);
        put_be32(data + 40, wrong == 2 ? 512 : 0);
        if (wrong == 0) {
            assert_int_equal(send(fd, data, 48 + 1024, 0), 48 + 1024);
            receive(fd, r2t, 48);
            assert_int_equal(r2t[0], 0x21);
            assert_int_equal(r2t[3], SCSI_STATUS_GOOD);
            close(fd);
        } else {
            expect_hang_up(fd, data, 48 + be24_at(data + 5));
        }
    }
    wait_until(bench, stats.sessions == 0 && stats.memory_bytes == 0);
}

static void unasked_data_must_have_been_agreed_on(void **state)
{
    struct bench *bench = *state;
    uint8_t write[48 + 512] = {0};
    int fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=No\0");
    raw_take_attention(fd);
    put_write(write, 5, 2, 0xa0, 512);
    put_be24(write + 5, 512);
    expect_hang_up(fd, write, sizeof(write));
    fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=Yes\0FirstBurstLength=512\0");
    raw_take_attention(fd);
    put_write(write, 5, 2, 0x20, 512); /* not final: more would come */
    put_be24(write + 5, 0);
    expect_hang_up(fd, write, 48);
}

/* RFC 7143 §4.2.2.1: what lies outside the window is ignored; what leaves a gap breaks the protocol. */
static void command_numbers_are_kept(void **state)
{
    struct bench *bench = *state;
    uint8_t ready[48] = {0x01, 0x80}, answer[48];
    int fd = RAW_LOG_IN(bench, "");
    raw_take_attention(fd);
    put_be32(ready + 16, 7);
    put_be32(ready + 24, 2 + 500);
    assert_int_equal(send(fd, ready, 48, 0), 48);
    put_be32(ready + 24, 1);
    assert_int_equal(send(fd, ready, 48, 0), 48);
    put_be32(ready + 24, 2);
    assert_int_equal(send(fd, ready, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x21);
    assert_int_equal(be32_at(answer + 28), 3);       /* ExpCmdSN: one was taken */
    assert_int_equal(be32_at(answer + 32), 3 + 127); /* MaxCmdSN */
    put_be32(ready + 24, 5);
    expect_hang_up(fd, ready, 48);
}

static void unknown_requests_are_rejected(void **state)
{
    struct bench *bench = *state;
    uint8_t snack[48] = {0x10, 0x80}, answer[96], command[48 + 1020] = {0x01, 0x80, 0, 0, 255};
    int fd = RAW_LOG_IN(bench, "");
    assert_int_equal(send(fd, snack, 48, 0), 48);
    receive(fd, answer, 96);
    assert_int_equal(answer[0], 0x3f);
    assert_memory_equal(answer + 48, snack, 48);
    put_be32(command + 24, 1);
    assert_int_equal(send(fd, command, sizeof(command), 0), sizeof(command)); /* the largest additional header */
    receive(fd, answer, 96);
    assert_int_equal(answer[0], 0x3f);
    close(fd);
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

static void listening_can_fail(void **state)
{
    struct bench *bench = *state;
    static const char *const bad[] = {"127.0.0.1", "127.0.0.1:", "127.0.0.1:66000", "localhost:3260", "[::1:3260", "::1:3260", ":1", "[]:1"};
    struct err err;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(iscsi_target_listen(bench->target, bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i]));
    }
    assert_int_equal(iscsi_target_listen(bench->target, bench->portal, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, bench->portal));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(discovers), TEST(discovers_in_parts), TEST(logs_in_and_asks), TEST(refuses_who_may_not), TEST(asks_for_the_secret), TEST(refuses_mutual_chap),
        TEST(every_way_of_sending), TEST(reads_and_writes_ten), TEST(many_large_commands_share_little_memory),
        TEST(small_commands_in_any_order), TEST(the_same_nexus_waits_for_draining), TEST(aborting_waits_for_draining),
        TEST(the_group_can_close_a_nexus), TEST(garbage_is_hung_up_on), TEST(oversize_headers_are_hung_up_on),
        TEST(endless_login_text_is_hung_up_on), TEST(a_login_that_never_ends_is_ended), TEST(strangers_cannot_lock_others_out),
        TEST(both_digests_and_single_bytes), TEST(data_out_must_be_what_was_asked_for), TEST(unasked_data_must_have_been_agreed_on),
        TEST(command_numbers_are_kept), TEST(unknown_requests_are_rejected), TEST(mutated_sessions), TEST(listening_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
