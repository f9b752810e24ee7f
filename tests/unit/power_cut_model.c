/* What a pool owes after a power cut: see power_cut_model.h. */
#include "tests/unit/power_cut_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"

#define BLOCK 4096u
#define SECTOR 512u
#define UNKNOWN UINT32_MAX
#define LOST (UINT32_MAX - 1)
#define READ_BLOCKS 256u

static struct id id_of(uint8_t kind, uint64_t number)
{
    struct id id = {{kind, 0x5a}};
    memcpy(id.bytes + 8, &number, sizeof number);
    return id;
}

struct id model_group_id(unsigned group)
{
    return id_of(1, group + 1);
}

struct id model_volume_id(unsigned volume)
{
    return id_of(2, volume + 1);
}

struct id model_session_id(uint64_t number)
{
    return id_of(3, number);
}

/* Every sector differs, so that a torn block is neither. */
void model_fill(uint8_t *data, unsigned volume, uint64_t block, uint32_t version)
{
    uint64_t *words = (uint64_t *)(void *)data;
    bool zeros = version % 5 == 0;
    for (unsigned sector = 0; sector < BLOCK / SECTOR; sector++) {
        uint64_t value = ((uint64_t)version << 32 | volume << 28 | block << 4 | sector) * 0x9e3779b97f4a7c15u;
        for (unsigned index = 0; index < SECTOR / 8; index++)
            *words++ = zeros ? 0 : value;
    }
}

/* --- what the notes say ------------------------------------------------------------------------------------------- */

static void write_begins(struct model *model, const struct cut_note *note)
{
    struct model_group *group = &model->groups[model_group_of(note->index)];
    for (uint32_t index = 0; index < note->count; index++) {
        struct model_block *block = &model->volumes[note->index].blocks[note->block + index];
        check(!block->pending);
        block->pending = note->version;
        block->pending_sequence = note->sequence;
        block->pending_first = (uint32_t)note->block;
        block->pending_count = note->count;
    }
    model->version = note->version > model->version ? note->version : model->version;
    if (!(note->sequence & MODEL_UNMIRRORED) && note->sequence > group->submitted)
        group->submitted = note->sequence;
}

static void block_takes_pending(struct model_block *block)
{
    block->version = block->pending;
    block->sequence = block->pending_sequence & MODEL_UNMIRRORED ? 0 : block->pending_sequence;
    block->own_dirty = block->pending_sequence == 0;
    block->must_be_dirty |= block->own_dirty;
    block->unknown = false;
    block->pending = 0;
}

static void write_done(struct model *model, const struct cut_note *note)
{
    struct model_group *group = &model->groups[model_group_of(note->index)];
    for (uint32_t index = 0; index < note->count; index++)
        block_takes_pending(&model->volumes[note->index].blocks[note->block + index]);
    if (!(note->sequence & MODEL_UNMIRRORED) && note->sequence > group->acked)
        group->acked = note->sequence;
}

static void marks_change(struct model *model, const struct cut_note *note, bool dirty)
{
    for (uint32_t index = 0; index < note->count; index++) {
        struct model_block *block = &model->volumes[note->index].blocks[note->block + index];
        block->must_be_dirty = block->own_dirty = dirty;
        if (!dirty)
            block->sequence = 0; /* I8: the caller has vouched for it */
    }
}

/* R4: the tail may differ from now on. */
static void session_ends(struct model *model, unsigned index)
{
    struct model_group *group = &model->groups[index];
    for (unsigned volume = 0; volume < MODEL_VOLUMES; volume++)
        for (uint32_t at = 0; model_group_of(volume) == index && at < MODEL_BLOCKS_MAX; at++) {
            struct model_block *block = &model->volumes[volume].blocks[at];
            block->own_dirty |= block->sequence > group->commit;
            block->must_be_dirty |= block->own_dirty;
            block->sequence = 0;
        }
    group->live = false;
}

static void session_begins(struct model *model, const struct cut_note *note)
{
    struct model_group *group = &model->groups[note->index];
    session_ends(model, note->index);
    group->session = model->session = note->sequence;
    group->live = true;
    group->commit = group->acked = group->submitted = 0;
}

static void volume_clear(struct model_volume *volume)
{
    memset(volume->blocks, 0, sizeof volume->blocks);
}

static void note_volume(struct model_volume *volume, const struct cut_note *note)
{
    switch ((enum model_note)note->kind) {
    case MODEL_CREATE:
        volume_clear(volume);
        volume->presence = MODEL_COMING;
        volume->block_count = volume->grown_count = note->count;
        break;
    case MODEL_CREATED: volume->presence = MODEL_PRESENT; break;
    case MODEL_DELETE: volume->presence = MODEL_GOING; break;
    case MODEL_DELETED: volume->presence = MODEL_ABSENT; break;
    case MODEL_GROW: volume->grown_count = note->count; break;
    case MODEL_GROWN: volume->block_count = note->count; break;
    default: check(!"a note of a volume");
    }
}

void model_note(struct model *model, const struct cut_note *note)
{
    switch ((enum model_note)note->kind) {
    case MODEL_WRITE: write_begins(model, note); break;
    case MODEL_WRITTEN: write_done(model, note); break;
    case MODEL_MARK: break;
    case MODEL_MARKED: marks_change(model, note, true); break;
    case MODEL_CLEAR: marks_change(model, note, false); break;
    case MODEL_BEGIN: session_begins(model, note); break;
    case MODEL_COMMIT: model->groups[note->index].commit = note->sequence; break;
    case MODEL_END: session_ends(model, note->index); break;
    case MODEL_SAVE: model->groups[note->index].saving = note->version; break;
    case MODEL_SAVED: model->groups[note->index].saved = note->version; break;
    default: note_volume(&model->volumes[note->index], note);
    }
}

/* --- the look ----------------------------------------------------------------------------------------------------- */

struct look {
    const struct model *model;
    struct ring *ring;
    struct pool *pool;
    struct model_seen *seen;
    unsigned volume;
    struct pool_volume *handle;
    struct pool_io io;
    int result, errors;
    bool lossy;
    uint8_t *expected;
};

#define COMPLAIN(look, ...) ((look)->errors++ < 3 ? (void)fprintf(stderr, __VA_ARGS__) : (void)0)

static void look_done(struct pool_io *io, int result)
{
    struct look *look = io->private_data;
    look->result = result;
    ring_stop(look->ring);
}

static bool is_version(struct look *look, uint32_t block, uint32_t version, const uint8_t *data)
{
    model_fill(look->expected, look->volume, block, version);
    return memcmp(look->expected, data, BLOCK) == 0;
}

/* Of a large write under way each sector may be there or not. */
static bool is_mixture(struct look *look, uint32_t block, const struct model_block *state, const uint8_t *data)
{
    uint8_t old[BLOCK];
    if (state->pending_count <= MODEL_ATOMIC_BLOCKS)
        return false;
    model_fill(old, look->volume, block, state->version);
    model_fill(look->expected, look->volume, block, state->pending);
    for (unsigned at = 0; at < BLOCK; at += SECTOR)
        if (memcmp(old + at, data + at, SECTOR) != 0 && memcmp(look->expected + at, data + at, SECTOR) != 0)
            return false;
    return true;
}

static bool is_dirty(struct look *look, uint32_t block)
{
    uint64_t found;
    return pool_dirty_next(look->pool, look->handle, block, 1, &found) && found == block;
}

static void marks_look(struct look *look, uint32_t block, const struct model_block *state, bool is_new)
{
    const struct model_group *group = &look->model->groups[model_group_of(look->volume)];
    bool must = (look->lossy ? state->own_dirty : state->must_be_dirty) || state->sequence > group->commit;
    if (is_new && state->pending && !(state->pending_sequence & MODEL_UNMIRRORED))
        must |= state->pending_sequence == 0 || state->pending_sequence > group->commit;
    if (must && !is_dirty(look, block))
        COMPLAIN(look, "volume %u block %u: may differ from the peer, no mark\n", look->volume, block);
}

static void block_look(struct look *look, uint32_t block, const uint8_t *data)
{
    const struct model_block *state = &look->model->volumes[look->volume].blocks[block];
    uint32_t version = UNKNOWN;
    if (is_version(look, block, state->version, data))
        version = state->version;
    else if (state->pending && is_version(look, block, state->pending, data))
        version = state->pending;
    else if (!state->unknown && !(state->pending && is_mixture(look, block, state, data)))
        COMPLAIN(look, "volume %u block %u: neither version %u nor %u (write of %u+%u), begins with %016" PRIx64 "\n",
                 look->volume, block, state->version, state->pending, state->pending_first, state->pending_count,
                 *(const uint64_t *)(const void *)data);
    look->seen->version[look->volume][block] = version;
    /* What was torn once before may still be that: it is not known to be new. */
    bool is_new = version != state->version && !(state->unknown && version == UNKNOWN);
    marks_look(look, block, state, is_new);
}

/* A write of up to 64 KiB inside one extent. */
static void atomic_look(struct look *look, uint32_t first)
{
    const struct model_block *blocks = look->model->volumes[look->volume].blocks;
    uint32_t count = blocks[first].pending_count, old = 0, new = 0;
    if (count > MODEL_ATOMIC_BLOCKS || first / READ_BLOCKS != (first + count - 1) / READ_BLOCKS)
        return;
    for (uint32_t block = first; block < first + count; block++) {
        if (blocks[block].version % 5 == 0 && blocks[block].pending % 5 == 0)
            continue; /* zeros before and after */
        old += look->seen->version[look->volume][block] == blocks[block].version;
        new += look->seen->version[look->volume][block] == blocks[block].pending;
    }
    if (old && new)
        COMPLAIN(look, "volume %u blocks %u+%u: %u blocks of a small write are there, %u are not\n", look->volume,
                 first, count, new, old);
}

static bool range_read(struct look *look, uint32_t block, uint32_t count, uint8_t *data)
{
    look->io = (struct pool_io){
        .done = look_done, .volume = look->handle, .block = block, .data = data, .count = count, .private_data = look};
    memset(data, 0xee, count * BLOCK);
    pool_read(look->pool, &look->io);
    check(ring_run(look->ring) == 0);
    if (look->result < 0 && !look->lossy)
        COMPLAIN(look, "volume %u: reading from block %u: %s at %" PRIu64 "\n", look->volume, block,
                 strerror(-look->result), look->io.bad_block);
    return look->result == 0;
}

/* Block by block: each is there, or lost. */
static void lossy_look(struct look *look, uint32_t block, uint32_t count, uint8_t *data)
{
    for (uint32_t end = block + count; look->lossy && block < end; block++) {
        look->seen->version[look->volume][block] = LOST;
        if (range_read(look, block, 1, data))
            block_look(look, block, data);
        else if (look->result != -EBADMSG || !is_dirty(look, block))
            COMPLAIN(look, "volume %u block %u: %s, and no mark\n", look->volume, block, strerror(-look->result));
    }
}

static void volume_look(struct look *look)
{
    uint32_t count = look->seen->block_count[look->volume];
    const struct model_block *blocks = look->model->volumes[look->volume].blocks;
    uint8_t *data = look->io.data;
    for (uint32_t block = 0; block < count; block += READ_BLOCKS) {
        uint32_t part = count - block < READ_BLOCKS ? count - block : READ_BLOCKS;
        if (range_read(look, block, part, data))
            for (uint32_t at = block; at < block + part; at++)
                block_look(look, at, data + (size_t)(at - block) * BLOCK);
        else
            lossy_look(look, block, part, data);
    }
    for (uint32_t block = 0; block < count && !look->errors && !look->lossy; block++)
        if (blocks[block].pending && blocks[block].pending_first == block)
            atomic_look(look, block);
}

static void presence_look(struct look *look)
{
    const struct model_volume *volume = &look->model->volumes[look->volume];
    struct id id = model_volume_id(look->volume);
    look->handle = pool_volume_find(look->pool, &id);
    look->seen->present[look->volume] = look->handle;
    look->seen->block_count[look->volume] = 0;
    if (!look->handle && volume->presence == MODEL_PRESENT)
        COMPLAIN(look, "volume %u is gone\n", look->volume);
    if (look->handle && volume->presence == MODEL_ABSENT)
        COMPLAIN(look, "volume %u is there again\n", look->volume);
    if (!look->handle)
        return;
    uint64_t count = pool_volume_blocks(look->handle);
    if (count != volume->block_count && count != volume->grown_count)
        COMPLAIN(look, "volume %u has %" PRIu64 " blocks instead of %u\n", look->volume, count, volume->block_count);
    look->seen->block_count[look->volume] = (uint32_t)count;
    volume_look(look);
}

static void group_look(void *userdata, const struct id *id, const void *blob, uint32_t size)
{
    struct look *look = userdata;
    uint32_t version, index = id->bytes[8] - 1u;
    check(size >= sizeof version && index < MODEL_GROUPS);
    memcpy(&version, blob, sizeof version);
    for (uint32_t at = sizeof version; at + sizeof version <= size; at += sizeof version)
        if (memcmp((const uint8_t *)blob + at, &version, sizeof version) != 0)
            COMPLAIN(look, "group %u: its record is of two versions\n", index);
    look->seen->saved[index] = version;
}

static void groups_look(struct look *look)
{
    memset(look->seen->saved, 0, sizeof look->seen->saved);
    pool_group_each(look->pool, group_look, look);
    for (unsigned index = 0; index < MODEL_GROUPS; index++) {
        const struct model_group *group = &look->model->groups[index];
        struct id id = model_group_id(index), session = model_session_id(group->session);
        uint32_t version = look->seen->saved[index];
        if (version < group->saved || version > group->saving)
            COMPLAIN(look, "group %u: record version %u is neither %u nor up to %u\n", index, version, group->saved,
                     group->saving);
        uint64_t highest = pool_session_highest(look->pool, &id, &session);
        uint64_t committed = pool_session_committed(look->pool, &id, &session);
        if (group->session && (highest < group->acked || highest > group->submitted || committed > group->commit))
            COMPLAIN(look,
                     "group %u: highest %" PRIu64 ", committed %" PRIu64 ", not %" PRIu64 " to %" PRIu64
                     " and at most %" PRIu64 "\n",
                     index, highest, committed, group->acked, group->submitted, group->commit);
    }
}

int model_look(const struct model *model, struct ring *ring, struct pool *pool, struct model_seen *seen, bool lossy)
{
    struct look look = {.model = model, .ring = ring, .pool = pool, .seen = seen, .lossy = lossy};
    look.expected = aligned_alloc(BLOCK, BLOCK);
    look.io.data = aligned_alloc(BLOCK, READ_BLOCKS * BLOCK);
    check(look.expected && look.io.data);
    uint8_t *data = look.io.data;
    groups_look(&look);
    for (look.volume = 0; look.volume < MODEL_VOLUMES; look.volume++) {
        look.io.data = data;
        presence_look(&look);
    }
    free(data);
    free(look.expected);
    return look.errors ? -1 : 0;
}

/* --- after it ----------------------------------------------------------------------------------------------------- */

static void block_adopt(struct model_block *block, uint32_t seen)
{
    if (block->pending && seen == block->pending) {
        block_takes_pending(block);
    } else if (seen == LOST) { /* and thereby marked until it is written again */
        block->unknown = true;
        block->must_be_dirty = block->own_dirty = false;
        block->sequence = 0;
    } else if (seen == UNKNOWN) {
        block->unknown = true;
        block->must_be_dirty |= block->pending && !(block->pending_sequence & MODEL_UNMIRRORED);
    }
    block->pending = 0;
}

static void volume_adopt(struct model_volume *volume, const struct model_seen *seen, unsigned index)
{
    volume->presence = seen->present[index] ? MODEL_PRESENT : MODEL_ABSENT;
    if (!seen->present[index]) {
        volume_clear(volume);
        return;
    }
    volume->block_count = volume->grown_count = seen->block_count[index];
    for (uint32_t block = 0; block < volume->block_count; block++)
        block_adopt(&volume->blocks[block], seen->version[index][block]);
}

void model_adopt(struct model *model, const struct model_seen *seen)
{
    for (unsigned index = 0; index < MODEL_VOLUMES; index++)
        volume_adopt(&model->volumes[index], seen, index);
    for (unsigned index = 0; index < MODEL_GROUPS; index++) {
        struct model_group *group = &model->groups[index];
        group->saved = group->saving = seen->saved[index];
        session_ends(model, index); /* after the crash its tail is dirty */
        group->session = 0;
    }
}
