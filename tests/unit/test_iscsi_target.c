/* Reading and writing as initiators do, over loopback with libiscsi, on a volume in memory. */
#include "tests/unit/iscsi_lab.h"

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
    const struct CMUnitTest tests[] = {
        LAB_TEST(logs_in_and_asks),
        LAB_TEST(every_way_of_sending),
        LAB_TEST(reads_and_writes_ten),
        LAB_TEST(many_large_commands_share_little_memory),
        LAB_TEST(small_commands_in_any_order),
        LAB_TEST(listening_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
