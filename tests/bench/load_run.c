/* The loop of iscsi_load: one connection, one thread, many commands; every wake-up takes all answers there are and
 * sends as many new commands before it sleeps again. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/check.h"
#include "tests/bench/load.h"

#define FINISH_SECONDS 30.0

struct run;

struct slot {
    struct run *run;
    struct slot *next; /* while free */
    struct scsi_iovec iov;
    uint8_t *data;
    uint64_t block;
    uint64_t started_ns;
    bool write;
};

struct run {
    const struct load_options *options;
    struct load_result *result;
    struct iscsi_context *iscsi;
    struct load_table *table;
    struct slot *slots, *free;
    uint8_t *memory;
    int lun;
    uint32_t sector_bytes;
    unsigned under_way;
    uint64_t first, places, cursor; /* places of block_bytes each, counted from `first` in 4 KiB blocks */
    unsigned blocks;                /* per command */
    uint64_t random[2];
    uint64_t sent_bytes;
    uint64_t now_ns, measure_ns, end_ns, answered_ns;
    bool ending, lost;
};

static volatile sig_atomic_t told_to_end;

static void on_signal(int number)
{
    told_to_end = 1;
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* xorshift128+: good enough for places, and costs nothing. */
static uint64_t next_random(struct run *run)
{
    uint64_t a = run->random[0], b = run->random[1];
    run->random[0] = b;
    a ^= a << 23;
    run->random[1] = a ^ b ^ a >> 17 ^ b >> 26;
    return run->random[1] + b;
}

static int fail(const struct run *run, const char *what)
{
    fprintf(stderr, "iscsi_load: %s: %s: %s\n", run->options->url, what, iscsi_get_error(run->iscsi));
    return 1;
}

/* ---- one command --------------------------------------------------------------------------------------------- */

static void release(struct run *run, struct slot *slot)
{
    slot->next = run->free;
    run->free = slot;
    run->under_way--;
}

static void succeed(struct run *run, struct slot *slot)
{
    struct load_result *result = run->result;
    result->answered++;
    if (run->options->verify && slot->write)
        load_table_acknowledge(run->table, slot->block, run->blocks);
    if (run->options->verify && !slot->write) {
        result->blocks_compared += run->blocks;
        result->blocks_bad += load_table_compare(run->table, slot->block, run->blocks, slot->data);
        load_table_give_back(run->table, slot->block, run->blocks);
    }
    if (run->now_ns < run->measure_ns || (run->now_ns > run->end_ns && !run->options->check))
        return;
    load_histogram_add(slot->write ? &result->write_latency : &result->read_latency, run->now_ns - slot->started_ns);
    *(slot->write ? &result->writes : &result->reads) += 1;
}

static void refused(struct run *run, struct slot *slot, int status, const struct scsi_task *task)
{
    if (run->result->errors++ == 0)
        fprintf(stderr, "iscsi_load: %s of %u bytes at byte %lu was refused with status %d, sense %d/%04x\n",
                slot->write ? "write" : "read", run->options->block_bytes, slot->block * LOAD_BLOCK, status,
                task->sense.key, (unsigned)task->sense.ascq);
    /* A write that failed may have happened: its blocks stay in doubt. */
    if (run->options->verify && !slot->write)
        load_table_give_back(run->table, slot->block, run->blocks);
}

static void note_time(struct run *run)
{
    run->now_ns = clock_ns();
    double gap = (double)(run->now_ns - run->answered_ns) / 1e9;
    if (gap > run->result->stall_max_s)
        run->result->stall_max_s = gap;
    run->answered_ns = run->now_ns;
}

static void answered(struct iscsi_context *iscsi, int status, void *command_data, void *private_data);

static bool submit(struct run *run, struct slot *slot)
{
    uint64_t lba = slot->block * (LOAD_BLOCK / run->sector_bytes);
    int sector = (int)run->sector_bytes;
    uint32_t size = run->options->block_bytes;
    struct scsi_task *task;
    slot->iov = (struct scsi_iovec){.iov_base = slot->data, .iov_len = size};
    if (slot->write)
        task = iscsi_write16_iov_task(run->iscsi, run->lun, lba, NULL, size, sector, 0, 0, 0, 0, 0, answered, slot,
                                      &slot->iov, 1);
    else
        task = iscsi_read16_iov_task(run->iscsi, run->lun, lba, size, sector, 0, 0, 0, 0, 0, answered, slot, &slot->iov,
                                     1);
    if (!task)
        run->lost = true;
    return task != NULL;
}

/* SAM-5 §5.14: a command that reports a unit attention was not carried out; every initiator sends it again. */
static bool is_attention(int status, const struct scsi_task *task)
{
    return status == SCSI_STATUS_CHECK_CONDITION && task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
}

static void answered(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct slot *slot = private_data;
    struct run *run = slot->run;
    struct scsi_task *task = command_data;
    if (is_attention(status, task) && submit(run, slot)) {
        scsi_free_scsi_task(task);
        return;
    }
    if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT) {
        run->lost = true; /* nothing was answered: the connection is gone */
    } else {
        note_time(run);
        if (status == SCSI_STATUS_GOOD)
            succeed(run, slot);
        else
            refused(run, slot, status, task);
    }
    scsi_free_scsi_task(task);
    release(run, slot);
}

/* False when there is none now: all that were tried belong to a command under way. */
static bool choose_place(struct run *run, uint64_t *ret_block)
{
    for (unsigned tries = 0; tries < 256; tries++) {
        uint64_t place = run->options->random ? next_random(run) % run->places : run->cursor++ % run->places;
        uint64_t block = run->first + place * run->blocks;
        if (!run->options->verify || run->options->check || load_table_take(run->table, block, run->blocks)) {
            *ret_block = block;
            return true;
        }
    }
    return false;
}

static bool send_one(struct run *run)
{
    const struct load_options *options = run->options;
    struct slot *slot = run->free;
    if (!choose_place(run, &slot->block))
        return false;
    slot->write = options->write_percent && next_random(run) % 100 < options->write_percent;
    if (slot->write && options->verify)
        load_table_stamp(run->table, slot->block, run->blocks, slot->data);
    slot->started_ns = run->now_ns;
    if (!submit(run, slot))
        return false;
    run->free = slot->next;
    run->under_way++;
    run->sent_bytes += options->block_bytes;
    return true;
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

static bool is_over(const struct run *run)
{
    const struct load_options *options = run->options;
    if (run->lost || told_to_end)
        return true;
    if (options->check)
        return run->cursor >= run->places;
    return run->now_ns >= run->end_ns || (options->total_bytes && run->sent_bytes >= options->total_bytes);
}

static void send_all(struct run *run)
{
    run->now_ns = clock_ns();
    while (run->free && !(run->ending = run->ending || is_over(run)))
        if (!send_one(run))
            break;
}

/* Without a wait for POLLOUT: the socket nearly always takes everything. */
static bool turn(struct run *run)
{
    int events = iscsi_which_events(run->iscsi);
    struct pollfd poll_fd = {.fd = iscsi_get_fd(run->iscsi), .events = (short)events};
    if ((events & POLLOUT) && iscsi_service(run->iscsi, POLLOUT) < 0)
        return false;
    if (run->lost)
        return false;
    poll_fd.events = (short)iscsi_which_events(run->iscsi);
    int ready = poll(&poll_fd, poll_fd.events ? 1 : 0, 100);
    if (ready < 0 && errno != EINTR)
        return false;
    return iscsi_service(run->iscsi, ready > 0 ? poll_fd.revents : 0) >= 0;
}

static int stalled(const struct run *run)
{
    fprintf(stderr, "iscsi_load: %s: no answer for %.0f s while %u commands were under way\n", run->options->url,
            (double)(run->now_ns - run->answered_ns) / 1e9, run->under_way);
    return 1;
}

static int loop(struct run *run)
{
    run->answered_ns = run->now_ns = clock_ns();
    run->measure_ns = run->now_ns + (uint64_t)(run->options->warmup_seconds * 1e9);
    run->end_ns = run->measure_ns + (uint64_t)(run->options->seconds * 1e9);
    for (;;) {
        send_all(run);
        if (run->under_way == 0 && run->ending)
            return 0;
        if (!turn(run) || run->lost) {
            run->lost = true;
            return 0;
        }
        if ((double)(clock_ns() - run->answered_ns) / 1e9 > run->options->stall_seconds)
            return stalled(run);
    }
}

/* ---- before and after ---------------------------------------------------------------------------------------- */

static int log_in(struct run *run)
{
    run->iscsi = iscsi_create_context(run->options->initiator);
    check(run->iscsi);
    struct iscsi_url *url = iscsi_parse_full_url(run->iscsi, run->options->url);
    if (!url)
        return fail(run, "no iSCSI URL");
    run->lun = url->lun;
    iscsi_set_targetname(run->iscsi, url->target);
    iscsi_set_session_type(run->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(run->iscsi, ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_noautoreconnect(run->iscsi, !run->options->reconnect);
    iscsi_set_reconnect_max_retries(run->iscsi, -1);
    int result = iscsi_full_connect_sync(run->iscsi, url->portal, url->lun);
    iscsi_destroy_url(url);
    return result == 0 ? 0 : fail(run, "cannot log in");
}

static int read_capacity(struct run *run, uint64_t *ret_bytes)
{
    struct scsi_task *task = iscsi_readcapacity16_sync(run->iscsi, run->lun);
    struct scsi_readcapacity16 *capacity = NULL;
    if (task && task->status == SCSI_STATUS_GOOD)
        capacity = scsi_datain_unmarshall(task);
    int result = capacity ? 0 : fail(run, "no capacity");
    if (capacity) {
        run->sector_bytes = capacity->block_length;
        *ret_bytes = (capacity->returned_lba + 1) * capacity->block_length;
    }
    if (task)
        scsi_free_scsi_task(task);
    return result;
}

static int lay_out(struct run *run)
{
    const struct load_options *options = run->options;
    uint64_t bytes, span;
    if (read_capacity(run, &bytes) != 0)
        return 1;
    span = options->span_bytes;
    if (span == 0 && options->offset_bytes < bytes)
        span = bytes - options->offset_bytes;
    if (span < options->block_bytes || options->offset_bytes + span > bytes || LOAD_BLOCK % run->sector_bytes) {
        fprintf(stderr, "iscsi_load: %s has %lu bytes: no room for --offset, --span and --block\n", options->url,
                bytes);
        return 1;
    }
    run->first = options->offset_bytes / LOAD_BLOCK;
    run->blocks = options->block_bytes / LOAD_BLOCK;
    run->places = span / options->block_bytes;
    if (options->verify) {
        run->table = load_table_new(options, span / LOAD_BLOCK);
        return run->table ? 0 : 1;
    }
    return 0;
}

static void make_slots(struct run *run)
{
    unsigned depth = run->options->depth;
    size_t size = (size_t)depth * run->options->block_bytes;
    run->slots = calloc(depth, sizeof run->slots[0]);
    run->memory = aligned_alloc(LOAD_BLOCK, size);
    check(run->slots && run->memory);
    run->random[0] = run->options->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    run->random[1] = ~run->options->seed;
    for (size_t i = 0; i < size / sizeof(uint64_t); i++)
        ((uint64_t *)run->memory)[i] = next_random(run);
    for (unsigned i = 0; i < depth; i++) {
        struct slot *slot = &run->slots[i];
        slot->run = run;
        slot->data = run->memory + (size_t)i * run->options->block_bytes;
        slot->next = run->free;
        run->free = slot;
    }
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int conclude(struct run *run)
{
    struct load_result *result = run->result;
    uint64_t until = run->ending && run->now_ns > run->end_ns && !run->options->check ? run->end_ns : run->now_ns;
    result->seconds = until > run->measure_ns ? (double)(until - run->measure_ns) / 1e9 : 0;
    result->lost = run->lost;
    if (!run->lost && run->under_way == 0)
        iscsi_logout_sync(run->iscsi);
    if (run->table) {
        result->in_doubt = load_table_in_doubt(run->table);
        if (run->options->state && load_table_save(run->table, run->options->state) < 0)
            return 1;
    }
    if (result->blocks_bad)
        fprintf(stderr, "iscsi_load: %lu of %lu blocks compared are wrong\n", result->blocks_bad,
                result->blocks_compared);
    return result->errors || result->blocks_bad ? 1 : run->lost ? 3 : 0;
}

int load_run(const struct load_options *options, struct load_result *ret)
{
    struct run run = {.options = options, .result = ret};
    double cpu = cpu_seconds();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    int status = log_in(&run) || lay_out(&run);
    if (status == 0) {
        make_slots(&run);
        cpu = cpu_seconds();
        status = loop(&run);
        ret->cpu_seconds = cpu_seconds() - cpu;
        int end = conclude(&run);
        status = status ? status : end;
    }
    /* Answers that never came are not ours any more: their callbacks must not find a freed table. */
    iscsi_destroy_context(run.iscsi);
    load_table_free(run.table);
    free(run.slots);
    free(run.memory);
    return status;
}
