/* R7.3 at the source: brings the other copy up to date in runs of blocks: lock, read, compare hashes, copy what differs,
 * and only then clear the dirty bits. Also reconciles both tails before a session of equals serves (R6). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "common/seal.h"
#include "storaged/engine/engine_private.h"

#define AGAIN_MS 5000u  /* after a block that could not be read here */
#define HOLD_DOUBLINGS 5 /* a busy guest: hold earlier with every pass, at most 8192 blocks (32 MiB) before the end */

static void run_locked(struct resync_run *run);

/* ---- a run's end --------------------------------------------------------------------------------------------------------- */

static void run_free(struct resync_run *run)
{
    struct group *group = run->group;
    if (run->buffer)
        iobuf_put(group->engine->work, run->buffer);
    run->buffer = NULL;
    run->used = false;
    group->resync.busy_runs--;
    range_lock_release(&run->volume->lock, &run->lock);
    resync_advance(group);
    group_check_quiesced(group);
}

static void run_check(struct resync_run *run)
{
    if (run->io_busy || run->sends_busy || run->acks_wanted || run->need_wanted || run->waiting)
        return;
    if (!run->stopped) {
        /* I8: an acknowledged copy of the current version: no write could touch the blocks since they were read. */
        struct group *group = run->group;
        pool_dirty_clear(group->engine->pool, run->volume->stored, run->block, run->count);
        group->resync.compared_blocks += run->count;
    }
    run_free(run);
}

static void run_fail(struct resync_run *run, int result)
{
    struct group *group = run->group;
    log_error("group '%s': block %llu of volume '%s' cannot be copied to the other node: %s", group->name,
              (unsigned long long)run->io.bad_block, run->volume->name,
              result == -EBADMSG ? "it does not match its checksum" : strerror(-result));
    group->resync.failed = true;
    run_free(run);
    if (result != -EBADMSG)
        group_store_failed(group, result, "read of a resync");
}

/* ---- copying ------------------------------------------------------------------------------------------------------------------ */

static void piece_sent(struct mirror_send *send)
{
    struct resync_piece *piece = list_entry(send, struct resync_piece, send);
    piece->run->sends_busy--;
    run_check(piece->run);
}

static void piece_acked(struct flight *flight)
{
    struct resync_piece *piece = list_entry(flight, struct resync_piece, flight);
    piece->run->acks_wanted--;
    run_check(piece->run);
}

static void send_piece(struct resync_run *run, struct resync_piece *piece, uint32_t first, uint32_t count, bool zero)
{
    struct group *group = run->group;
    struct mirror_message message;
    piece->run = run;
    piece->used = true;
    piece->flight.acked = piece_acked;
    piece->send.done = piece_sent;
    uint64_t sequence = session_next(group, &piece->flight);
    piece->flight.stored = true; /* it is from our own durable copy */
    session_fill(group, &message, zero ? MIRROR_ZERO : MIRROR_WRITE);
    message.sequence = sequence;
    message.volume = run->volume->id;
    message.block = run->block + first;
    message.count = count;
    message.copy = 1;
    message.data_size = zero ? 0 : count * LUN_BLOCK_SIZE;
    group->resync.copied_blocks += count;
    run->acks_wanted++;
    run->sends_busy++;
    if (!mirror_link_send(group->engine->link, &piece->send, &message, zero ? NULL : run->buffer + (size_t)first * LUN_BLOCK_SIZE))
        run->sends_busy--; /* the session's end is about to be told */
}

static bool is_zero(const struct resync_run *run, uint32_t index)
{
    const uint8_t *block = run->buffer + (size_t)index * LUN_BLOCK_SIZE;
    return block[0] == 0 && memcmp(block, block + 1, LUN_BLOCK_SIZE - 1) == 0;
}

static bool is_needed(uint64_t bitmap, uint32_t index)
{
    return bitmap >> index & 1;
}

static uint32_t last_needed(const struct resync_run *run, uint64_t bitmap)
{
    uint32_t last = run->count - 1;
    while (!is_needed(bitmap, last))
        last--;
    return last;
}

/* Neighbours go together; the last piece takes all the rest, should a run be that patchy. */
static void send_pieces(struct resync_run *run, uint64_t bitmap)
{
    unsigned used = 0;
    for (uint32_t first = 0; first < run->count;) {
        if (!is_needed(bitmap, first)) {
            first++;
            continue;
        }
        bool zero = is_zero(run, first);
        uint32_t end = first + 1;
        while (end < run->count && is_needed(bitmap, end) && is_zero(run, end) == zero)
            end++;
        if (used == RESYNC_PIECES - 1) {
            end = last_needed(run, bitmap) + 1;
            zero = false;
        }
        check(used < RESYNC_PIECES);
        send_piece(run, &run->pieces[used++], first, end - first, zero);
        first = end;
    }
}

const char *resync_need(struct group *group, const struct mirror_message *message)
{
    for (unsigned i = 0; i < RESYNC_RUNS; i++) {
        struct resync_run *run = &group->resync.runs[i];
        if (!run->used || !run->need_wanted || run->tag != message->tag)
            continue;
        if (run->count < 64 && message->bitmap >> run->count)
            return "it needs blocks that were not compared";
        run->need_wanted = false;
        if (message->bitmap)
            send_pieces(run, message->bitmap);
        run_check(run);
        return NULL;
    }
    return "it answers a comparison that was not asked for";
}

/* ---- comparing ----------------------------------------------------------------------------------------------------------------- */

static void compare_sent(struct mirror_send *send)
{
    struct resync_run *run = list_entry(send, struct resync_run, compare);
    run->sends_busy--;
    run_check(run);
}

static void run_read(struct pool_io *io, int result)
{
    struct resync_run *run = list_entry(io, struct resync_run, io);
    struct group *group = run->group;
    run->io_busy = false;
    if (run->stopped) {
        run_check(run);
        return;
    }
    if (result < 0) {
        run_fail(run, result);
        return;
    }
    for (uint32_t i = 0; i < run->count; i++)
        seal_hash128(run->buffer + (size_t)i * LUN_BLOCK_SIZE, LUN_BLOCK_SIZE, run->hashes + (size_t)i * MIRROR_HASH_SIZE);
    struct mirror_message message;
    session_fill(group, &message, MIRROR_COMPARE);
    message.volume = run->volume->id;
    message.block = run->block;
    message.count = run->count;
    message.tag = run->tag;
    message.data_size = run->count * MIRROR_HASH_SIZE;
    run->compare.done = compare_sent;
    run->need_wanted = true;
    run->sends_busy++;
    if (!mirror_link_send(group->engine->link, &run->compare, &message, run->hashes))
        run->sends_busy--;
}

static void memory_came_back(struct iobuf_waiter *waiter)
{
    struct resync_run *run = list_entry(waiter, struct resync_run, waiter);
    run->waiting = false;
    run_locked(run);
}

static void run_locked(struct resync_run *run)
{
    struct engine *engine = run->group->engine;
    run->buffer = iobuf_get(engine->work, (size_t)run->count * LUN_BLOCK_SIZE);
    if (!run->buffer) {
        run->waiting = true;
        run->waiter.retry = memory_came_back;
        iobuf_wait(engine->work, &run->waiter);
        return;
    }
    run->io = (struct pool_io){
        .done = run_read, .volume = run->volume->stored, .block = run->block, .count = run->count, .data = run->buffer};
    run->io_busy = true;
    pool_read(engine->pool, &run->io);
}

static void lock_granted(struct range_lock_entry *entry)
{
    struct resync_run *run = list_entry(entry, struct resync_run, lock);
    if (!run->stopped)
        run_locked(run);
}

static void run_begin(struct resync_run *run, struct group_volume *volume, uint64_t block, uint32_t count)
{
    struct group *group = run->group;
    run->used = true;
    run->waiting = run->io_busy = run->need_wanted = run->stopped = false;
    run->sends_busy = run->acks_wanted = 0;
    run->volume = volume;
    run->block = block;
    run->count = count;
    run->tag = ++group->engine->tags;
    for (unsigned i = 0; i < RESYNC_PIECES; i++) {
        run->pieces[i].used = false;
        list_init(&run->pieces[i].flight.link);
    }
    group->resync.busy_runs++;
    /* Shared: reads go on, writes wait until the copy is acknowledged. */
    run->lock = (struct range_lock_entry){.block = block, .count = count, .granted = lock_granted};
    if (range_lock_take(&volume->lock, &run->lock))
        run_locked(run);
}

/* ---- passes --------------------------------------------------------------------------------------------------------------------- */

static struct resync_run *free_run(struct resync *resync)
{
    for (unsigned i = 0; i < RESYNC_RUNS; i++)
        if (!resync->runs[i].used)
            return &resync->runs[i];
    return NULL;
}

/* False: this pass has seen everything. */
static bool next_run(struct group *group, struct resync_run *run)
{
    struct resync *resync = &group->resync;
    while (resync->volume_index < GROUP_VOLUMES_MAX) {
        struct group_volume *volume = &group->volumes[resync->volume_index];
        uint64_t block;
        uint32_t count = 0;
        if (volume->used && volume->stored)
            count = pool_dirty_next(group->engine->pool, volume->stored, resync->cursor, MIRROR_RUN_BLOCKS, &block);
        if (count) {
            resync->cursor = block + count;
            run_begin(run, volume, block, count);
            return true;
        }
        resync->volume_index++;
        resync->cursor = 0;
    }
    return false;
}

static void new_pass(struct resync *resync)
{
    resync->volume_index = 0;
    resync->cursor = 0;
    resync->passes++;
}

static void tell(struct group *group, int state)
{
    struct resync *resync = &group->resync;
    struct engine *engine = group->engine;
    struct engine_resync_state told = {
        .group = group->id,
        .state = state,
        .reconcile = resync->reconciling,
        .bytes_copied = resync->copied_blocks * LUN_BLOCK_SIZE,
        .seconds = (double)(ring_now_ms(engine->ring) - resync->started_ms) / 1000.0,
    };
    memcpy(told.name, group->name, sizeof told.name);
    engine->options.port.resync_changed(engine->options.port.userdata, &told);
    if (state != ENGINE_RESYNC_STARTED)
        log_notice("group '%s': %s %s after %.2f s: %llu KiB compared, %llu KiB copied", group->name,
                   resync->reconciling ? "reconciling of both tails" : "resync of the other node",
                   state == ENGINE_RESYNC_DONE ? "finished" : "interrupted", told.seconds,
                   (unsigned long long)resync->compared_blocks * LUN_BLOCK_SIZE / 1024,
                   (unsigned long long)told.bytes_copied / 1024);
}

static void finish(struct group *group)
{
    struct resync *resync = &group->resync;
    resync->active = false;
    tell(group, ENGINE_RESYNC_DONE);
    group_tell(group, resync->reconciling ? AUTHORITY_EV_RECONCILED : AUTHORITY_EV_IN_SYNC, true);
}

static bool metadata_is_current(struct group *group)
{
    if (group->meta_flying || group->has_next)
        return false;
    if (group->resync.meta_sent && group->resync.meta_version == group->metadata.version)
        return true;
    meta_send_whole(group);
    return false;
}

/* The pass is over and no run is under way. True: go on with another pass. */
static bool pass_over(struct group *group)
{
    struct resync *resync = &group->resync;
    if (resync->failed) {
        ring_timer_start(group->engine->ring, &resync->again, AGAIN_MS);
        if (resync->holding) {
            resync->holding = group->hold_writes = false;
            group_run_held(group);
        }
        return false;
    }
    uint64_t left = group_dirty_blocks(group);
    unsigned doublings = resync->passes < HOLD_DOUBLINGS ? resync->passes : HOLD_DOUBLINGS;
    if (!resync->reconciling && !resync->holding && left <= (uint64_t)RESYNC_HOLD_BLOCKS << doublings) {
        resync->holding = true;
        group->hold_writes = true;
    }
    if (left > 0) {
        new_pass(resync);
        return true;
    }
    /* R7.4: drained: no write is un-done and new ones are held. */
    bool drained = resync->reconciling || (resync->holding && group->writes_running == 0);
    if (drained && metadata_is_current(group))
        finish(group);
    return false;
}

void resync_advance(struct group *group)
{
    struct resync *resync = &group->resync;
    if (!resync->active)
        return;
    resync->again_wanted = true;
    if (resync->advancing)
        return;
    resync->advancing = true;
    while (resync->active && resync->again_wanted) {
        resync->again_wanted = false;
        struct resync_run *run;
        bool more = true;
        while (resync->active && more && (run = free_run(resync)))
            more = next_run(group, run);
        if (resync->active && !more && resync->busy_runs == 0 && pass_over(group))
            resync->again_wanted = true;
    }
    resync->advancing = false;
}

static void again(struct ring_timer *timer)
{
    struct group *group = list_entry(timer, struct group, resync.again);
    group->resync.failed = false;
    new_pass(&group->resync);
    resync_advance(group);
}

void resync_init(struct group *group)
{
    group->resync.again.expired = again;
    for (unsigned i = 0; i < RESYNC_RUNS; i++)
        group->resync.runs[i].group = group;
}

void resync_start(struct group *group, bool reconciling)
{
    struct resync *resync = &group->resync;
    resync->active = true; /* runs of a session that ended a moment ago may still be on their way out */
    resync->reconciling = reconciling;
    resync->holding = resync->failed = resync->meta_sent = false;
    resync->passes = 0;
    resync->volume_index = 0;
    resync->cursor = 0;
    resync->copied_blocks = resync->compared_blocks = 0;
    resync->started_ms = ring_now_ms(group->engine->ring);
    uint64_t left = group_dirty_blocks(group);
    log_notice("group '%s': %s: %llu blocks may differ", group->name,
               reconciling ? "reconciling both tails with the secondary" : "resync of the other node begins", (unsigned long long)left);
    tell(group, ENGINE_RESYNC_STARTED);
    meta_send_whole(group);
    resync_advance(group);
}

static void stop_run(struct resync_run *run)
{
    struct mirror_link *link = run->group->engine->link;
    run->stopped = true;
    run->need_wanted = false;
    run->acks_wanted = 0;
    if (run->waiting)
        iobuf_wait_cancel(run->group->engine->work, &run->waiter);
    run->waiting = false;
    if (mirror_link_cancel(link, &run->compare))
        run->sends_busy--;
    for (unsigned i = 0; i < RESYNC_PIECES; i++) {
        if (!run->pieces[i].used)
            continue;
        list_remove(&run->pieces[i].flight.link);
        if (mirror_link_cancel(link, &run->pieces[i].send))
            run->sends_busy--;
    }
    run_check(run);
}

void resync_stop(struct group *group)
{
    struct resync *resync = &group->resync;
    ring_timer_stop(&resync->again);
    if (resync->active) {
        resync->active = false;
        tell(group, ENGINE_RESYNC_INTERRUPTED);
    }
    for (unsigned i = 0; i < RESYNC_RUNS; i++)
        if (resync->runs[i].used)
            stop_run(&resync->runs[i]);
}

bool resync_is_idle(const struct group *group)
{
    return group->resync.busy_runs == 0;
}
