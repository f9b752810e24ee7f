/* Tasks that are aborted, sessions that are lost, taken up again or ended. */
#include "tests/unit/iscsi_lab.h"

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

/* One that ends at once must not answer for one that does not: a command that waits for its data, and one that is with
 * the volume. */
static void aborting_waits_for_the_last(void **state)
{
    struct bench *bench = *state;
    int fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=Yes\0");
    uint8_t begun[48] = {0}, whole[48 + 512] = {0}, reset[48] = {0}, ping[48] = {0}, answer[48];
    raw_take_attention(fd);
    uint64_t before = stats_of(bench).commands;
    call_ring(bench, set_holds, bench);
    put_write(begun, 2, 2, 0xa0, 512);
    assert_int_equal(send(fd, begun, sizeof(begun), 0), sizeof(begun));
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x31);
    put_write(whole, 3, 3, 0xa0, 512);
    whole[6] = 2; /* its data comes along */
    assert_int_equal(send(fd, whole, sizeof(whole), 0), sizeof(whole));
    wait_until(bench, stats.commands > before);
    reset[0] = 0x42;
    reset[1] = 0x80 | 5; /* LOGICAL UNIT RESET */
    put_be32(reset + 16, 77);
    put_be32(reset + 20, UINT32_MAX);
    put_be32(reset + 24, 4);
    ping[0] = 0x40;
    ping[1] = 0x80;
    put_be32(ping + 16, 78);
    put_be32(ping + 20, UINT32_MAX);
    put_be32(ping + 24, 4);
    assert_int_equal(send(fd, reset, 48, 0), 48);
    assert_int_equal(send(fd, ping, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x20); /* the ping's, which came after */
    call_ring(bench, set_holds, NULL);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x22);
    assert_int_equal(answer[2], 0);
    close(fd);
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

/* --- byte by byte ------------------------------------------------------------------------------------------------------ */

/* An immediate task management request and its answer's response code; the answer's header is left in `answer`. */
static unsigned manage(int fd, unsigned function, uint32_t command_sn, uint32_t tag, uint32_t referenced_sn, uint8_t lun,
                       uint8_t answer[static 48])
{
    uint8_t request[48] = {0x42, (uint8_t)(0x80 | function)};
    request[9] = lun;
    put_be32(request + 16, 0x77000000 + command_sn);
    put_be32(request + 20, tag);
    put_be32(request + 24, command_sn);
    put_be32(request + 32, referenced_sn);
    assert_int_equal(send(fd, request, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x22);
    return answer[2];
}

/* TEST UNIT READY; its answer must be the next PDU. Returns ExpCmdSN. */
static uint32_t ask_ready(int fd, uint32_t command_sn)
{
    uint8_t request[48] = {0x01, 0x80}, answer[48];
    put_be32(request + 16, command_sn);
    put_be32(request + 24, command_sn);
    assert_int_equal(send(fd, request, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x21);
    assert_int_equal(be32_at(answer + 16), command_sn);
    return be32_at(answer + 28);
}

/* RFC 7143 §11.6.1: a command that is aborted before it came counts as received, and is ignored when it comes. */
static void a_command_is_aborted_before_it_comes(void **state)
{
    struct bench *bench = *state;
    uint8_t answer[48], late[48] = {0x01, 0x80};
    int fd = RAW_LOG_IN(bench, "");
    raw_take_attention(fd);
    assert_int_equal(manage(fd, 1, 2, 99, 1, 0, answer), 1);   /* answered already: unknown */
    assert_int_equal(manage(fd, 1, 2, 99, 2, 0, answer), 1);   /* not sent before the request: unknown */
    assert_int_equal(manage(fd, 1, 3, 99, 500, 0, answer), 1); /* outside the window */
    assert_int_equal(manage(fd, 1, 3, 99, 2, 0, answer), 0);
    assert_int_equal(be32_at(answer + 28), 3);
    assert_int_equal(manage(fd, 1, 6, 99, 4, 0, answer), 0);
    assert_int_equal(manage(fd, 1, 6, 99, 5, 0, answer), 0);
    assert_int_equal(be32_at(answer + 28), 3); /* 3 itself is still to come */
    for (uint32_t number = 2; number <= 5; number += number == 2 ? 2 : 1) {
        put_be32(late + 24, number);
        assert_int_equal(send(fd, late, 48, 0), 48);
    }
    assert_int_equal(ask_ready(fd, 3), 6);
    assert_int_equal(ask_ready(fd, 6), 7);
    close(fd);
}

static void what_cannot_be_managed_is_said(void **state)
{
    struct bench *bench = *state;
    uint8_t answer[48];
    int fd = RAW_LOG_IN(bench, "");
    raw_take_attention(fd);
    assert_int_equal(manage(fd, 2, 2, ISCSI_TAG_NONE, 0, 1, answer), 2); /* no such unit */
    assert_int_equal(manage(fd, 3, 2, ISCSI_TAG_NONE, 0, 0, answer), 5); /* CLEAR ACA */
    assert_int_equal(manage(fd, 8, 2, 1, 0, 0, answer), 4);              /* TASK REASSIGN */
    assert_int_equal(manage(fd, 9, 2, 1, 0, 0, answer), 5);
    assert_int_equal(ask_ready(fd, 2), 3);
    close(fd);
}

/* RFC 7143 §11.5.1: answered, then every session at the target is gone. */
static void a_cold_reset_ends_all_sessions(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *other = log_in(bench, "open");
    uint8_t answer[48];
    int fd = RAW_LOG_IN(bench, "");
    raw_take_attention(fd);
    assert_int_equal(manage(fd, 7, 2, ISCSI_TAG_NONE, 0, 0, answer), 0);
    expect_hang_up(fd, "", 0);
    wait_until(bench, stats.sessions == 0);
    iscsi_destroy_context(other);
}

/* Returns the response; RFC 7143 §11.15.1. */
static unsigned raw_log_out(int fd, unsigned reason, uint16_t connection, uint32_t command_sn)
{
    uint8_t request[48] = {0x46, (uint8_t)(0x80 | reason)}, answer[48];
    put_be16(request + 20, connection);
    put_be32(request + 24, command_sn);
    assert_int_equal(send(fd, request, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x26);
    return answer[2];
}

static void logging_out_for_every_reason(void **state)
{
    struct bench *bench = *state;
    for (unsigned reason = 0; reason < 2; reason++) {
        int fd = RAW_LOG_IN(bench, "");
        raw_take_attention(fd);
        assert_int_equal(raw_log_out(fd, 1, 5, 2), 1); /* no such connection */
        assert_int_equal(raw_log_out(fd, 2, 0, 2), 2); /* recovery is not done at level 0 */
        assert_int_equal(ask_ready(fd, 2), 3);
        assert_int_equal(raw_log_out(fd, reason, 0, 3), 0);
        expect_hang_up(fd, "", 0);
    }
    uint8_t request[48] = {0x46, 0x83};
    expect_hang_up(RAW_LOG_IN(bench, ""), request, 48); /* a reason that is none */
}

/* A command that is held is not answered after the logout's answer, and its effect is not seen either. */
static void logging_out_ends_what_is_under_way(void **state)
{
    struct bench *bench = *state;
    uint8_t read[48] = {0x01, 0xc0};
    int fd = RAW_LOG_IN(bench, "");
    raw_take_attention(fd);
    call_ring(bench, set_holds, bench);
    put_be32(read + 16, 5);
    put_be32(read + 20, 512);
    put_be32(read + 24, 2);
    read[32] = 0x28;
    read[40] = 1;
    assert_int_equal(send(fd, read, 48, 0), 48);
    assert_int_equal(raw_log_out(fd, 0, 0, 3), 0);
    expect_hang_up(fd, "", 0);
    call_ring(bench, set_holds, NULL);
    wait_until(bench, stats.sessions == 0 && stats.memory_bytes == 0);
}

/* One that holds a megabyte for data that never comes. */
static void take_a_megabyte(int fd, uint32_t command_sn)
{
    uint8_t write[48] = {0}, r2t[48];
    put_write(write, command_sn, command_sn, 0xa0, 1u << 20);
    assert_int_equal(send(fd, write, 48, 0), 48);
    receive(fd, r2t, 48);
    assert_int_equal(r2t[0], 0x31);
}

/* Writes that take all the memory and never bring their data: who does not move has to go when others wait for it. */
static void who_stands_still_does_not_keep_memory_from_others(void **state)
{
    struct bench *bench = *state;
    int fds[3];
    for (int i = 0; i < 3; i++) {
        char keys[128];
        snprintf(keys, sizeof(keys), "InitiatorName=iqn.raw.%d%cTargetName=iqn.2026-01.io.hci:open%cInitialR2T=Yes", i, 0, 0);
        fds[i] = raw_log_in(bench, keys, 74);
        raw_take_attention(fds[i]);
        take_a_megabyte(fds[i], 2);
        if (i == 0)
            take_a_megabyte(fds[i], 3); /* half of all there is, while it is alone */
    }
    assert_int_equal(stats_of(bench).memory_bytes, MEMORY_BYTES);
    struct iscsi_context *context = log_in(bench, "open");
    write_and_read_back(context, 0, 1u << 20, 3);
    for (int i = 0; i < 3; i++)
        expect_hang_up(fds[i], "", 0);
    log_out(context);
}

/* One that wants more than there is has its share, and another one finds room at once: nothing of the first moves here. */
static void who_wants_much_leaves_room_for_others(void **state)
{
    struct bench *bench = *state;
    int greedy = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=No\0");
    uint8_t write[48] = {0};
    raw_take_attention(greedy);
    take_a_megabyte(greedy, 2);
    take_a_megabyte(greedy, 3);
    for (uint32_t number = 4; number < 10; number++) {
        put_write(write, number, number, 0xa0, 1u << 20);
        assert_int_equal(send(greedy, write, 48, 0), 48);
    }
    wait_until(bench, stats.memory_waits == 6);
    struct iscsi_context *context = log_in(bench, "open");
    for (unsigned i = 0; i < 20; i++)
        write_and_read_back(context, 100 * i, 65536, i);
    assert_int_equal(stats_of(bench).sessions, 2);
    assert_int_equal(stats_of(bench).memory_bytes, 2u << 20);
    log_out(context);
    close(greedy);
}

static void unexport(struct bench *bench, void *argument)
{
    lun_table_remove(bench->table, &bench->ram.lun);
}

/* RFC 7143 §11.9.1: who uses a volume that goes is asked to log out; who does not is hung up on. */
static void a_volume_that_goes_is_announced(void **state)
{
    struct bench *bench = *state;
    static const char other[] = "InitiatorName=iqn.other\0TargetName=iqn.2026-01.io.hci:open\0";
    int polite = RAW_LOG_IN(bench, ""), deaf = raw_log_in(bench, other, sizeof(other) - 1);
    uint8_t message[48];
    raw_take_attention(polite);
    call_ring(bench, unexport, NULL);
    receive(polite, message, 48);
    assert_int_equal(message[0], 0x32);
    assert_int_equal(be32_at(message + 16), ISCSI_TAG_NONE);
    assert_int_equal(message[36], 1);           /* the target requests logout */
    assert_int_equal(be16_at(message + 42), 1); /* within a second */
    assert_int_equal(raw_log_out(polite, 0, 0, 2), 0);
    expect_hang_up(polite, "", 0);
    expect_hang_up(deaf, "", 0);
    wait_until(bench, stats.sessions == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(the_same_nexus_waits_for_draining),
        LAB_TEST(aborting_waits_for_draining),
        LAB_TEST(aborting_waits_for_the_last),
        LAB_TEST(the_group_can_close_a_nexus),
        LAB_TEST(a_command_is_aborted_before_it_comes),
        LAB_TEST(what_cannot_be_managed_is_said),
        LAB_TEST(a_cold_reset_ends_all_sessions),
        LAB_TEST(logging_out_for_every_reason),
        LAB_TEST(logging_out_ends_what_is_under_way),
        LAB_TEST(a_volume_that_goes_is_announced),
        LAB_TEST(who_wants_much_leaves_room_for_others),
        LAB_TEST(who_stands_still_does_not_keep_memory_from_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
