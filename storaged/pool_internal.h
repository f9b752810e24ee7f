/* What the pool_*.c files share: the pool's memory. Nothing outside of them includes this.
 *
 * The life of a write: pool_write appends it to `accept`; pool_journal_pump copies it behind a record header into a
 * buffer of the arena, gives it its LSN and writes it with its neighbours (pool_journal.c); durable, its checksums and
 * bits are set (pool_extents.c), it is done for the caller and goes to its place (pool_io.c); it stays in `live` until
 * a checkpoint has made all of that durable and moved the tail past it (pool_checkpoint.c). */
#pragma once

#include "storaged/format.h"
#include "storaged/iobuf.h"
#include "storaged/pool.h"

#define BUCKET_COUNT 512u
#define BATCHES_MAX 2u
#define BATCH_RECORDS_MAX 256u
#define BATCH_BYTES_MAX (4u << 20)
#define PLACING_MAX 64u          /* in-place writes under way: more only make the journal wait for the disk */
#define TABLE_WRITES_MAX 16u
#define POOL_ARENA_BYTES (64u << 20)
#define POOL_DISK_BYTES_MIN (256ull << 20)
#define POOL_JOURNAL_BYTES_DEFAULT (64ull << 20)
#define POOL_JOURNAL_BYTES_MIN (4ull << 20) /* some records of the largest size */
#define POOL_JOURNAL_BYTES_MAX (4ull << 30)
#define TICK_MS 1000u

enum pool_op_kind { OP_READ, OP_WRITE, OP_ZERO, OP_DIRTY, OP_PAD, OP_BLOB, OP_VOLUME, OP_CHECKPOINT };

/* A part of a read or write that lies in one extent, from when it is known until the disk is done with it. Those of
 * one bucket are in the order of arrival: a portion waits for every earlier one that overlaps, unless both read. */
struct pool_portion {
    struct ring_io io;
    struct list link;  /* in the bucket of its extent */
    struct list queue; /* writes that have not begun: in pool->place_queue */
    struct pool_op *op;
    uint8_t *data;
    uint32_t extent;
    uint16_t first, count; /* blocks of the extent */
    bool started;
};

struct pool_op {
    struct list link;
    enum pool_op_kind kind;
    struct pool *pool;
    /* Who is told. io: reads and writes; the other two: everything else; both NULL: nobody (any more). */
    struct pool_io *io;
    pool_done *done;
    void *userdata;
    int result;
    struct pool_volume *volume; /* NULL once it was deleted */
    uint64_t block, count;
    uint8_t *buffer;
    /* records */
    uint64_t lsn;
    uint32_t blocks;
    bool dirty, copy;
    bool durable;    /* in the journal */
    bool placed;     /* and in its place: the tail may pass it, once it is committed */
    struct id session;
    uint64_t sequence;
    struct pool_session *session_slot;
    struct pool_portion portions[2]; /* 257 blocks lie in two extents at most */
    unsigned portions_left;
    struct list finished_link;
};

struct pool_batch {
    struct ring_io io;
    struct pool *pool;
    struct list *first; /* of its records in `live`; `count` of them */
    struct iovec vectors[BATCH_RECORDS_MAX];
    unsigned count;
    uint64_t bytes;
    bool in_flight, durable;
};

/* A table of one disk: a byte of flags per block. */
enum { TABLE_DIRTY = 1, TABLE_SLOT = 2 /* the newest slot's number */ };
struct pool_table {
    enum format_table_kind kind;
    uint64_t offset;
    uint32_t block_count;
    uint32_t per_block; /* extents */
    uint8_t *flags;
};

struct pool_disk {
    char *path;
    int fd;
    struct format_super super;
    unsigned super_slot;
    uint32_t first_extent; /* in the pool's numbering */
    uint32_t free_extents;
    uint32_t hint;         /* no free extent of this disk lies before it */
    struct pool_table tables[2];
};

struct pool_volume {
    struct pool *pool;
    struct id id, group;
    uint64_t size_bytes, blocks, created_lsn;
    uint64_t dirty_blocks;
    uint32_t extent_count, used_extents;
    uint32_t *map;  /* pool extent + 1; 0: none */
    uint32_t seed;  /* of its checksums */
    bool ready;     /* in the durable catalogue and not being deleted */
};

struct pool_session {
    struct id group;
    bool used;
    bool live;
    struct id session; /* while live */
    uint64_t commit;
    struct id seen;    /* the journal's last */
    uint64_t highest, committed; /* of it */
};

struct pool_group {
    struct pool *pool;
    struct id id;
    bool used;
    bool stored; /* its record exists on disk */
    struct list queue;
    bool in_flight;
    struct ring_io io;
    uint8_t *blob;
    uint32_t size;
    uint64_t sequence;
    unsigned slot;
};

struct pool_catalogue {
    struct ring_io io;
    struct list queue;
    bool in_flight;
    uint8_t *buffer;
    uint64_t sequence;
    unsigned slot;
};

enum checkpoint_state {
    CHECKPOINT_IDLE,
    CHECKPOINT_SYNC_DATA,
    CHECKPOINT_TABLES,
    CHECKPOINT_SYNC_TABLES,
    CHECKPOINT_SUPER
};

struct checkpoint_io {
    struct ring_io io;
    struct pool *pool;
    uint8_t *buffer;
    bool busy;
};

struct pool_checkpoint {
    enum checkpoint_state state;
    struct list waiting, covered; /* OP_CHECKPOINT */
    uint64_t upto;                /* LSN of the tail to be */
    uint64_t sequence;
    unsigned disk, table;         /* cursor over the tables */
    uint32_t block;
    unsigned left;                /* operations under way */
    struct checkpoint_io writes[TABLE_WRITES_MAX];
    bool idle_wanted;
    unsigned stuck_ticks;
};

struct pool {
    struct ring *ring;
    struct iobuf_arena *arena;
    struct iobuf_waiter arena_waiter;
    bool arena_waiting;
    struct id id, node;
    int failure;
    struct pool_disk disks[POOL_DISKS_MAX]; /* by disk index */
    unsigned disk_count, next_disk;
    /* extents: parallel arrays */
    uint32_t extent_count, reserved_extents, used_extents;
    struct format_descriptor *descriptors;
    uint32_t (*checksums)[FORMAT_EXTENT_BLOCKS];
    uint16_t *busy; /* portions under way per extent: it is not freed meanwhile */
    bool may_be_empty; /* some extent may hold nothing any more */
    uint64_t tables_dirty;
    struct pool_volume *volumes[POOL_VOLUMES_MAX];
    struct pool_group groups[POOL_GROUPS_MAX];
    struct pool_session sessions[POOL_GROUPS_MAX];
    struct pool_catalogue catalogue;
    /* journal */
    uint64_t head_lsn, tail_lsn, journal_blocks;
    struct id journal;
    struct list accept;  /* not yet in the journal */
    struct list live;    /* LSN given, not yet passed by the tail; by LSN */
    struct list *pending; /* first of `live` that is not yet handed to a batch; &live: none */
    struct list *reclaim; /* first of `live` that the tail may not pass; &live: none */
    struct pool_batch batches[BATCHES_MAX];
    unsigned batch_first, batch_count;
    bool space_waiting; /* `accept` waits for the tail to move */
    /* placing and reading */
    struct list buckets[BUCKET_COUNT];
    struct list place_queue;
    unsigned placing;
    struct pool_checkpoint checkpoint;
    /* operations */
    struct list free_ops;
    struct pool_op **op_chunks;
    unsigned op_chunk_count;
    struct list finished;
    struct ring_mail mail;
    bool mail_armed;
    unsigned busy_count; /* ring operations under way */
    struct ring_timer tick;
    uint64_t tick_head;
    struct pool_stats stats;
};

/* pool.c */
struct pool_op *pool_op_new(struct pool *pool, enum pool_op_kind kind);
void pool_op_free(struct pool *pool, struct pool_op *op);
/* Tells who waits for it, in this batch but not from within the caller. Records (they live on) are only told. */
void pool_op_finish(struct pool *pool, struct pool_op *op, int result);
void pool_wake(struct pool *pool); /* pool_journal_pump and what is finished, at the end of the batch */
void pool_fail(struct pool *pool, int error, const char *what, const char *path);
uint32_t pool_crc(const void *data, size_t size);
void *pool_aligned(size_t size); /* zeroed, aligned to a block, free() */
/* Runs the ring until nothing of the pool is under way and (when `checkpoint`) a checkpoint was written. */
int pool_settle(struct pool *pool, bool checkpoint);
void pool_free(struct pool *pool);

/* pool_disk.c: superblocks and layout; blocking */
struct pool_layout {
    uint64_t table_offset, checksum_offset, data_offset;
    uint32_t extent_count;
};
uint32_t pool_table_blocks(uint32_t extents, uint32_t per_block);
int pool_layout_compute(uint64_t disk_bytes, bool first, uint64_t journal_bytes, struct pool_layout *ret);
void pool_super_seal(struct format_super *super);
/* 0, -ENODATA when neither slot holds one, or the errno of reading. */
int pool_super_read(int fd, struct format_super *ret, unsigned *ret_slot);
int pool_disk_size(int fd, uint64_t *ret_bytes);
int pool_read_at(int fd, void *data, size_t size, uint64_t offset);
int pool_write_at(int fd, const void *data, size_t size, uint64_t offset);

/* pool_extents.c */
int pool_extents_new(struct pool *pool);
void pool_extents_free(struct pool *pool);
struct pool_disk *pool_extents_disk(struct pool *pool, uint32_t extent);
uint64_t pool_extents_offset(struct pool *pool, uint32_t extent, unsigned block);
uint32_t pool_extents_seed(const struct id *volume);
uint32_t pool_extents_checksum(uint32_t seed, uint64_t block, const void *data);
/* The pool's extent for an extent of the volume; -1: none and not `allocate`. */
int64_t pool_extents_of(struct pool_volume *volume, uint32_t logical, bool allocate);
void pool_extents_set_written(struct pool *pool, uint32_t extent, unsigned first, unsigned count,
                              const uint32_t *checksums);
void pool_extents_set_zero(struct pool *pool, uint32_t extent, unsigned first, unsigned count);
void pool_extents_set_dirty(struct pool_volume *volume, uint64_t block, uint64_t count);
bool pool_extents_any_written(const struct pool *pool, uint32_t extent, unsigned first, unsigned count);
bool pool_extents_is_written(const struct pool *pool, uint32_t extent, unsigned block);
void pool_extents_release_empty(struct pool *pool);
void pool_extents_release_volume(struct pool_volume *volume);
/* Takes a descriptor read from disk: false when it belongs to no volume or its place is taken already. */
bool pool_extents_adopt(struct pool *pool, uint32_t extent);
void pool_extents_forget(struct pool *pool, uint32_t extent);

/* pool_tables.c */
void pool_tables_touch(struct pool *pool, uint32_t extent, enum format_table_kind kind);
void pool_tables_encode(struct pool *pool, unsigned disk, unsigned table, uint32_t block, uint64_t sequence, void *ret);
uint64_t pool_tables_offset(const struct pool_table *table, uint32_t block, unsigned slot);
int pool_tables_load(struct pool *pool, uint64_t *ret_sequence, struct err *err);

/* pool_volumes.c, pool_groups.c */
struct pool_volume *pool_volume_new(struct pool *pool, const struct format_volume *from);
void pool_volume_free(struct pool_volume *volume);
int pool_catalogue_load(struct pool *pool, struct err *err);
int pool_groups_load(struct pool *pool, struct err *err);
bool pool_blob_is_valid(const struct pool *pool, const struct format_slot *slot, uint64_t magic, uint32_t limit);
void pool_blob_seal(struct pool *pool, struct format_slot *slot, uint64_t magic);

/* pool_session.c */
struct pool_session *pool_session_find(struct pool *pool, const struct id *group);
struct pool_session *pool_session_get(struct pool *pool, const struct id *group);
bool pool_session_covers(const struct pool_op *op); /* is it (still) an uncommitted write of a live session? */
/* Everything up to `upto` of the session is durable on both. */
void pool_session_knows(struct pool_session *slot, const struct id *session, uint64_t upto);
void pool_session_saw(struct pool *pool, const struct id *group, const struct id *session, uint64_t sequence);

/* pool_journal.c, pool_io.c, pool_checkpoint.c, pool_replay.c */
void pool_journal_pump(struct pool *pool);
void pool_io_place(struct pool *pool, struct pool_op *op);
void pool_io_pump(struct pool *pool);
void pool_io_fail_waiting(struct pool *pool);
unsigned pool_io_split(const struct pool_op *op, unsigned index, uint64_t *ret_block, uint32_t *ret_logical,
                       unsigned *ret_first);
void pool_checkpoint_consider(struct pool *pool);
void pool_checkpoint_tick(struct ring_timer *timer);
/* Before the loop runs: the whole checkpoint at once, tail at the head. */
int pool_checkpoint_write_now(struct pool *pool);
int pool_replay_run(struct pool *pool, struct err *err);
