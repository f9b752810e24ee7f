/* The workload of the power-cut tests: see power_cut_load.h. */
#include "tests/unit/power_cut_load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/check.h"

#define DISK_BYTES (256ull << 20)
#define JOURNAL_BYTES (4ull << 20)
#define BLOB_WORDS_MAX 12000u

static const uint32_t volume_blocks[MODEL_VOLUMES] = {1400, 700, 300, 520};

struct worker;

struct op {
    struct pool_io io;
    struct worker *worker;
    struct cut_note note;
    bool busy, reads;
};

struct worker {
    struct load_story *story;
    struct model *model;
    struct ring *ring;
    struct pool *pool;
    uint64_t *random;
    struct op ops[LOAD_OPS];
    unsigned left; /* operations to begin */
    uint64_t sequence[MODEL_GROUPS];
    bool draining[MODEL_GROUPS];
    bool disk_is_changing;
    unsigned tasks; /* not done */
    unsigned quiet[MODEL_VOLUMES]; /* something is or will be done to the whole volume: no requests */
    bool changing[MODEL_VOLUMES];  /* as soon as none is under way */
    bool uniform;                  /* single blocks: what is stale in the journal then fits to what is new */
};

static uint32_t draw(struct worker *worker, uint32_t limit)
{
    return cut_random_below(worker->random, limit);
}

static void note(struct worker *worker, const struct cut_note *note)
{
    cut_note_write(note);
    model_note(worker->model, note);
}

static bool range_is_busy(const struct worker *worker, unsigned volume, uint64_t block, uint32_t count)
{
    for (unsigned index = 0; index < LOAD_OPS; index++) {
        const struct op *op = &worker->ops[index];
        if (op->busy && op->note.index == volume && op->note.block < block + count &&
            block < op->note.block + op->note.count)
            return true;
    }
    return false;
}

static struct pool_volume *volume_handle(struct worker *worker, unsigned volume)
{
    struct id id = model_volume_id(volume);
    return pool_volume_find(worker->pool, &id);
}

/* --- reads and writes --------------------------------------------------------------------------------------------- */

static uint32_t count_draw(struct worker *worker)
{
    switch (worker->uniform ? UINT32_MAX : draw(worker, 8)) {
    case UINT32_MAX: return 1;
    case 0: return 1 + draw(worker, POOL_WRITE_BLOCKS_MAX);
    case 1: return 17 + draw(worker, 40);
    case 2: return 16;
    default: return 1 + draw(worker, 12);
    }
}

static bool range_draw(struct worker *worker, struct cut_note *ret)
{
    for (unsigned attempt = 0; attempt < 20; attempt++) {
        unsigned volume = draw(worker, MODEL_VOLUMES);
        const struct model_volume *state = &worker->model->volumes[volume];
        uint32_t count = count_draw(worker);
        if (state->presence != MODEL_PRESENT || worker->quiet[volume] || count > state->block_count)
            continue;
        uint32_t limit = state->block_count - count + 1;
        uint32_t block = draw(worker, draw(worker, 3) || limit < 64 ? limit : 64);
        if (range_is_busy(worker, volume, block, count))
            continue;
        *ret = (struct cut_note){.index = volume, .block = block, .count = count};
        return true;
    }
    return false;
}

static void read_verify(struct op *op)
{
    const struct model_volume *volume = &op->worker->model->volumes[op->note.index];
    uint8_t *expected = aligned_alloc(4096, 4096);
    check(expected);
    for (uint32_t index = 0; index < op->note.count; index++) {
        uint64_t block = op->note.block + index;
        model_fill(expected, op->note.index, block, volume->blocks[block].version);
        check(volume->blocks[block].unknown || memcmp(expected, op->io.data + index * 4096, 4096) == 0);
    }
    free(expected);
}

static void worker_go_on(struct worker *worker);

static void op_done(struct pool_io *io, int result)
{
    struct op *op = (struct op *)io;
    check(result == 0 || (op->reads && op->worker->story->lossy && result == -EBADMSG));
    op->busy = false;
    if (op->reads && result == 0) {
        read_verify(op);
    } else if (!op->reads) {
        op->note.kind = MODEL_WRITTEN;
        note(op->worker, &op->note);
    }
    memset(io->data, 0xcc, (size_t)op->note.count * 4096);
    worker_go_on(op->worker);
}

static void sequence_choose(struct worker *worker, struct op *op)
{
    unsigned group = model_group_of(op->note.index);
    op->io.dirty = draw(worker, 3) == 0 || worker->draining[group] || !worker->model->groups[group].live;
    op->io.unmirrored = worker->story->unmirrored && draw(worker, 3) == 0;
    if (op->io.unmirrored) {
        op->io.dirty = false;
        op->note.sequence = MODEL_UNMIRRORED;
    } else if (!op->io.dirty) {
        op->io.session = model_session_id(worker->model->groups[group].session);
        op->io.sequence = op->note.sequence = ++worker->sequence[group];
    }
}

static void op_begin(struct worker *worker, struct op *op)
{
    if (!range_draw(worker, &op->note))
        return;
    op->busy = true;
    op->reads = draw(worker, 6) == 0;
    uint8_t *data = op->io.data;
    op->io = (struct pool_io){.done = op_done,
                              .volume = volume_handle(worker, op->note.index),
                              .data = data,
                              .block = op->note.block,
                              .count = op->note.count};
    if (op->reads) {
        pool_read(worker->pool, &op->io);
        return;
    }
    op->note.kind = MODEL_WRITE;
    op->note.version = worker->model->version + 1;
    sequence_choose(worker, op);
    note(worker, &op->note);
    for (uint32_t index = 0; index < op->note.count; index++)
        model_fill(data + (size_t)index * 4096, op->note.index, op->note.block + index, op->note.version);
    if (op->note.version % 5)
        pool_write(worker->pool, &op->io);
    else
        pool_zero(worker->pool, &op->io);
}

/* --- sessions ----------------------------------------------------------------------------------------------------- */

static bool session_write_is_busy(const struct worker *worker, unsigned group)
{
    for (unsigned index = 0; index < LOAD_OPS; index++) {
        const struct op *op = &worker->ops[index];
        if (op->busy && !op->reads && model_group_of(op->note.index) == group && op->note.sequence &&
            !(op->note.sequence & MODEL_UNMIRRORED))
            return true;
    }
    return false;
}

static void session_switch(struct worker *worker, unsigned group)
{
    if (session_write_is_busy(worker, group))
        return;
    struct id id = model_group_id(group);
    if (draw(worker, 2)) {
        pool_session_end(worker->pool, &id);
        note(worker, &(struct cut_note){.kind = MODEL_END, .index = group});
    }
    uint64_t number = worker->model->session + 1;
    struct id session = model_session_id(number);
    note(worker, &(struct cut_note){.kind = MODEL_BEGIN, .index = group, .sequence = number});
    pool_session_begin(worker->pool, &id, &session);
    worker->sequence[group] = 0;
    worker->draining[group] = false;
}

/* Up to below the oldest that is not done. */
static void session_commit(struct worker *worker, unsigned group)
{
    uint64_t upto = worker->sequence[group];
    for (unsigned index = 0; index < LOAD_OPS; index++) {
        const struct op *op = &worker->ops[index];
        if (op->busy && !op->reads && model_group_of(op->note.index) == group && op->note.sequence &&
            op->note.sequence <= upto)
            upto = op->note.sequence - 1;
    }
    struct id id = model_group_id(group);
    if (!worker->model->groups[group].live || upto <= worker->model->groups[group].commit)
        return;
    if (worker->left)
        upto -= draw(worker, (uint32_t)(upto - worker->model->groups[group].commit));
    note(worker, &(struct cut_note){.kind = MODEL_COMMIT, .index = group, .sequence = upto});
    pool_session_commit(worker->pool, &id, upto);
}

/* --- everything else ---------------------------------------------------------------------------------------------- */

struct task {
    struct worker *worker;
    struct cut_note note; /* when it is done */
    unsigned volume;
};

static void task_done(void *userdata, int result)
{
    struct task *task = userdata;
    struct worker *worker = task->worker;
    bool is_refused = result == -EBADMSG && worker->story->lossy; /* to grow a volume whose holes are lost */
    check(result == 0 || is_refused);
    if (task->note.kind && !is_refused)
        note(worker, &task->note);
    if (task->volume < MODEL_VOLUMES)
        worker->quiet[task->volume]--;
    worker->tasks--;
    free(task);
    worker_go_on(worker);
}

static struct task *task_new(struct worker *worker, struct cut_note done)
{
    struct task *task = calloc(1, sizeof *task);
    check(task);
    worker->tasks++;
    *task = (struct task){.worker = worker, .note = done, .volume = MODEL_VOLUMES};
    return task;
}

static void group_save(struct worker *worker)
{
    struct cut_note begin = {.kind = MODEL_SAVE, .index = draw(worker, MODEL_GROUPS)}, end = begin;
    static uint32_t blob[BLOB_WORDS_MAX];
    end.version = begin.version = worker->model->groups[begin.index].saving + 1;
    end.kind = MODEL_SAVED;
    uint32_t words = 1 + draw(worker, BLOB_WORDS_MAX);
    for (uint32_t index = 0; index < words; index++)
        blob[index] = begin.version;
    note(worker, &begin);
    struct id id = model_group_id(begin.index);
    pool_group_save(worker->pool, &id, blob, words * 4, task_done, task_new(worker, end));
}

static void dirty_change(struct worker *worker)
{
    struct cut_note end;
    if (!range_draw(worker, &end))
        return;
    struct pool_volume *volume = volume_handle(worker, end.index);
    if (draw(worker, 2)) {
        end.kind = MODEL_CLEAR;
        note(worker, &end);
        pool_dirty_clear(worker->pool, volume, end.block, end.count);
        return;
    }
    end.kind = MODEL_MARKED;
    struct task *task = task_new(worker, end);
    task->volume = end.index;
    worker->quiet[end.index]++; /* else a clear might come between */
    pool_dirty_mark(worker->pool, volume, end.block, end.count, task_done, task);
}

/* The third and fourth volume come and go, with the same id. */
static void volume_change(struct worker *worker, unsigned volume)
{
    struct id id = model_volume_id(volume), group = model_group_id(model_group_of(volume));
    bool create = worker->model->volumes[volume].presence == MODEL_ABSENT;
    struct cut_note begin = {.kind = create ? MODEL_CREATE : MODEL_DELETE,
                             .index = volume,
                             .count = volume_blocks[volume]},
                    end = begin;
    end.kind++;
    struct task *task = task_new(worker, end);
    task->volume = volume;
    worker->changing[volume] = false;
    note(worker, &begin);
    if (create)
        pool_volume_create(worker->pool, &group, &id, begin.count * 4096ull, task_done, task);
    else
        pool_volume_delete(worker->pool, volume_handle(worker, volume), task_done, task);
}

static void volume_change_later(struct worker *worker)
{
    unsigned volume = 2 + draw(worker, 2);
    if (worker->quiet[volume])
        return;
    worker->quiet[volume]++;
    worker->changing[volume] = true;
}

static void volumes_look(struct worker *worker)
{
    for (unsigned volume = 0; volume < MODEL_VOLUMES; volume++)
        if (worker->changing[volume] && !range_is_busy(worker, volume, 0, MODEL_BLOCKS_MAX))
            volume_change(worker, volume);
}

/* The first two grow, with requests under way. */
static void volume_grow(struct worker *worker)
{
    unsigned volume = draw(worker, 2);
    struct model_volume *state = &worker->model->volumes[volume];
    uint32_t count = state->block_count + 1 + draw(worker, 90);
    if (state->grown_count != state->block_count || count > MODEL_BLOCKS_MAX)
        return;
    struct cut_note begin = {.kind = MODEL_GROW, .index = volume, .count = count}, end = begin;
    end.kind = MODEL_GROWN;
    note(worker, &begin);
    pool_volume_grow(worker->pool, volume_handle(worker, volume), count * 4096ull, task_done, task_new(worker, end));
}

static void disk_changed(void *userdata, int result)
{
    struct worker *worker = userdata;
    check(result == 0 || result == -EBUSY || result == -EINVAL || result == -ENOSPC ||
          (result == -EIO && worker->story->lossy));
    worker->disk_is_changing = false;
    worker_go_on(worker);
}

static const struct pool_disk_info *disk_of_path(const struct pool_disk_info *list, unsigned count, const char *path)
{
    for (unsigned index = 0; index < count; index++)
        if (!strcmp(list[index].path, path))
            return &list[index];
    return NULL;
}

/* One of the lab's disks: in the pool it is drained, else it is added. */
static void disk_change(struct worker *worker)
{
    struct pool_disk_info list[POOL_DISKS_MAX];
    struct cut_device *device = &worker->story->lab.device;
    const char *path = device->disks[draw(worker, device->disk_count)].path;
    const struct pool_disk_info *found = disk_of_path(list, pool_disk_list(worker->pool, list), path);
    struct pool_stats stats;
    if (worker->disk_is_changing)
        return;
    worker->disk_is_changing = true;
    if (found) {
        pool_disk_remove(worker->pool, &found->id, false, disk_changed, worker);
        return;
    }
    pool_get_stats(worker->pool, &stats);
    struct pool_disk_prepare_options options = {
        .path = path, .pool = stats.id, .node = model_group_id(99), .journal_bytes = JOURNAL_BYTES, .force = true};
    struct pool_disk_prepared *prepared;
    struct err err = {0};
    if (pool_disk_prepare(&options, &prepared, &err) < 0) {
        check(!strcmp(err.code, "busy")); /* it is leaving just now */
        worker->disk_is_changing = false;
        return;
    }
    pool_disk_add(worker->pool, prepared, disk_changed, worker);
}

static void something_else(struct worker *worker)
{
    unsigned group = draw(worker, MODEL_GROUPS), what = draw(worker, 100);
    if (what < 40)
        session_commit(worker, group);
    else if (what < 50)
        worker->draining[group] = true;
    else if (what < 65)
        group_save(worker);
    else if (what < 80)
        dirty_change(worker);
    else if (what < 88)
        volume_change_later(worker);
    else if (what < 92)
        pool_checkpoint(worker->pool, task_done, task_new(worker, (struct cut_note){0}));
    else if (what < 95)
        volume_grow(worker);
    else if (worker->story->disks_change)
        disk_change(worker);
    if (worker->draining[group])
        session_switch(worker, group);
}

static void worker_go_on(struct worker *worker)
{
    for (unsigned index = 0; index < LOAD_OPS && worker->left; index++) {
        if (worker->ops[index].busy)
            continue;
        worker->left--;
        op_begin(worker, &worker->ops[index]);
        if (draw(worker, 5) == 0)
            something_else(worker);
    }
    volumes_look(worker);
    for (unsigned group = 0; group < MODEL_GROUPS && !worker->left; group++)
        session_commit(worker, group); /* a drain waits for it */
    bool busy = worker->left > 0 || worker->disk_is_changing || worker->tasks > 0;
    for (unsigned index = 0; index < LOAD_OPS; index++)
        busy |= worker->ops[index].busy;
    if (!busy)
        ring_stop(worker->ring);
}

/* --- the story ---------------------------------------------------------------------------------------------------- */

static void story_open(struct load_story *story, struct ring **ret_ring, struct pool **ret_pool)
{
    const char *paths[CUT_DISKS_MAX];
    struct err err = {0};
    unsigned count = story->lab.device.disk_count;
    for (unsigned index = 0; index < count; index++)
        paths[index] = story->lab.device.disks[index].path;
    check(ring_new(64, ret_ring) == 0);
    if (pool_open(*ret_ring, paths, count, ret_pool, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        _Exit(1);
    }
}

/* From some request on all of the disk's fail. */
static int disk_fault(void *userdata, unsigned disk, enum cut_operation operation, uint64_t offset, uint64_t size)
{
    struct load_story *story = userdata;
    if (!story->lossy || disk != story->failing_disk)
        return 0;
    return ++story->failing_count > story->failing_after ? -EIO : 0;
}

static void story_load(void *userdata)
{
    static struct worker worker;
    worker = (struct worker){.story = userdata};
    worker.model = worker.story->model;
    worker.left = worker.story->operations;
    worker.random = &worker.story->lab.device.random;
    worker.uniform = draw(&worker, 3) == 0;
    story_open(worker.story, &worker.ring, &worker.pool);
    worker.story->lab.device.fault = disk_fault; /* a disk that fails at opening is refused */
    worker.story->lab.device.userdata = worker.story;
    for (unsigned group = 0; group < MODEL_GROUPS; group++)
        session_switch(&worker, group);
    for (unsigned index = 0; index < LOAD_OPS; index++) {
        worker.ops[index].worker = &worker;
        worker.ops[index].io.data = aligned_alloc(4096, POOL_WRITE_BLOCKS_MAX * 4096);
        check(worker.ops[index].io.data);
    }
    worker_go_on(&worker);
    check(ring_run(worker.ring) == 0);
    if (draw(&worker, 2))
        pool_close(worker.pool); /* this may be cut as well */
}

static void story_note(void *userdata, const struct cut_note *note)
{
    model_note(((struct load_story *)userdata)->model, note);
}

static int story_look(void *userdata)
{
    struct load_story *story = userdata;
    struct ring *ring;
    struct pool *pool;
    story_open(story, &ring, &pool);
    return model_look(story->model, ring, pool, story->seen, story->lossy);
}

static void volumes_make(void *userdata)
{
    static struct worker worker;
    worker = (struct worker){.story = userdata};
    worker.model = worker.story->model;
    story_open(worker.story, &worker.ring, &worker.pool);
    for (unsigned volume = 0; volume < 2; volume++) {
        struct id id = model_volume_id(volume), group = model_group_id(model_group_of(volume));
        struct cut_note begin = {.kind = MODEL_CREATE, .index = volume, .count = volume_blocks[volume]}, end = begin;
        end.kind++;
        note(&worker, &begin);
        pool_volume_create(worker.pool, &group, &id, begin.count * 4096ull, task_done, task_new(&worker, end));
        check(ring_run(worker.ring) == 0);
    }
    pool_close(worker.pool);
}

void load_story_new(struct load_story *story, unsigned disk_count, unsigned lab_disks, uint64_t seed)
{
    *story = (struct load_story){.operations = 300, .disk_count = disk_count};
    cut_lab_new(&story->lab, lab_disks, DISK_BYTES, seed);
    story->lab.userdata = story;
    story->model = calloc(1, sizeof *story->model);
    story->seen = mmap(NULL, sizeof *story->seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(story->model && story->seen != MAP_FAILED);
    const char *paths[CUT_DISKS_MAX];
    struct id id;
    struct err err = {0};
    for (unsigned index = 0; index < disk_count; index++)
        paths[index] = story->lab.device.disks[index].path;
    struct pool_create_options options = {
        .paths = paths, .path_count = disk_count, .node = model_group_id(99), .journal_bytes = JOURNAL_BYTES};
    story->lab.device.mode = CUT_TOUCH;
    cut_device_use(&story->lab.device);
    if (pool_create(&options, &id, &err) < 0)
        fprintf(stderr, "%s\n", err.text);
    check(!err.text[0]);
    cut_device_use(NULL);
    cut_lab_settle(&story->lab);
    story->lab.load = volumes_make;
    story->lab.note = story_note;
    story->lab.look = story_look;
    check(cut_lab_round(&story->lab, 0, 1) == 0);
    check(cut_lab_end(&story->lab) == 0);
    model_adopt(story->model, story->seen);
    story->lab.load = story_load;
}

void load_story_free(struct load_story *story)
{
    cut_lab_free(&story->lab);
    munmap(story->seen, sizeof *story->seen);
    free(story->model);
}

unsigned load_story_run(struct load_story *story, unsigned rounds, unsigned cuts, unsigned fails_max)
{
    unsigned fails = 0;
    for (unsigned round = 0; round < rounds && fails < fails_max; round++) {
        story->failing_disk = round; /* each only once: half of the pool's disks must not be lost at a time */
        story->failing_after = cut_random_below(&story->lab.random, 500);
        fails += cut_lab_round(&story->lab, cuts, fails_max - fails);
        fails += cut_lab_keep(&story->lab) != 0;
        model_adopt(story->model, story->seen);
    }
    return fails;
}

uint64_t load_seed(void)
{
    const char *text = getenv("HCI_SEED");
    /* Everybody runs the same stories, so a failure is the change's; HCI_SEED=0 takes others each time. */
    uint64_t seed = text ? strtoull(text, NULL, 0) : 1;
    return seed ? seed : (uint64_t)time(NULL);
}

unsigned load_rounds(unsigned usual)
{
    const char *text = getenv("HCI_ROUNDS");
    return text ? (unsigned)strtoul(text, NULL, 0) : usual;
}
