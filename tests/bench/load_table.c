/* What iscsi_load was promised: per 4 KiB block the version acknowledged last, and the stamp that proves it.
 *
 * A stamped block, little endian:
 *    0  8  magic "hci-load"
 *    8  8  number of the block on the LUN
 *   16  8  version of the block, from 1
 *   24  8  seed of the run that made the table
 *   32 4060 a sequence grown from the fields above
 * 4092  4  CRC32C of all before
 *
 * The state file: the header below, then the blocks' entries. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "storaged/crc32c.h"
#include "tests/bench/load.h"

#define MAGIC UINT64_C(0x64616f6c2d696368)
#define STATE_MAGIC UINT64_C(0x3165746174736368)
#define COMPLAINTS_MAX 10

struct entry {
    uint32_t acknowledged; /* 0: never written */
    uint32_t pending;      /* a write that was sent and not yet answered; 0: none */
    uint32_t last;         /* highest version ever made: none is used twice */
};

struct stamp {
    uint64_t magic, block, version, seed;
    uint64_t body[507];
    uint32_t last_word;
    uint32_t crc;
};
static_assert(sizeof(struct stamp) == LOAD_BLOCK, "a stamp fills its block");

struct state_header {
    uint64_t magic, seed, first, blocks;
};

struct load_table {
    uint64_t seed, first, blocks;
    bool blank, settles;
    unsigned complaints;
    struct entry *entries;
    uint8_t *taken;
};

static int state_fail(const char *path, const char *why)
{
    fprintf(stderr, "iscsi_load: state file '%s' %s; remove it or give the options it was made with\n", path, why);
    return -EINVAL;
}

static int load(struct load_table *table, const char *path)
{
    struct state_header header;
    FILE *file = fopen(path, "rb");
    if (!file)
        return errno == ENOENT ? 0 : state_fail(path, strerror(errno));
    int result = 0;
    if (fread(&header, sizeof header, 1, file) != 1 || header.magic != STATE_MAGIC)
        result = state_fail(path, "is none of iscsi_load");
    else if (header.first != table->first || header.blocks != table->blocks)
        result = state_fail(path, "is of another span");
    else if (fread(table->entries, sizeof table->entries[0], table->blocks, file) != table->blocks)
        result = state_fail(path, "is cut short");
    else
        table->seed = header.seed;
    fclose(file);
    for (uint64_t i = 0; i < table->blocks; i++)
        table->taken[i] = table->entries[i].pending != 0;
    return result;
}

struct load_table *load_table_new(const struct load_options *options, uint64_t blocks)
{
    struct load_table *table = calloc(1, sizeof *table);
    check(table);
    table->seed = options->seed;
    table->first = options->offset_bytes / LOAD_BLOCK;
    table->blocks = blocks;
    table->blank = options->blank;
    table->settles = options->check;
    table->entries = calloc(blocks, sizeof table->entries[0]);
    table->taken = calloc(blocks, 1);
    check(table->entries && table->taken);
    if (options->state && load(table, options->state) < 0) {
        load_table_free(table);
        return NULL;
    }
    return table;
}

void load_table_free(struct load_table *table)
{
    if (!table)
        return;
    free(table->entries);
    free(table->taken);
    free(table);
}

int load_table_save(const struct load_table *table, const char *path)
{
    struct state_header header = {STATE_MAGIC, table->seed, table->first, table->blocks};
    FILE *file = fopen(path, "wb");
    if (!file)
        return state_fail(path, strerror(errno));
    bool written = fwrite(&header, sizeof header, 1, file) == 1 &&
                   fwrite(table->entries, sizeof table->entries[0], table->blocks, file) == table->blocks;
    return fclose(file) == 0 && written ? 0 : state_fail(path, "could not be written");
}

bool load_table_take(struct load_table *table, uint64_t block, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (table->taken[block - table->first + i])
            return false;
    memset(table->taken + (block - table->first), 1, count);
    return true;
}

void load_table_give_back(struct load_table *table, uint64_t block, unsigned count)
{
    memset(table->taken + (block - table->first), 0, count);
}

static void grow(struct stamp *stamp)
{
    uint64_t state = (stamp->seed ^ stamp->block * UINT64_C(0x9e3779b97f4a7c15)) + stamp->version;
    for (unsigned i = 0; i < 507; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        stamp->body[i] = state ^ state >> 29;
    }
    stamp->last_word = (uint32_t)(state >> 32);
    stamp->crc = crc32c(stamp, offsetof(struct stamp, crc));
}

void load_table_stamp(struct load_table *table, uint64_t block, unsigned count, void *data)
{
    struct stamp *stamps = data;
    for (unsigned i = 0; i < count; i++) {
        struct entry *entry = &table->entries[block - table->first + i];
        check(entry->pending == 0);
        entry->pending = ++entry->last;
        stamps[i].magic = MAGIC;
        stamps[i].block = block + i;
        stamps[i].version = entry->pending;
        stamps[i].seed = table->seed;
        grow(&stamps[i]);
    }
}

void load_table_acknowledge(struct load_table *table, uint64_t block, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct entry *entry = &table->entries[block - table->first + i];
        entry->acknowledged = entry->pending;
        entry->pending = 0;
    }
    load_table_give_back(table, block, count);
}

static bool is_zero(const void *data)
{
    const uint64_t *words = data;
    for (unsigned i = 0; i < LOAD_BLOCK / sizeof words[0]; i++)
        if (words[i])
            return false;
    return true;
}

/* A block without an acknowledged write still holds what it held before the run. */
static bool is_untouched(const struct load_table *table, const struct entry *entry, const struct stamp *stamp)
{
    bool pending = stamp->magic == MAGIC && stamp->version == entry->pending;
    return entry->acknowledged == 0 && !pending && (!table->blank || is_zero(stamp));
}

/* *ret_version: what the block holds; 0 when nothing of ours. */
static enum load_verdict judge(const struct load_table *table, uint64_t block, const struct entry *entry,
                               const struct stamp *stamp, uint32_t *ret_version)
{
    *ret_version = 0;
    if (is_untouched(table, entry, stamp))
        return LOAD_RIGHT;
    if (stamp->magic != MAGIC)
        return entry->acknowledged ? LOAD_NO_STAMP : LOAD_NOT_ZERO;
    if (stamp->crc != crc32c(stamp, offsetof(struct stamp, crc)))
        return LOAD_TORN;
    if (stamp->block != block || stamp->seed != table->seed)
        return LOAD_FOREIGN;
    if (stamp->version == 0 || (stamp->version != entry->acknowledged && stamp->version != entry->pending))
        return LOAD_STALE;
    *ret_version = (uint32_t)stamp->version;
    return LOAD_RIGHT;
}

static void complain(struct load_table *table, uint64_t block, const struct entry *entry, const struct stamp *stamp,
                     enum load_verdict verdict)
{
    static const char *const words[] = {
        [LOAD_NOT_ZERO] = "was never written and is not zero", [LOAD_NO_STAMP] = "carries no stamp",
        [LOAD_TORN] = "is torn: its checksum is wrong", [LOAD_FOREIGN] = "holds another block or another run",
        [LOAD_STALE] = "holds a version that is not the acknowledged one",
    };
    if (table->complaints++ >= COMPLAINTS_MAX)
        return;
    fprintf(stderr, "iscsi_load: block %lu (byte %lu) %s: acknowledged %u, in doubt %u; found %lu version %lu%s\n",
            block, block * LOAD_BLOCK, words[verdict], entry->acknowledged, entry->pending, stamp->block,
            stamp->version, is_zero(stamp) ? ", all zeros" : "");
}

unsigned load_table_compare(struct load_table *table, uint64_t block, unsigned count, const void *data)
{
    const struct stamp *stamps = data;
    unsigned bad = 0;
    for (unsigned i = 0; i < count; i++) {
        struct entry *entry = &table->entries[block - table->first + i];
        uint32_t version;
        enum load_verdict verdict = judge(table, block + i, entry, &stamps[i], &version);
        if (verdict != LOAD_RIGHT) {
            complain(table, block + i, entry, &stamps[i], verdict);
            bad++;
        } else if (table->settles && entry->pending) {
            /* Once somebody has read it, it must stay. */
            entry->acknowledged = version;
            entry->pending = 0;
        }
    }
    return bad;
}

uint64_t load_table_written(const struct load_table *table)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < table->blocks; i++)
        count += table->entries[i].acknowledged != 0;
    return count;
}

uint64_t load_table_in_doubt(const struct load_table *table)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < table->blocks; i++)
        count += table->entries[i].pending != 0;
    return count;
}
