/* The journals' writing side: parts gather while a record is under way and go out as one record, one durable write. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "storaged/pool/pool_internal.h"

#define HEADER_BYTES_MAX (FORMAT_RECORD_HEADER_MAX * FORMAT_BLOCK)

static void record_completed(struct ring_io *io, int result);

struct pool_part *pool_part_of(struct list *link)
{
    return list_entry(link, struct pool_part, link);
}

void pool_journal_init(struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    list_init(&journal->accept);
    list_init(&journal->live);
    journal->reclaim = journal->settled = &journal->live;
    journal->blocks = disk->super.journal_blocks;
    journal->id = disk->super.journal;
    journal->head_lsn = journal->tail_lsn = disk->super.tail_lsn;
    for (unsigned index = 0; index < RECORDS_MAX; index++) {
        journal->records[index].disk = disk;
        journal->records[index].header = pool_aligned(HEADER_BYTES_MAX);
    }
}

void pool_journal_free(struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    list_for_each(item, &journal->live) {
        struct pool_part *part = pool_part_of(item);
        iobuf_put(disk->pool->arena, part->buffer);
        part->buffer = NULL;
    }
    for (unsigned index = 0; index < RECORDS_MAX; index++)
        free(journal->records[index].header);
}

/* --- memory for what a record carries ----------------------------------------------------------------------------- */

static void arena_retry(struct iobuf_waiter *waiter)
{
    struct pool *pool = list_entry(waiter, struct pool, arena_waiter);
    pool->arena_waiting = false;
    pool_wake(pool);
}

static uint8_t *buffer_get(struct pool *pool, size_t size)
{
    uint8_t *buffer = iobuf_get(pool->arena, size);
    if (!buffer && !pool->arena_waiting) {
        pool->arena_waiting = true;
        pool->arena_waiter.retry = arena_retry;
        iobuf_wait(pool->arena, &pool->arena_waiter);
    }
    return buffer;
}

/* --- making a record ---------------------------------------------------------------------------------------------- */

/* Where the first part lies that is not settled: the records below it were acknowledged. */
uint64_t pool_journal_settled(struct pool_journal *journal)
{
    while (journal->settled != &journal->live) {
        const struct pool_part *part = pool_part_of(journal->settled);
        if (!part->durable || (part->kind == PART_INTENT && !part->placed))
            break;
        journal->settled = journal->settled->next;
    }
    uint64_t parts = journal->settled == &journal->live ? journal->head_lsn : pool_part_of(journal->settled)->lsn;
    /* A PAD has no parts, but it may be under way. */
    uint64_t records = journal->record_count ? journal->records[journal->record_first].lsn : journal->head_lsn;
    return parts < records ? parts : records;
}

struct record_maker {
    struct pool_disk *disk;
    struct pool_record *record;
    uint32_t header_bytes, data_blocks;
    uint64_t limit; /* blocks it may have */
    bool starved;   /* of memory, or of room in the ring */
};

static uint32_t checksum_count(const struct pool_part *part)
{
    if (part->kind == PART_MOVE_TO)
        return FORMAT_MOVE_WORDS;
    return part->kind == PART_WRITE || part->kind == PART_INTENT ? part->count : 0;
}

static uint32_t data_count(const struct pool_part *part)
{
    return part->kind == PART_WRITE ? part->count : 0;
}

static uint32_t blocks_of(uint32_t bytes)
{
    return (bytes + FORMAT_BLOCK - 1) / FORMAT_BLOCK;
}

/* How long the record is when the part joins it; 0: it has no room for it. */
static uint32_t record_blocks_with(const struct record_maker *maker, const struct pool_part *part)
{
    uint32_t header_bytes = maker->header_bytes + (uint32_t)FORMAT_ENTRY_BYTES(checksum_count(part));
    uint32_t data_blocks = maker->data_blocks + data_count(part);
    if (header_bytes > HEADER_BYTES_MAX || data_blocks > FORMAT_RECORD_DATA_MAX ||
        maker->record->count == RECORD_PARTS_MAX)
        return 0;
    return blocks_of(header_bytes) + data_blocks;
}

static enum format_entry_kind entry_kind(const struct pool_part *part)
{
    switch (part->kind) {
    case PART_WRITE: return FORMAT_ENTRY_WRITE;
    case PART_ZERO: return FORMAT_ENTRY_ZERO;
    case PART_DIRTY: return FORMAT_ENTRY_DIRTY;
    case PART_MOVE_TO: return FORMAT_ENTRY_MOVE;
    default: check(part->kind == PART_INTENT); return FORMAT_ENTRY_INTENT;
    }
}

static void entry_fill_session(struct pool *pool, const struct pool_op *op, struct format_entry *entry)
{
    entry->session = op->session;
    entry->sequence = op->sequence;
    if (!id_is_null(&op->session) && !op->copy)
        entry->order = pool_session_order(pool, &entry->group, &op->session);
    if (op->session_slot && op->session_slot->live) {
        entry->commit_session = op->session_slot->session;
        entry->commit_upto = op->session_slot->commit;
    }
}

static void entry_fill(struct record_maker *maker, struct pool_part *part, struct format_entry *entry)
{
    struct pool *pool = maker->disk->pool;
    const struct pool_op *op = part->op;
    *entry = (struct format_entry){.kind = (uint16_t)entry_kind(part),
                                   .count = part->count,
                                   .block = part->block,
                                   .volume = op->volume->id,
                                   .life = op->volume->life,
                                   .extent = FORMAT_NO_EXTENT,
                                   .group = op->volume->group,
                                   .data = maker->data_blocks};
    entry->flags = (uint16_t)((op->dirty ? FORMAT_ENTRY_IS_DIRTY : 0) | (op->copy ? FORMAT_ENTRY_IS_COPY : 0) |
                              (op->unmirrored ? FORMAT_ENTRY_IS_UNMIRRORED : 0));
    if (part->extent != EXTENT_NONE) {
        entry->extent = part->extent & EXTENT_LOCAL_MASK;
        entry->birth = pool_extents_descriptor(pool, part->extent)->birth;
    }
    entry_fill_session(pool, op, entry);
}

/* The data of a journaled write is copied, for the caller's is its own again before ours is in its place. Of an intent
 * the checksums are kept. */
static void entry_fill_checksums(struct pool_part *part, uint32_t *checksums)
{
    uint32_t seed = part->op->volume->seed;
    for (uint32_t index = 0; index < part->count; index++) {
        const uint8_t *data = part->data + (size_t)index * FORMAT_BLOCK;
        if (part->kind == PART_WRITE) {
            uint8_t *copy = part->buffer + (size_t)index * FORMAT_BLOCK;
            data = copy == data ? copy : memcpy(copy, data, FORMAT_BLOCK);
        }
        checksums[index] = pool_extents_checksum(seed, part->block + index, data);
    }
    if (part->count % 2)
        checksums[part->count] = 0;
    part->checksums = checksums;
    if (part->kind == PART_INTENT)
        part->checksums = memcpy(part->buffer, checksums, part->count * sizeof *checksums);
}

/* False: the record is full, or it has to wait for memory. */
static bool record_add(struct record_maker *maker, struct pool_part *part)
{
    struct pool_journal *journal = &maker->disk->journal;
    struct pool_record *record = maker->record;
    uint32_t blocks = record_blocks_with(maker, part);
    if (!blocks || blocks > maker->limit)
        return false;
    if (checksum_count(part) && part->kind != PART_MOVE_TO && !part->buffer) {
        part->buffer = buffer_get(maker->disk->pool, (size_t)(data_count(part) ? data_count(part) : 1) * FORMAT_BLOCK);
        if (!part->buffer)
            return false;
    }
    struct format_entry *entry = (struct format_entry *)(record->header + maker->header_bytes);
    entry_fill(maker, part, entry);
    if (part->kind == PART_MOVE_TO)
        pool_drain_fill(part, &entry->birth, (uint32_t *)(entry + 1));
    else if (checksum_count(part))
        entry_fill_checksums(part, (uint32_t *)(entry + 1));
    list_remove(&part->link);
    list_append(&journal->live, &part->link);
    if (!record->count++)
        record->first = &part->link;
    if (journal->reclaim == &journal->live)
        journal->reclaim = &part->link;
    if (journal->settled == &journal->live)
        journal->settled = &part->link;
    part->lsn = journal->head_lsn;
    part->op->holds++;
    if (data_count(part)) {
        size_t size = (size_t)part->count * FORMAT_BLOCK;
        record->vectors[record->count] = (struct iovec){.iov_base = part->buffer, .iov_len = size};
    } else {
        record->vectors[record->count] = (struct iovec){0};
    }
    maker->header_bytes += (uint32_t)FORMAT_ENTRY_BYTES(checksum_count(part));
    maker->data_blocks += data_count(part);
    return true;
}

/* Vectors of parts without data are left out. */
static unsigned vectors_close(struct pool_record *record)
{
    unsigned used = 1;
    for (unsigned index = 1; index <= record->count; index++)
        if (record->vectors[index].iov_len)
            record->vectors[used++] = record->vectors[index];
    return used;
}

static void record_write(struct pool_record *record, enum format_record_type type, uint32_t header_bytes,
                         uint32_t blocks, uint32_t written_blocks)
{
    struct pool_disk *disk = record->disk;
    struct pool *pool = disk->pool;
    struct pool_journal *journal = &disk->journal;
    struct format_record *header = (struct format_record *)record->header;
    uint32_t header_blocks = blocks_of(header_bytes);
    memset(record->header + header_bytes, 0, (size_t)header_blocks * FORMAT_BLOCK - header_bytes);
    *header = (struct format_record){.magic = FORMAT_RECORD_MAGIC,
                                     .type = type,
                                     .journal = journal->id,
                                     .lsn = journal->head_lsn,
                                     .settled_lsn = pool_journal_settled(journal),
                                     .super_sequence = disk->super.sequence,
                                     .blocks = blocks,
                                     .header_blocks = header_blocks,
                                     .entry_count = record->count,
                                     .entries_bytes = header_bytes - (uint32_t)sizeof *header};
    header->crc = pool_crc(header, (size_t)header_blocks * FORMAT_BLOCK);
    record->vectors[0] = (struct iovec){.iov_base = header, .iov_len = (size_t)header_blocks * FORMAT_BLOCK};
    record->bytes = (uint64_t)written_blocks * FORMAT_BLOCK;
    record->lsn = journal->head_lsn;
    record->durable = false;
    record->io.done = record_completed;
    uint64_t offset = disk->super.journal_offset + journal->head_lsn % journal->blocks * FORMAT_BLOCK;
    journal->head_lsn += blocks;
    journal->record_count++;
    pool_disk_begin(disk);
    pool->stats.journal_writes++;
    pool->stats.journal_records += record->count;
    ring_writev(pool->ring, &record->io, disk->fd, record->vectors, vectors_close(record), offset, true);
}

static struct pool_record *record_new(struct pool_journal *journal)
{
    struct pool_record *record = &journal->records[(journal->record_first + journal->record_count) % RECORDS_MAX];
    record->count = 0;
    record->first = &journal->live;
    return record;
}

/* True: a record is on its way. */
static bool record_start(struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    struct record_maker maker = {.disk = disk, .header_bytes = sizeof(struct format_record)};
    uint64_t rest = journal->blocks - journal->head_lsn % journal->blocks;
    uint64_t room = journal->blocks - (journal->head_lsn - journal->tail_lsn);
    maker.record = record_new(journal);
    uint32_t least = record_blocks_with(&maker, pool_part_of(journal->accept.next));
    check(least > 0 && least < journal->blocks / 2);
    journal->space_waiting = room < least + (rest < least ? rest : 0);
    if (journal->space_waiting)
        return false;
    if (rest < least) { /* a record does not cross the end of the ring */
        record_write(maker.record, FORMAT_RECORD_PAD, maker.header_bytes, (uint32_t)rest, 1);
        return true;
    }
    maker.limit = rest < room ? rest : room;
    while (!list_is_empty(&journal->accept) && record_add(&maker, pool_part_of(journal->accept.next)))
        ;
    if (!maker.record->count)
        return false;
    uint32_t blocks = blocks_of(maker.header_bytes) + maker.data_blocks;
    record_write(maker.record, FORMAT_RECORD_ENTRIES, maker.header_bytes, blocks, blocks);
    return true;
}

/* --- when it is durable ------------------------------------------------------------------------------------------- */

static void part_durable(struct pool_part *part)
{
    struct pool_op *op = part->op;
    struct pool *pool = op->pool;
    part->durable = true;
    if (part->kind == PART_MOVE_TO) {
        part->placed = true;
        pool_drain_part_durable(part);
        return;
    }
    if (!op->unmirrored && !op->dirty)
        op->dirty = !pool_session_is_live(op); /* R4: the session ended meanwhile */
    if (!id_is_null(&op->session) && !op->copy) {
        uint64_t order = pool_session_order(pool, &op->volume->group, &op->session);
        pool_session_saw(pool, &op->volume->group, &op->session, order, op->sequence);
    }
    switch (part->kind) {
    case PART_WRITE:
    case PART_INTENT: pool_io_place(part); break;
    case PART_ZERO:
        if (part->extent != EXTENT_NONE)
            pool_extents_set_zero(pool, part->extent, part->first, part->count);
        part->placed = true;
        break;
    default: part->placed = true; break;
    }
    if (op->dirty && part->kind != PART_INTENT)
        pool_dirty_set(op->volume, part->block, part->count);
    if (part->kind != PART_INTENT)
        pool_part_done(part, 0);
}

/* The oldest record. A part is done only when all earlier records are durable: replay ends at the first hole. */
static void record_retire(struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    struct pool_record *record = &journal->records[journal->record_first];
    journal->record_first = (journal->record_first + 1) % RECORDS_MAX;
    journal->record_count--;
    struct list *item = record->first;
    for (unsigned index = 0; index < record->count; index++) {
        struct pool_part *part = pool_part_of(item);
        item = item->next;
        if (disk->pool->failure)
            pool_part_done(part, disk->pool->failure);
        else if (POOL_DISK_IS_ALIVE(disk)) /* else it is done again elsewhere (pool_failure.c) */
            part_durable(part);
    }
}

static void record_completed(struct ring_io *io, int result)
{
    struct pool_record *record = list_entry(io, struct pool_record, io);
    struct pool_disk *disk = record->disk;
    struct pool *pool = disk->pool;
    struct pool_journal *journal = &disk->journal;
    if (result < 0 || (uint64_t)result != record->bytes)
        pool_disk_fail(disk, result < 0 ? result : -EIO, "writing the journal");
    pool_disk_end(disk);
    record->durable = true;
    while (journal->record_count && journal->records[journal->record_first].durable)
        record_retire(disk);
    pool_io_pump(pool);
    pool_wake(pool);
}

/* --- when to write one -------------------------------------------------------------------------------------------- */

/* After a failure nothing enters the journal; what is already in a record ends with that. */
static void fail_waiting(struct pool_disk *disk)
{
    list_for_each_safe(item, after, &disk->journal.accept) {
        list_remove(item);
        pool_part_done(pool_part_of(item), disk->pool->failure);
    }
}

/* While one is under way small ones gather; much data need not wait for it. */
static bool second_is_worth_it(const struct pool_journal *journal)
{
    uint32_t blocks = 0;
    list_for_each(item, &journal->accept) {
        blocks += 1 + data_count(pool_part_of(item));
        if (blocks >= RECORD_SECOND_BLOCKS)
            return true;
    }
    return false;
}

static void journal_pump(struct pool_disk *disk)
{
    struct pool_journal *journal = &disk->journal;
    while (!list_is_empty(&journal->accept) && !disk->pool->arena_waiting && journal->record_count < RECORDS_MAX) {
        if (journal->record_count && !second_is_worth_it(journal))
            break;
        if (!record_start(disk))
            break;
    }
}

void pool_journal_pump(struct pool *pool)
{
    pool_for_each_disk(pool, disk) {
        if (pool->failure)
            fail_waiting(disk);
        else
            journal_pump(disk);
    }
}
