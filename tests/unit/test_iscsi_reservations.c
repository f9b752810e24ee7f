/* Reservations through the wire: what a preempted initiator had under way never reaches the disk. */
#include "iscsi_lab.h"

static struct iscsi_context *log_in_as(struct bench *bench, const char *name, uint32_t qualifier)
{
    struct iscsi_context *context = iscsi_create_context(name);
    char target[256];
    snprintf(target, sizeof(target), "%sopen", LUN_IQN_PREFIX);
    iscsi_set_targetname(context, target);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_timeout(context, 10);
    iscsi_set_isid_oui(context, 1, qualifier);
    if (iscsi_full_connect_sync(context, bench->portal, 0) != 0)
        fail_msg("login: %s", iscsi_get_error(context));
    return context;
}

static int reserve_out(struct iscsi_context *context, int action, int type, uint64_t key, uint64_t service_key)
{
    struct scsi_persistent_reserve_out_basic list = {.reservation_key = key,
                                                     .service_action_reservation_key = service_key};
    struct scsi_task *task = iscsi_persistent_reserve_out_sync(context, 0, action, 0, type, &list);
    assert_non_null(task);
    int status = task->status;
    scsi_free_scsi_task(task);
    return status;
}

static int write_status(struct iscsi_context *context, uint64_t sector)
{
    static uint8_t block[512];
    struct scsi_task *task = iscsi_write16_sync(context, 0, sector, block, sizeof(block), 512, 0, 0, 0, 0, 0);
    assert_non_null(task);
    int status = task->status;
    scsi_free_scsi_task(task);
    return status;
}

static int type_wanted = SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY;

static void preempt_and_abort_drains_the_victim(void **state)
{
    struct bench *bench = *state;
    struct iscsi_context *victim = log_in_as(bench, "iqn.2026-01.example:victim", 1),
                         *fencer = log_in_as(bench, "iqn.2026-01.example:fencer", 2);
    struct flight lost = {.pending = 1}, fencing = {.pending = 1};
    static uint8_t block[512];
    memset(block, 0x66, sizeof(block));
    assert_int_equal(reserve_out(victim, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, 1), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(fencer, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, 2), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(victim, SCSI_PERSISTENT_RESERVE_RESERVE, type_wanted, 1, 0), SCSI_STATUS_GOOD);
    uint64_t before = stats_of(bench).commands;
    call_ring(bench, set_holds, bench);
    assert_non_null(iscsi_write16_task(victim, 0, 50, block, sizeof(block), 512, 0, 0, 0, 0, 0, landed, &lost));
    iscsi_service(victim, POLLOUT);
    wait_until(bench, stats.commands > before); /* it is with the volume */
    struct scsi_persistent_reserve_out_basic list = {.reservation_key = 2, .service_action_reservation_key = 1};
    assert_non_null(iscsi_persistent_reserve_out_task(fencer, 0, SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, 0,
                                                      type_wanted, &list, landed, &fencing));
    iscsi_service(fencer, POLLOUT);
    wait_until(bench, stats.sessions == 1); /* the victim's is gone, with its write */
    assert_int_equal(fencing.pending, 1);
    call_ring(bench, set_holds, NULL); /* the barrier passes */
    serve_until(fencer, &fencing.pending, 0);
    assert_int_equal(fencing.good, 1);
    assert_int_equal(bench->ram.memory[50 * 512], 0);
    iscsi_destroy_context(victim);
    victim = log_in_as(bench, "iqn.2026-01.example:victim", 1);
    assert_int_equal(write_status(victim, 50), SCSI_STATUS_RESERVATION_CONFLICT);
    assert_int_equal(write_status(fencer, 51), SCSI_STATUS_GOOD);
    log_out(victim);
    log_out(fencer);
}

/* A PERSISTENT RESERVE OUT whose session is lost while its change is made: it is made, nobody is answered, all is
 * drained. */
static void a_session_may_be_lost_in_the_middle(void **state)
{
    struct bench *bench = *state;
    struct flight lost = {.pending = 1};
    struct iscsi_context *one = log_in_as(bench, "iqn.2026-01.example:one", 1);
    struct scsi_persistent_reserve_out_basic list = {.service_action_reservation_key = 5};
    assert_non_null(
        iscsi_persistent_reserve_out_task(one, 0, SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, &list, landed, &lost));
    iscsi_service(one, POLLOUT);
    iscsi_destroy_context(one);
    wait_until(bench, stats.sessions == 0 && stats.connections == 0);
    one = log_in_as(bench, "iqn.2026-01.example:one", 1);
    assert_int_equal(reserve_out(one, SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY, 0, 0, 6),
                     SCSI_STATUS_GOOD);
    log_out(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(preempt_and_abort_drains_the_victim, setup, teardown),
        cmocka_unit_test_setup_teardown(a_session_may_be_lost_in_the_middle, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
