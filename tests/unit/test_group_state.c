/* What initiators set of a volume (reservations, mode parameters) is kept by both nodes: through links that break,
 * takeovers and restarts. */
#include "pair_lab.h"

#include "common/bytes.h"
#include "storaged/scsi/scsi_unit.h"

#define VOLUME_BYTES ((uint64_t)16 << 20)

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT };
enum { EXCLUSIVE_ACCESS = 3 };

/* An initiator at one node; all but `number` is the data thread's. */
struct user {
    unsigned number;
    const char *volume;
    struct lun_nexus lun_nexus;
    struct scsi_nexus nexus;
    struct scsi_command command;
    uint8_t *data;
    struct lab_job *job;
    bool is_open;
    unsigned closes; /* how often its connection was asked to be closed */
    const uint8_t *cdb, *out; /* of the command to be run: 10 bytes, and what it sends */
    uint32_t out_size;
};

static uint16_t next_port(void)
{
    static unsigned count;
    return (uint16_t)(32100 + (getpid() * 16 + count++) % 400);
}

static struct lab *begin(void)
{
    struct lab *lab = lab_new(next_port());
    lab_start(&lab->nodes[0]);
    lab_start(&lab->nodes[1]);
    lab_create(lab, 0, "vol", VOLUME_BYTES);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_PRIMARY);
    lab_wait_role(&lab->nodes[1], "vol", AUTHORITY_SECONDARY);
    return lab;
}

static void close_user(struct lun_nexus *nexus, const char *reason)
{
    list_entry(nexus, struct user, lun_nexus)->closes++;
}

static void tell_user(struct lun_nexus *nexus, enum lun_change change)
{
    scsi_nexus_changed(&list_entry(nexus, struct user, lun_nexus)->nexus, change);
}

static void log_in(struct user *user, struct lab_node *node)
{
    struct lun *lun = lun_table_find(engine_luns(node->engine), user->volume);
    assert_non_null(lun);
    snprintf(user->lun_nexus.initiator, sizeof user->lun_nexus.initiator, "iqn.test:%u", user->number);
    user->lun_nexus.close = close_user;
    user->lun_nexus.changed = tell_user;
    lun_nexus_open(&user->lun_nexus, lun);
    user->nexus =
        (struct scsi_nexus){.lun = lun, .lun_nexus = &user->lun_nexus, .port_group = (uint16_t)(node->index + 1)};
    assert_int_equal(scsi_nexus_open(&user->nexus), 0);
    user->nexus.attentions = 0;
    user->is_open = true;
}

static void command_done(struct scsi_command *command)
{
    lab_job_over(list_entry(command, struct user, command)->job);
}

static void run_job(struct lab_job *job)
{
    struct user *user = job->argument;
    struct scsi_command *command = &user->command;
    if (!user->is_open)
        log_in(user, job->node);
    free(user->data);
    user->data = NULL;
    user->job = job;
    *command = (struct scsi_command){.nexus = &user->nexus, .done = command_done};
    memcpy(command->cdb, user->cdb, 10);
    if (scsi_command_plan(command)) {
        user->data = command->buffer_size ? aligned_alloc(4096, (command->buffer_size + 4095) & ~4095u) : NULL;
        command->data = user->data;
        command->data_size = command->direction == SCSI_DATA_OUT ? user->out_size : 0;
        if (command->data_size)
            memcpy(command->data, user->out, command->data_size);
        if (!scsi_command_execute(command))
            return;
    }
    lab_job_over(job);
}

static uint8_t run(struct user *user, struct lab_node *node, const uint8_t cdb[static 10], const uint8_t *out,
                   uint32_t out_size)
{
    user->cdb = cdb;
    user->out = out;
    user->out_size = out_size;
    lab_do(node, run_job, user, 40);
    assert_false(user->command.dropped);
    return user->command.status;
}

static uint8_t reserve_out(struct user *user, struct lab_node *node, uint8_t action, uint8_t type, uint64_t key,
                           uint64_t service_key)
{
    uint8_t list[24] = {0}, cdb[10] = {0x5f, action, type, 0, 0, 0, 0, 0, 24, 0};
    put_be64(list, key);
    put_be64(list + 8, service_key);
    return run(user, node, cdb, list, sizeof list);
}

static uint8_t write_one(struct user *user, struct lab_node *node)
{
    static const uint8_t cdb[10] = {0x2a, 0, 0, 0, 0, 8, 0, 0, 1, 0}, block[512];
    return run(user, node, cdb, block, sizeof block);
}

static uint8_t test_unit_ready(struct user *user, struct lab_node *node)
{
    static const uint8_t cdb[10];
    return run(user, node, cdb, NULL, 0);
}

static unsigned count_keys(struct user *user, struct lab_node *node)
{
    static const uint8_t cdb[10] = {0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0};
    assert_int_equal(run(user, node, cdb, NULL, 0), SCSI_STATUS_GOOD);
    return be32_at(user->data + 4) / 8;
}

static void log_out_job(struct lab_job *job)
{
    struct user *user = job->argument;
    lun_nexus_drop(&user->lun_nexus);
    scsi_nexus_close(&user->nexus);
    lun_nexus_close(&user->lun_nexus);
    user->is_open = false;
    lab_job_over(job);
}

static void log_out(struct user *user, struct lab_node *node)
{
    if (user->is_open)
        lab_do(node, log_out_job, user, 5);
    free(user->data);
    user->data = NULL;
}

#define assert_attention(user, node, code)                                              \
    do {                                                                                \
        assert_int_equal(test_unit_ready(user, node), SCSI_STATUS_CHECK_CONDITION);     \
        assert_int_equal((user)->command.sense.key, SCSI_KEY_UNIT_ATTENTION);           \
        assert_int_equal((user)->command.sense.asc, code);                              \
    } while (0)

static void reservations_hold_at_both_nodes(void **state)
{
    struct lab *lab = begin();
    struct lab_node *a = &lab->nodes[0], *b = &lab->nodes[1];
    struct user left = {.number = 1, .volume = "vol"}, right = {.number = 2, .volume = "vol"};
    assert_int_equal(reserve_out(&left, a, REGISTER, 0, 0, 11), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(&right, b, REGISTER, 0, 0, 12), SCSI_STATUS_GOOD); /* by the other node */
    assert_int_equal(count_keys(&left, a), 2);
    assert_int_equal(reserve_out(&left, a, RESERVE, EXCLUSIVE_ACCESS, 11, 0), SCSI_STATUS_GOOD);
    assert_int_equal(write_one(&right, b), SCSI_STATUS_RESERVATION_CONFLICT);
    assert_int_equal(write_one(&left, a), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(&right, b, PREEMPT, EXCLUSIVE_ACCESS, 12, 11), SCSI_STATUS_GOOD);
    assert_attention(&left, a, SCSI_ASC_REGISTRATIONS_PREEMPTED);
    assert_int_equal(write_one(&left, a), SCSI_STATUS_RESERVATION_CONFLICT);
    assert_int_equal(write_one(&right, b), SCSI_STATUS_GOOD);
    log_out(&left, a);
    log_out(&right, b);
    lab_free(lab);
}

/* The node that serves goes; the other one holds what was agreed on, alone, and after a restart of both. */
static void reservations_survive_takeover_and_restart(void **state)
{
    struct lab *lab = begin();
    struct lab_node *a = &lab->nodes[0], *b = &lab->nodes[1];
    struct user left = {.number = 1, .volume = "vol"}, right = {.number = 2, .volume = "vol"};
    assert_int_equal(reserve_out(&left, a, REGISTER, 0, 0, 11), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(&left, a, RESERVE, EXCLUSIVE_ACCESS, 11, 0), SCSI_STATUS_GOOD);
    assert_int_equal(write_one(&right, b), SCSI_STATUS_RESERVATION_CONFLICT);
    log_out(&left, a);
    lab_stop(a);
    lab_hear(b, false);
    lab_wait_role(b, "vol", AUTHORITY_SOLE);
    assert_attention(&right, b, SCSI_ASC_ASYMMETRIC_ACCESS_CHANGED);
    assert_int_equal(write_one(&right, b), SCSI_STATUS_RESERVATION_CONFLICT);
    assert_int_equal(reserve_out(&right, b, REGISTER, 0, 0, 12), SCSI_STATUS_GOOD); /* while alone */
    log_out(&right, b);
    lab_stop(b);
    lab_start(b);
    lab_wait_role(b, "vol", AUTHORITY_SOLE);
    lab_start(a);
    lab_hear(b, true);
    lab_wait_role(a, "vol", AUTHORITY_SECONDARY);
    assert_int_equal(count_keys(&left, a), 2);
    assert_int_equal(write_one(&right, b), SCSI_STATUS_RESERVATION_CONFLICT);
    assert_int_equal(reserve_out(&right, b, PREEMPT, EXCLUSIVE_ACCESS, 12, 11), SCSI_STATUS_GOOD); /* fencing */
    assert_int_equal(write_one(&right, b), SCSI_STATUS_GOOD);
    log_out(&left, a);
    log_out(&right, b);
    lab_free(lab);
}

static void preempt_and_abort_crosses_the_nodes(void **state)
{
    struct lab *lab = begin();
    struct lab_node *a = &lab->nodes[0], *b = &lab->nodes[1];
    struct user left = {.number = 1, .volume = "vol"}, right = {.number = 2, .volume = "vol"};
    assert_int_equal(reserve_out(&left, a, REGISTER, 0, 0, 11), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(&right, b, REGISTER, 0, 0, 12), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(&right, b, PREEMPT_AND_ABORT, EXCLUSIVE_ACCESS, 12, 11), SCSI_STATUS_GOOD);
    assert_int_equal(left.closes, 1);
    log_out(&left, a);
    assert_int_equal(reserve_out(&left, a, REGISTER, 0, 0, 13), SCSI_STATUS_GOOD); /* it came back */
    assert_int_equal(reserve_out(&left, a, PREEMPT_AND_ABORT, EXCLUSIVE_ACCESS, 13, 12), SCSI_STATUS_GOOD);
    assert_int_equal(right.closes, 1);
    log_out(&left, a);
    log_out(&right, b);
    lab_free(lab);
}

/* RESERVE (6) of one node's initiator counts for the other's, and ends with its session. */
static void reserve_6_is_one_for_both_nodes(void **state)
{
    static const uint8_t reserve[10] = {0x16};
    struct lab *lab = begin();
    struct lab_node *a = &lab->nodes[0], *b = &lab->nodes[1];
    struct user left = {.number = 1, .volume = "vol"}, right = {.number = 2, .volume = "vol"};
    assert_int_equal(run(&right, b, reserve, NULL, 0), SCSI_STATUS_GOOD);
    assert_int_equal(write_one(&left, a), SCSI_STATUS_RESERVATION_CONFLICT);
    assert_int_equal(write_one(&right, b), SCSI_STATUS_GOOD);
    log_out(&right, b);
    for (unsigned attempt = 0; write_one(&left, a) != SCSI_STATUS_GOOD; attempt++) { /* nobody waits for the release */
        assert_true(attempt < 500);
        usleep(10000);
    }
    log_out(&left, a);
    lab_free(lab);
}

struct under_way {
    struct range_lock_entry lock;
    bool barrier_waits;
};

static struct group_volume *volume_of(struct lab_job *job)
{
    return list_entry(lun_table_find(engine_luns(job->node->engine), "vol"), struct group_volume, lun);
}

static void never_granted(struct range_lock_entry *entry)
{
    fail(); /* it is granted at once */
}

static void begin_write_job(struct lab_job *job)
{
    struct under_way *under_way = job->argument;
    under_way->lock = (struct range_lock_entry){.block = 100, .count = 1, .exclusive = true, .granted = never_granted};
    assert_true(range_lock_take(&volume_of(job)->lock, &under_way->lock));
    lab_job_over(job);
}

static void end_write_job(struct lab_job *job)
{
    struct under_way *under_way = job->argument;
    range_lock_release(&volume_of(job)->lock, &under_way->lock);
    lab_job_over(job);
}

static void look_job(struct lab_job *job)
{
    struct under_way *under_way = job->argument;
    list_for_each(item, &volume_of(job)->group->running) {
        const struct operation *operation = list_entry(item, struct operation, link);
        under_way->barrier_waits |= operation->opcode == LUN_BARRIER && operation->state == OPERATION_LOCKING;
    }
    lab_job_over(job);
}

struct barrier {
    struct lab_node *node;
    _Atomic int status;
};

static void *pass_barrier(void *argument)
{
    struct barrier *barrier = argument;
    barrier->status = lab_io(barrier->node, "vol", LUN_BARRIER, 0, 0, NULL);
    return NULL;
}

/* Whoever's write, and wherever the barrier comes from. */
static void a_barrier_waits_for_what_is_under_way(void **state)
{
    struct lab *lab = begin();
    for (unsigned i = 0; i < 2; i++) {
        struct under_way under_way = {0};
        struct barrier barrier = {.node = &lab->nodes[i], .status = -EINPROGRESS};
        pthread_t thread;
        lab_do(&lab->nodes[0], begin_write_job, &under_way, 5);
        assert_int_equal(pthread_create(&thread, NULL, pass_barrier, &barrier), 0);
        while (!under_way.barrier_waits)
            lab_do(&lab->nodes[0], look_job, &under_way, 5);
        assert_int_equal(barrier.status, -EINPROGRESS);
        lab_do(&lab->nodes[0], end_write_job, &under_way, 5);
        pthread_join(thread, NULL);
        assert_int_equal(barrier.status, LUN_OK);
    }
    lab_free(lab);
}

struct asking {
    struct user *user;
    struct lab_node *node;
    uint8_t status;
};

static void *ask(void *argument)
{
    struct asking *asking = argument;
    asking->status = reserve_out(asking->user, asking->node, REGISTER, 0, 0, 12);
    return NULL;
}

static void waiting_job(struct lab_job *job)
{
    *(bool *)job->argument = !list_is_empty(&job->node->engine->state_swaps);
    lab_job_over(job);
}

/* R4: nobody may serve, so nobody is answered; once somebody does, the command is carried out. */
static void a_change_waits_until_the_group_is_served(void **state)
{
    struct lab *lab = begin();
    struct lab_node *a = &lab->nodes[0], *b = &lab->nodes[1];
    struct user right = {.number = 2, .volume = "vol"};
    struct asking asking = {.user = &right, .node = b, .status = 0xff};
    pthread_t thread;
    bool waits = false;
    lab->witness_silent = true;
    lab_stop(a);
    lab_hear(b, false);
    assert_int_equal(pthread_create(&thread, NULL, ask, &asking), 0);
    while (!waits) /* the test's own time limit ends this */
        lab_do(b, waiting_job, &waits, 5);
    assert_int_equal(asking.status, 0xff);
    lab->witness_silent = false;
    pthread_join(thread, NULL);
    assert_int_equal(asking.status, SCSI_STATUS_GOOD);
    assert_attention(&right, b, SCSI_ASC_ASYMMETRIC_ACCESS_CHANGED);
    assert_int_equal(count_keys(&right, b), 1);
    log_out(&right, b);
    lab_free(lab);
}

/* While a node's copy is brought up to date it forwards: it learns of every change at once, not when the copy is
 * complete, and obeys. */
static void a_target_learns_at_once(void **state)
{
    static uint8_t block[4096] __attribute__((aligned(4096)));
    struct lab *lab = begin();
    struct lab_node *a = &lab->nodes[0], *b = &lab->nodes[1];
    struct user left = {.number = 1, .volume = "vol"}, right = {.number = 2, .volume = "vol"};
    struct under_way under_way = {0};
    lab_cut(lab, true);
    lab_wait_role(a, "vol", AUTHORITY_SOLE);
    assert_int_equal(lab_io(a, "vol", LUN_WRITE, 800, 8, block), LUN_OK);
    lab_do(a, begin_write_job, &under_way, 5); /* the resync waits for this block */
    assert_int_equal(reserve_out(&left, a, REGISTER, 0, 0, 11), SCSI_STATUS_GOOD);
    lab_cut(lab, false);
    lab_wait_role(b, "vol", AUTHORITY_TARGET);
    for (unsigned attempt = 0; count_keys(&right, b) != 1; attempt++) {
        assert_true(attempt < 500);
        usleep(10000);
    }
    assert_int_equal(write_one(&right, b), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(&left, a, RESERVE, EXCLUSIVE_ACCESS, 11, 0), SCSI_STATUS_GOOD);
    assert_int_equal(write_one(&right, b), SCSI_STATUS_RESERVATION_CONFLICT);
    assert_int_equal(reserve_out(&right, b, REGISTER, 0, 0, 12), SCSI_STATUS_GOOD);
    assert_int_equal(count_keys(&left, a), 2);
    lab_do(a, end_write_job, &under_way, 5);
    lab_wait_role(a, "vol", AUTHORITY_PRIMARY);
    log_out(&left, a);
    log_out(&right, b);
    lab_free(lab);
}

static unsigned count_entries(struct lab_node *node)
{
    struct lab_call waiting = {.call = {.kind = ENGINE_META_GET, .group_name = "vol"}};
    assert_int_equal(lab_call(node, &waiting), 0);
    unsigned count = waiting.call.metadata.count;
    metadata_clear(&waiting.call.metadata);
    return count;
}

/* A volume of the same name must not inherit them. */
static void a_deleted_volume_takes_its_reservations_along(void **state)
{
    struct lab *lab = begin();
    struct lab_node *a = &lab->nodes[0], *b = &lab->nodes[1];
    struct user first = {.number = 1, .volume = "vol"},
                second = {.number = 2, .volume = "a-name.of-more-than-the-fifty-characters-that-keys-once-had.x"};
    struct lab_call creating = {.call = {.kind = ENGINE_VOLUME_CREATE, .group_name = "vol", .size_bytes = 1 << 20}};
    strcpy(creating.call.name, second.volume);
    assert_int_equal(lab_call(a, &creating), 0);
    assert_int_equal(reserve_out(&first, a, REGISTER, 0, 0, 11), SCSI_STATUS_GOOD);
    assert_int_equal(reserve_out(&second, b, REGISTER, 0, 0, 12), SCSI_STATUS_GOOD);
    assert_int_equal(count_keys(&first, a), 1); /* each volume has its own */
    assert_int_equal(count_entries(a), 2);
    log_out(&second, b);
    struct lab_call deleting = {.call = {.kind = ENGINE_VOLUME_DELETE}};
    strcpy(deleting.call.name, second.volume);
    assert_int_equal(lab_call(a, &deleting), 0);
    assert_int_equal(count_entries(a), 1);
    assert_int_equal(count_entries(b), 1);
    assert_int_equal(count_keys(&first, a), 1);
    log_out(&first, a);
    lab_free(lab);
}

int main(void)
{
    log_init("state", getenv("PAIR_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reservations_hold_at_both_nodes),
        cmocka_unit_test(reservations_survive_takeover_and_restart),
        cmocka_unit_test(preempt_and_abort_crosses_the_nodes),
        cmocka_unit_test(reserve_6_is_one_for_both_nodes),
        cmocka_unit_test(a_barrier_waits_for_what_is_under_way),
        cmocka_unit_test(a_change_waits_until_the_group_is_served),
        cmocka_unit_test(a_target_learns_at_once),
        cmocka_unit_test(a_deleted_volume_takes_its_reservations_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
