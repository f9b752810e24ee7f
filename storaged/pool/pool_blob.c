/* What all disks hold alike, the catalogue and the group records: written to each, the newest valid copy counts. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "storaged/pool/pool_internal.h"

static uint32_t blob_crc(const struct format_slot *slot)
{
    return pool_crc_sealed(slot, sizeof *slot + slot->size, &slot->crc);
}

bool pool_blob_is_valid(const struct pool *pool, const struct format_slot *slot, uint64_t magic, uint32_t limit)
{
    if (slot->magic != magic || slot->version != FORMAT_VERSION || !id_equal(&slot->pool, &pool->id) ||
        slot->size > limit)
        return false;
    return blob_crc(slot) == slot->crc;
}

void pool_blob_seal(struct pool *pool, struct format_slot *slot, uint64_t magic)
{
    slot->magic = magic;
    slot->version = FORMAT_VERSION;
    slot->pool = pool->id;
    slot->crc = blob_crc(slot);
}

static size_t slot_bytes(const struct format_slot *slot)
{
    return (sizeof *slot + slot->size + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
}

/* --- to all ------------------------------------------------------------------------------------------------------- */

static void blob_written(struct ring_io *io, int result)
{
    struct pool_blob_io *write = list_entry(io, struct pool_blob_io, io);
    struct pool_blob *blob = write->blob;
    struct pool *pool = blob->pool;
    struct pool_disk *disk = &pool->disks[write - blob->writes];
    if (result < 0 || (size_t)result != slot_bytes(blob->slot))
        pool_disk_fail(disk, result < 0 ? result : -EIO, blob->what);
    pool_disk_end(disk);
    if (--blob->left > 0)
        return;
    /* A disk without it must be struck before anyone hears that all have it. While acknowledged writes are rescued
     * no volume may go that they belong to. */
    if (!pool->failure && (pool_failure_is_striking(pool) || pool->rescues))
        list_append(&pool->blobs_held, &blob->link);
    else
        blob->written(blob);
}

void pool_blob_write(struct pool *pool, struct pool_blob *blob, const struct format_slot *slot,
                     const uint64_t offsets[static 2], const char *what)
{
    blob->pool = pool;
    blob->slot = slot;
    blob->what = what;
    blob->left = 0;
    pool_for_each_disk(pool, disk)
        blob->left++;
    check(blob->left > 0);
    pool_for_each_disk(pool, disk) {
        struct pool_blob_io *write = &blob->writes[disk->index];
        write->blob = blob;
        write->io.done = blob_written;
        pool_disk_begin(disk);
        ring_write(pool->ring, &write->io, disk->fd, slot, slot_bytes(slot), offsets[slot->sequence % 2], true);
    }
}

/* --- at opening --------------------------------------------------------------------------------------------------- */

struct blob_search {
    uint64_t magic;
    const uint64_t *offsets;
    uint32_t limit;
    struct format_slot *best; /* FORMAT_SLOT bytes */
    struct format_slot *slot; /* the same, for what is looked at */
    bool found, damaged;
    uint64_t newest[POOL_DISKS_MAX]; /* by disk: the highest sequence that is valid there */
};

static int blob_look(struct blob_search *search, struct pool_disk *disk)
{
    unsigned foreign = 0;
    for (unsigned index = 0; index < 2; index++) {
        struct format_slot *slot = search->slot;
        int result = pool_read_at(disk->fd, slot, FORMAT_SLOT, search->offsets[index]);
        if (result < 0)
            return result;
        if (!pool_blob_is_valid(disk->pool, slot, search->magic, search->limit)) {
            foreign += slot->magic == search->magic;
            continue;
        }
        if (slot->sequence > search->newest[disk->index])
            search->newest[disk->index] = slot->sequence;
        if (search->found && slot->sequence <= search->best->sequence)
            continue;
        search->found = true;
        memcpy(search->best, slot, FORMAT_SLOT);
    }
    search->damaged |= foreign == 2; /* the first write ever may have been cut off: that is one slot */
    return 0;
}

/* A crash between the disks, or a slot that rotted: from here on all have it again. */
static int blob_heal(const struct blob_search *search, struct pool_disk *disk)
{
    const struct format_slot *best = search->best;
    if (search->newest[disk->index] == best->sequence)
        return 0;
    int result = pool_write_at(disk->fd, best, slot_bytes(best), search->offsets[best->sequence % 2]);
    if (result == 0 && fdatasync(disk->fd) < 0)
        result = -errno;
    return result;
}

int pool_blob_load(struct pool *pool, uint64_t magic, const uint64_t offsets[static 2], uint32_t limit,
                   struct format_slot *ret)
{
    cleanup_free struct format_slot *slot = pool_aligned(FORMAT_SLOT);
    struct blob_search search = {.magic = magic, .offsets = offsets, .limit = limit, .best = ret, .slot = slot};
    int result = 0;
    pool_for_each_disk(pool, disk)
        if (result == 0)
            result = blob_look(&search, disk);
    if (result < 0)
        return result;
    if (!search.found)
        return search.damaged ? -EUCLEAN : -ENODATA;
    pool_for_each_disk(pool, disk)
        if (result == 0)
            result = blob_heal(&search, disk);
    return result;
}
