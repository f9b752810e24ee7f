/* A node's pool: its disks, their journal, extents and checksums; the durable home of volumes and of each group's
 * record. Knows nothing of the peer but the commit state that decides what may differ from it (R2, R3, R7, I7).
 *
 * A block (4 KiB) of a volume that may differ from the peer's copy carries a dirty bit. A session's writes whose commit
 * is not known (the tail) are dirty as soon as the session is over; after a crash replay finds them in the journal. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/id.h"
#include "common/list.h"
#include "storaged/ring.h"

#define POOL_BLOCK_SIZE 4096u
#define POOL_EXTENT_SIZE (1u << 20)
#define POOL_DISKS_MAX 16
#define POOL_GROUPS_MAX 64
#define POOL_VOLUMES_MAX 256
#define POOL_GROUP_BLOB_MAX (60u * 1024)
#define POOL_WRITE_BLOCKS_MAX 257u /* 1 MiB that is not 4 KiB-aligned */

struct pool;
struct pool_volume;
typedef void pool_done(void *userdata, int result);

/* --- making and opening: blocking, before the loop runs ------------------------------------------------------- */

struct pool_create_options {
    const char *const *paths; /* files (created with `file_bytes` when absent) or block devices */
    unsigned path_count;
    uint64_t file_bytes;      /* for files that do not exist yet; 0: they must exist */
    struct id node;
    uint64_t journal_bytes;   /* 0: 64 MiB */
    bool force;               /* overwrite a foreign signature (libblkid) or an old pool */
};
/* Refuses disks that carry a signature, are mounted, are too small, or twice the same; *ret_pool is the new id. */
int pool_create(const struct pool_create_options *options, struct id *ret_pool, struct err *err);

/* Replays the journal; blocking, the ring is used only from the first operation on. A foreign or twice-present disk, or
 * one that another process holds (flock), is refused with a sentence. Afterwards everything acknowledged before
 * is there, durable. The copies of writes under way have an arena of their own: callers' buffers cannot starve it. */
int pool_open(struct ring *ring, const char *const *paths, unsigned path_count, struct pool **ret, struct err *err);
/* The same; disks that are missing and that the operator has given up (`lost`) do not keep it from opening. Without that
 * more than half of the disks that were not struck before must be there; those that are not are struck. Paths that lead
 * to no disk of the pool (any more) are told in the log and left alone. */
int pool_open_without(struct ring *ring, const char *const *paths, unsigned path_count, const struct id *lost,
                      unsigned lost_count, struct pool **ret, struct err *err);
/* Writes a checkpoint and closes. Nothing of the caller's may be in flight. Runs the ring meanwhile. */
void pool_close(struct pool *pool);

struct pool_stats {
    struct id id;
    uint64_t total_bytes, reserved_bytes /* promised to volumes */, used_bytes /* extents handed out */;
    uint64_t journal_bytes, journal_used_bytes;
    uint64_t checksum_errors, journal_records, journal_writes, checkpoints;
    unsigned disk_count;
};
void pool_get_stats(const struct pool *pool, struct pool_stats *ret);
const char *pool_disk_path(const struct pool *pool, unsigned index);
/* Set by an I/O error that the pool cannot work around: every later operation fails with it. 0 while healthy. */
int pool_failure(const struct pool *pool);

/* --- disks ------------------------------------------------------------------------------------------------------- */

enum pool_disk_state {
    POOL_DISK_OK,
    POOL_DISK_DRAINING, /* its extents move to the others; nothing new comes to it */
    POOL_DISK_FAILED,   /* taken out by an error; what only it held is lost */
    POOL_DISK_MISSING,  /* the pool names it, but it was not there at opening */
};
struct pool_disk_info {
    struct id id;
    char path[256]; /* where it is, or was last */
    enum pool_disk_state state;
    uint64_t total_bytes, used_bytes; /* extents */
    uint64_t journal_bytes, journal_used_bytes;
    uint64_t drain_left_bytes;        /* DRAINING: still to be moved */
    uint64_t read_errors, write_errors, checksum_errors;
};
unsigned pool_disk_list(const struct pool *pool, struct pool_disk_info ret[static POOL_DISKS_MAX]);

/* Looks at a disk and formats it as the pool's next one: blocking, on any thread, the pool goes on. The same refusals as
 * pool_create. The disk is not of the pool until pool_disk_add; forgetting it half-way leaves the pool as it was. */
struct pool_disk_prepared;
struct pool_disk_prepare_options {
    const char *path;
    uint64_t file_bytes, journal_bytes; /* 0: as in pool_create */
    struct id pool, node;
    bool force;
};
int pool_disk_prepare(const struct pool_disk_prepare_options *options, struct pool_disk_prepared **ret, struct err *err);
void pool_disk_prepared_free(struct pool_disk_prepared *prepared);
/* Takes the prepared disk, also on failure. done(0) when every disk of the pool names it durably. */
void pool_disk_add(struct pool *pool, struct pool_disk_prepared *prepared, pool_done *done, void *userdata);
/* Drains the disk, then takes it out of the pool and lets its file go: done may come hours later; progress in
 * pool_disk_list. -ENOSPC at once when the others cannot take what it holds or is promised, -EBUSY when it is draining
 * already, -ENOENT, -EINVAL: the last disk. `lost`: gives up a FAILED or MISSING disk: its blocks read as errors until
 * they are written again. -EIO for such a disk without `lost`. After a restart a drain goes on by itself. When the other
 * disks fail meanwhile, the last one stays: -ENOSPC. */
void pool_disk_remove(struct pool *pool, const struct id *disk, bool lost, pool_done *done, void *userdata);
/* Called on the data thread when a disk changes its state by itself. */
void pool_set_listener(struct pool *pool, void (*disk_changed)(void *userdata, const struct pool_disk_info *disk), void *userdata);

/* --- group records: a blob per group, replaced atomically and durably ------------------------------------------ */

/* The blob is copied. Saves of one group are carried out in order; `done` comes when this one is durable. */
void pool_group_save(struct pool *pool, const struct id *group, const void *blob, uint32_t size, pool_done *done,
                     void *userdata);
/* Deletes the record; its volumes must be gone. */
void pool_group_delete(struct pool *pool, const struct id *group, pool_done *done, void *userdata);
/* After open: calls `each` for every stored group, blob borrowed. */
void pool_group_each(struct pool *pool,
                     void (*each)(void *userdata, const struct id *group, const void *blob, uint32_t size),
                     void *userdata);

/* --- volumes ---------------------------------------------------------------------------------------------------- */

/* Reserves the space (never overcommitted: -ENOSPC now rather than an error to a guest later) and, once durable,
 * makes the volume: all blocks read zeros. The id seeds its checksums, so it is the same on both nodes. */
void pool_volume_create(struct pool *pool, const struct id *group, const struct id *volume, uint64_t size_bytes,
                        pool_done *done, void *userdata);
/* Nothing of it may be in flight. */
void pool_volume_delete(struct pool *pool, struct pool_volume *volume, pool_done *done, void *userdata);
/* To a larger size, reserved and durable when done; what is new reads zeros. -ENOSPC, -EINVAL: it is not larger. */
void pool_volume_grow(struct pool *pool, struct pool_volume *volume, uint64_t size_bytes, pool_done *done, void *userdata);
/* Blocks whose content is lost (a disk that failed, a rotten journal): they read as -EBADMSG until written again. */
uint64_t pool_volume_lost_blocks(const struct pool_volume *volume);
/* Is the block backed by space, and how many of the `most` from it on are like it (GET LBA STATUS)? */
bool pool_volume_map(const struct pool_volume *volume, uint64_t block, uint64_t most, uint64_t *ret_run);
struct pool_volume *pool_volume_find(struct pool *pool, const struct id *volume);
uint64_t pool_volume_blocks(const struct pool_volume *volume);
uint64_t pool_volume_used_bytes(const struct pool_volume *volume);

/* --- data --------------------------------------------------------------------------------------------------------
 * Blocks are POOL_BLOCK_SIZE. The caller embeds the request and keeps it and `data` until `done`. The caller never has
 * two overlapping writes un-done at once, nor a read overlapping an un-done write; a read or write that overlaps a
 * *done* write is correct at any time, although that one may not be in its place yet. */
struct pool_io {
    void (*done)(struct pool_io *io, int result);
    struct pool_volume *volume;
    uint64_t block;
    uint32_t count;      /* at most POOL_WRITE_BLOCKS_MAX */
    uint8_t *data;       /* count * 4096 bytes, aligned 4096. NULL for pool_zero */
    uint64_t bad_block;  /* read, -EBADMSG: the first block whose checksum is wrong */
    /* writes only */
    bool dirty;          /* R3: the mark is durable with (before) the data */
    struct id session;   /* else R2: the mirror session and the place in its stream: */
    uint64_t sequence;   /* the tail is what is beyond the commit told by pool_session_commit */
    bool copy;           /* of a resync: does not count for pool_session_highest */
    bool unmirrored;     /* of a standalone node: there is no other copy to differ from; no session, never dirty */
    void *private_data;
    struct list private_link;
};
/* result 0, -EBADMSG (wrong checksum, or the device cannot read the place), or the pool's failure. */
void pool_read(struct pool *pool, struct pool_io *io);
/* done(0) when durable: up to 64 KiB inside one extent (1 MiB of the volume) in the journal, all or nothing after
 * a crash; more in its place. `data` is NOT needed after done (the pool keeps its own copy). */
void pool_write(struct pool *pool, struct pool_io *io);
/* UNMAP: the blocks read zeros afterwards; durable and ordered like a write. */
void pool_zero(struct pool *pool, struct pool_io *io);

/* --- what may differ from the peer ------------------------------------------------------------------------------- */

/* A session of this group begins: from here on its writes carry (session, sequence). Not persisted: the group's
 * blob is. A session of the group that is still on ends. */
void pool_session_begin(struct pool *pool, const struct id *group, const struct id *session);
/* Every write of the session up to `sequence` is durable on both nodes. Is recorded with the following records. */
void pool_session_commit(struct pool *pool, const struct id *group, uint64_t sequence);
/* The session is over: the blocks of all records beyond the last commit get dirty bits. No write of it is un-done.
 * Idempotent. After a crash pool_open does the same from the journal. */
void pool_session_end(struct pool *pool, const struct id *group);
/* Highest sequence journaled here for this session of the group; 0 when there is none, or when the journal has seen
 * another session since. */
uint64_t pool_session_highest(struct pool *pool, const struct id *group, const struct id *session);
/* Of those the highest known to be durable on both nodes, at least: a peer that has less was set back (R7.1). */
uint64_t pool_session_committed(struct pool *pool, const struct id *group, const struct id *session);

/* Marks blocks dirty; durable when done (merging the peer's tail, R7.2). The range may be long. */
void pool_dirty_mark(struct pool *pool, struct pool_volume *volume, uint64_t block, uint64_t count, pool_done *done,
                     void *userdata);
/* Next dirty run at or after `block`: its start, and its length up to `most`; 0 when none. */
uint32_t pool_dirty_next(struct pool *pool, struct pool_volume *volume, uint64_t block, uint32_t most,
                        uint64_t *ret_block);
/* I8: the caller has an acknowledged copy of the current version. In memory at once, durable lazily (a crash gives the
 * bits back, which is safe). */
void pool_dirty_clear(struct pool *pool, struct pool_volume *volume, uint64_t block, uint64_t count);
uint64_t pool_dirty_blocks(const struct pool_volume *volume);
/* Makes everything done so far reclaimable and the journal empty, when the caller wants it (tests, shutdown). */
void pool_checkpoint(struct pool *pool, pool_done *done, void *userdata);
