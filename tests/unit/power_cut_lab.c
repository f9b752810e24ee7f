/* The images that a power cut can leave: see power_cut_lab.h. */
#include "tests/unit/power_cut_lab.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"

#define BLOCK 4096u

static void *zeros_new(uint64_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED);
    return memory;
}

void cut_lab_new(struct cut_lab *lab, unsigned disk_count, uint64_t bytes, uint64_t seed)
{
    *lab = (struct cut_lab){.random = seed, .tear_bytes = CUT_SECTOR};
    cut_device_new(&lab->device, disk_count, bytes, seed);
    for (unsigned index = 0; index < disk_count; index++) {
        lab->durable[index] = zeros_new(bytes);
        lab->serials[index] = zeros_new(bytes / CUT_SECTOR * sizeof *lab->serials[index]);
    }
    lab->pending = zeros_new(CUT_EVENTS_MAX * sizeof *lab->pending);
    lab->done_at = zeros_new(CUT_EVENTS_MAX * sizeof *lab->done_at);
}

void cut_lab_free(struct cut_lab *lab)
{
    for (unsigned index = 0; index < lab->device.disk_count; index++) {
        uint64_t bytes = lab->device.disks[index].bytes;
        munmap(lab->durable[index], bytes);
        munmap(lab->serials[index], bytes / CUT_SECTOR * sizeof *lab->serials[index]);
    }
    munmap(lab->pending, CUT_EVENTS_MAX * sizeof *lab->pending);
    munmap(lab->done_at, CUT_EVENTS_MAX * sizeof *lab->done_at);
    cut_device_free(&lab->device);
}

/* Calls for every block in which image and durable copy may differ. */
static void touched_each(struct cut_lab *lab, void (*each)(uint8_t *image, uint8_t *durable))
{
    for (unsigned index = 0; index < lab->device.disk_count; index++) {
        struct cut_disk *disk = &lab->device.disks[index];
        uint8_t *end = disk->touched + disk->bytes / BLOCK;
        for (uint8_t *at = disk->touched; (at = memchr(at, 1, (size_t)(end - at))); at++) {
            uint64_t offset = (uint64_t)(at - disk->touched) * BLOCK;
            each(disk->image + offset, lab->durable[index] + offset);
            *at = 0;
            if (at + 1 == end)
                break;
        }
    }
}

static void block_keep(uint8_t *image, uint8_t *durable)
{
    memcpy(durable, image, BLOCK);
}

static void block_revert(uint8_t *image, uint8_t *durable)
{
    memcpy(image, durable, BLOCK);
}

/* The log begins anew, on what is durable. */
static void log_restart(struct cut_lab *lab)
{
    uint32_t count = lab->device.log->event_count;
    memset(lab->done_at, 0, count * sizeof *lab->done_at);
    for (unsigned index = 0; count && index < lab->device.disk_count; index++) {
        uint64_t size = lab->device.disks[index].bytes / CUT_SECTOR * sizeof *lab->serials[index];
        check(madvise(lab->serials[index], size, MADV_DONTNEED) == 0); /* zeros again */
    }
    lab->device.log->event_count = 0;
    lab->device.log->data_used = 0;
    lab->pending_count = lab->position = 0;
}

void cut_lab_settle(struct cut_lab *lab)
{
    touched_each(lab, block_keep);
    log_restart(lab);
}

static int process_run(struct cut_lab *lab, enum cut_mode mode)
{
    fflush(NULL);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        if (lab->quiet)
            check(freopen("/dev/null", "w", stderr));
        signal(SIGSEGV, SIG_DFL); /* the test's frame must not go on in this process */
        lab->device.mode = mode;
        lab->device.random = cut_random(&lab->random);
        cut_device_use(&lab->device);
        if (mode == CUT_TOUCH)
            _exit(lab->look(lab->userdata) ? 1 : 0);
        lab->load(lab->userdata);
        _exit(0);
    }
    int status;
    cut_random(&lab->random);
    check(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status) && !lab->quiet)
        fprintf(stderr, "the process ended by signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- time passes -------------------------------------------------------------------------------------------------- */

static void sector_put(struct cut_lab *lab, uint32_t number, uint64_t at, uint8_t *to)
{
    const struct cut_event *event = &lab->device.log->events[number];
    memcpy(to + event->offset + at, lab->device.log->data + event->data + at, CUT_SECTOR);
}

static void write_settle(struct cut_lab *lab, uint32_t number)
{
    const struct cut_event *event = &lab->device.log->events[number];
    uint32_t *serials = lab->serials[event->disk];
    for (uint64_t at = 0; at < event->size; at += CUT_SECTOR) {
        uint64_t sector = (event->offset + at) / CUT_SECTOR;
        if (serials[sector] > number)
            continue; /* a later one is there for sure */
        sector_put(lab, number, at, lab->durable[event->disk]);
        sector_put(lab, number, at, lab->device.disks[event->disk].image);
        serials[sector] = number + 1;
    }
}

/* Those of the disk that were done before `before` and, when `only` is not -1, are that one. */
static void pending_settle(struct cut_lab *lab, unsigned disk, uint32_t before, int64_t only)
{
    uint32_t kept = 0;
    for (uint32_t index = 0; index < lab->pending_count; index++) {
        uint32_t number = lab->pending[index];
        bool covered = lab->device.log->events[number].disk == disk && lab->done_at[number] &&
                       lab->done_at[number] < before && (only < 0 || number == (uint32_t)only);
        if (covered)
            write_settle(lab, number);
        else
            lab->pending[kept++] = number;
    }
    lab->pending_count = kept;
}

static void event_pass(struct cut_lab *lab, uint32_t number)
{
    const struct cut_event *event = &lab->device.log->events[number];
    switch ((enum cut_event_kind)event->kind) {
    case CUT_WRITE: lab->pending[lab->pending_count++] = number; break;
    case CUT_WRITE_DONE:
        lab->done_at[event->start] = number;
        if (lab->device.log->events[event->start].durable && lab->sabotage != CUT_WRITES_LIE)
            pending_settle(lab, event->disk, UINT32_MAX, event->start);
        break;
    case CUT_SYNC_DONE:
        if (lab->sabotage != CUT_FLUSHES_LIE)
            pending_settle(lab, event->disk, event->start, -1);
        break;
    case CUT_NOTE: lab->note(lab->userdata, &event->note); break;
    case CUT_SYNC: break;
    }
}

static void advance(struct cut_lab *lab, uint32_t position)
{
    while (lab->position < position)
        event_pass(lab, lab->position++);
}

/* --- the cut ------------------------------------------------------------------------------------------------------ */

/* How much of the unflushed survives (of 16), and in what pieces. */
struct cut_luck {
    unsigned sixteenths;
    unsigned piece_bytes;
};

static struct cut_luck luck_draw(struct cut_lab *lab, uint32_t write_bytes)
{
    static const unsigned chances[] = {0, 1, 4, 8, 8, 12, 15, 16};
    struct cut_luck luck = {.sixteenths = chances[cut_random_below(&lab->random, 8)], .piece_bytes = lab->tear_bytes};
    if (cut_random_below(&lab->random, 3) == 0)
        luck.piece_bytes = cut_random_below(&lab->random, 2) ? BLOCK : write_bytes;
    return luck;
}

static void write_survive(struct cut_lab *lab, uint32_t number, struct cut_luck luck)
{
    const struct cut_event *event = &lab->device.log->events[number];
    struct cut_disk *disk = &lab->device.disks[event->disk];
    bool there = false;
    for (uint64_t at = 0; at < event->size; at += CUT_SECTOR) {
        if (at % luck.piece_bytes == 0)
            there = cut_random_below(&lab->random, 16) < luck.sixteenths;
        if (!there || lab->serials[event->disk][(event->offset + at) / CUT_SECTOR] > number)
            continue;
        sector_put(lab, number, at, disk->image);
        disk->touched[(event->offset + at) / BLOCK] = 1;
    }
}

static void image_make(struct cut_lab *lab)
{
    struct cut_luck common = luck_draw(lab, BLOCK);
    for (uint32_t index = 0; index < lab->pending_count; index++) {
        uint32_t number = lab->pending[index];
        bool own = cut_random_below(&lab->random, 4) == 0;
        write_survive(lab, number, own ? luck_draw(lab, lab->device.log->events[number].size) : common);
    }
}

/* Just behind what someone was told, or a flush; or anywhere. */
static uint32_t place_choose(struct cut_lab *lab, uint32_t from, uint32_t to)
{
    uint32_t place = from + cut_random_below(&lab->random, to - from);
    unsigned wanted = cut_random_below(&lab->random, 4);
    for (uint32_t at = place; wanted && at < to; at++) {
        const struct cut_event *event = &lab->device.log->events[at];
        if (event->kind == CUT_NOTE || (wanted > 1 && (event->kind == CUT_SYNC_DONE || event->kind == CUT_WRITE_DONE)))
            return at + 1;
    }
    return place + 1;
}

unsigned cut_lab_round(struct cut_lab *lab, unsigned cuts, unsigned fails_max)
{
    unsigned fails = process_run(lab, CUT_RECORD) != 0;
    uint64_t count = lab->device.log->event_count;
    count -= cut_random_below(&lab->random, (uint32_t)count / 2 + 1); /* what is kept is cut off later */
    touched_each(lab, block_revert);
    for (unsigned cut = 0; cut < cuts && count > cuts && fails < fails_max; cut++) {
        uint32_t place = place_choose(lab, (uint32_t)(count * cut / cuts), (uint32_t)(count * (cut + 1) / cuts));
        advance(lab, place);
        image_make(lab);
        lab->image_count++;
        if (process_run(lab, CUT_TOUCH)) {
            fails++;
            if (!lab->quiet)
                fprintf(stderr, "cut %u, at event %u of %llu\n", cut, place, (unsigned long long)count);
        }
        touched_each(lab, block_revert);
    }
    return fails;
}

static int base_look(struct cut_lab *lab)
{
    cut_lab_settle(lab);
    lab->image_count++;
    int result = process_run(lab, CUT_TOUCH);
    touched_each(lab, block_revert);
    return result;
}

int cut_lab_keep(struct cut_lab *lab)
{
    uint32_t count = lab->device.log->event_count;
    if (lab->position < count)
        advance(lab, place_choose(lab, lab->position, count));
    image_make(lab);
    return base_look(lab);
}

int cut_lab_end(struct cut_lab *lab)
{
    advance(lab, lab->device.log->event_count);
    for (uint32_t index = 0; index < lab->pending_count; index++)
        write_settle(lab, lab->pending[index]);
    return base_look(lab);
}
