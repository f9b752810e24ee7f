/* What the pool_*.c files share: the pool's memory. Nothing outside of them includes this.
 *
 * The life of a write: pool_write divides it into parts, one per extent, chooses their extents and has their checksums'
 * table blocks loaded (pool_request.c, pool_checksums.c). A part of at most POOL_JOURNALED_MAX is copied and goes with
 * others as one record into the journal of its extent's disk (pool_journal.c); durable, its checksums and bits are set
 * (pool_extents.c), it is done for the caller and goes to its place (pool_io.c). Of a larger part only an intent goes
 * into the journal; then its data is written durably to its place, then it is done. Parts stay in `live` of the journal
 * until a checkpoint of the disk has made all of that durable and moved the tail past them (pool_checkpoint.c). */
#pragma once

#include "storaged/pool/format.h"
#include "storaged/iobuf.h"
#include "storaged/pool/pool.h"

#define BUCKET_COUNT 4096u
#define RECORDS_MAX 2u              /* of a disk's journal under way */
#define RECORD_SECOND_BLOCKS 64u    /* a second one begins only when so much waits: small ones gather */
#define RECORD_PARTS_MAX 256u
#define POOL_JOURNALED_MAX (16u)    /* blocks: larger parts go straight to their place */
#define PLACING_MAX 64u             /* in-place writes under way: more only make the journal wait for the disk */
#define PLACING_MIN 8u
#define PLACING_BACKLOG_EACH 64u    /* blocks waiting for their place allow one more */
#define PLACING_PARTS_MAX 16u       /* neighbours in one write */
#define TABLE_WRITES_MAX 16u
#define LOADERS_MAX 32u
#define POOL_ARENA_BYTES (64u << 20)
#define POOL_DISK_BYTES_MIN (256ull << 20)
#define POOL_JOURNAL_BYTES_DEFAULT (64ull << 20)
#define POOL_JOURNAL_BYTES_MIN (4ull << 20) /* some records of the largest size */
#define POOL_JOURNAL_BYTES_MAX (4ull << 30)
#define POOL_CHECKSUM_FRAMES 65536u /* 256 MiB */
#define TICK_MS 1000u

/* An extent of the pool: the disk's index in the upper bits, its number on that disk in the lower. */
#define EXTENT_DISK_SHIFT 28
#define EXTENT_LOCAL_MASK ((1u << EXTENT_DISK_SHIFT) - 1)
#define EXTENTS_PER_DISK_MAX (EXTENT_LOCAL_MASK - 16) /* a map's value is the extent + 1 */
#define EXTENT_NONE UINT32_MAX

enum pool_op_kind { OP_READ, OP_WRITE, OP_ZERO, OP_DIRTY, OP_BLOB, OP_VOLUME, OP_CHECKPOINT, OP_MOVE };
/* The last two are the drain's: the extent that moves, and where it moves to. */
enum pool_part_kind { PART_READ, PART_WRITE, PART_ZERO, PART_DIRTY, PART_INTENT, PART_MOVE_FROM, PART_MOVE_TO };

/* What of a request lies in one extent. Those of one bucket are in the order of arrival: a part waits for every earlier
 * one that overlaps, unless both read. */
struct pool_part {
    struct list link;   /* writes: `waiting` of a frame, then `accept`, then `live` of the journal; reads: the first */
    struct list bucket; /* in the bucket of its extent */
    struct list queue;  /* placements that have not begun: in one of the pool's two queues */
    struct pool_op *op;
    struct pool_disk *disk;
    struct pool_frame *frame; /* pinned */
    enum pool_part_kind kind;
    uint32_t extent;
    uint64_t block; /* of the volume */
    uint16_t first, count; /* blocks of the extent */
    uint8_t *data;   /* the caller's */
    uint8_t *buffer; /* ours: WRITE: the data until it is in its place, INTENT: its checksums */
    const uint32_t *checksums; /* from the record on until the part is placed */
    uint64_t lsn;    /* of its record */
    bool renewed;    /* being rescued (pool_failure.c), with what later writes made of its blocks */
    bool durable;    /* in the journal */
    bool placed;     /* and in its place: the tail may pass it, once it is committed */
    bool forgiven;   /* its blocks are marked dirty: the tail may pass it without a commit */
    bool started, in_backlog;
    struct ring_io io; /* READ, INTENT */
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
    bool dirty, copy, unmirrored;
    bool told;
    uint8_t parts_left; /* not done */
    uint8_t holds;      /* parts in a journal's memory: the op stays */
    struct id session;
    uint64_t sequence;
    struct pool_session *session_slot;
    struct list finished_link;
    struct pool_part parts[2]; /* 257 blocks lie in two extents at most */
};

/* A record under way. */
struct pool_record {
    struct ring_io io;
    struct pool_disk *disk;
    uint8_t *header;
    struct list *first; /* of its parts in `live`; `count` of them */
    struct iovec vectors[RECORD_PARTS_MAX + 1];
    unsigned count;
    uint64_t lsn, bytes;
    bool durable;
};

struct pool_journal {
    uint64_t head_lsn, tail_lsn, blocks;
    struct id id;
    struct list accept;   /* parts not yet in the journal */
    struct list live;     /* LSN given, not yet passed by the tail; by LSN */
    struct list *reclaim; /* first of `live` that the tail may not pass; &live: none */
    struct list *settled; /* first of `live` that is not durable or, an intent, not in its place; &live: none */
    struct pool_record records[RECORDS_MAX];
    unsigned record_first, record_count;
    bool space_waiting; /* `accept` waits for the tail to move */
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

enum checkpoint_state {
    CHECKPOINT_IDLE,
    CHECKPOINT_SYNC_DATA,
    CHECKPOINT_TABLES,
    CHECKPOINT_SYNC_TABLES,
    CHECKPOINT_SUPER
};

struct checkpoint_io {
    struct ring_io io;
    struct pool_disk *disk;
    struct pool_frame *frame; /* pinned while it is written */
    uint8_t *buffer;
    bool busy;
};

struct pool_checkpoint {
    enum checkpoint_state state;
    struct list waiting, covered; /* OP_CHECKPOINT */
    uint64_t upto;                /* LSN of the tail to be */
    uint64_t sequence;            /* of the tables' blocks */
    unsigned table;               /* cursor over the tables */
    uint32_t block;
    unsigned left;                /* operations under way */
    struct checkpoint_io writes[TABLE_WRITES_MAX];
    bool idle_wanted;
    unsigned stuck_ticks;
    uint64_t tick_head;
};

/* How far the pool has come to terms with a disk that failed (pool_failure.c). */
enum pool_failing {
    FAILING_NOT,
    FAILING_QUIET,
    FAILING_STRIKE,
    FAILING_SETTLE,
    FAILING_FLAG,
    FAILING_GONE,
    FAILING_DONE
};

struct pool_disk {
    struct pool *pool;
    bool used; /* its place in the pool's table of disks is taken */
    enum pool_disk_state state;
    char *path;
    int fd;
    uint32_t index; /* in the pool's table of disks */
    struct format_super super;
    unsigned super_slot;
    bool super_doubt; /* at opening: the other slot is neither valid nor empty */
    uint32_t extent_count, free_extents;
    uint32_t hint; /* no free extent of this disk lies before it */
    struct format_descriptor *descriptors;
    uint32_t *busy;  /* parts that name the extent: under way, or in the journal. It is not freed meanwhile */
    uint64_t *empty; /* a bit per extent that may hold nothing any more */
    bool may_be_empty; /* one of those bits is set */
    uint32_t *frames;  /* per block of the checksum table: its frame + 1; 0: not in memory */
    struct pool_table tables[2];
    uint64_t tables_dirty;
    uint64_t read_errors, write_errors, checksum_errors;
    unsigned flights; /* ring operations under way on it */
    bool joining;     /* it is being added: gets what all disks hold, but no extents yet */
    bool unnamed;     /* not (or no longer) in the pool's table of disks */
    bool leaving;     /* it is being taken out: nothing is written to it any more */
    bool is_settled;  /* lost, and all that it held is known to be lost elsewhere: FORMAT_DISK_GONE */
    enum pool_failing failing;
    bool resuming; /* what waits for its extents goes on as soon as nothing is rescued any more */
    struct list requeue; /* parts that a failure threw back: nobody was told of them yet */
    struct pool_op *removal; /* who waits for its removal */
    struct pool_journal journal;
    struct pool_checkpoint checkpoint;
};

/* One block of a checksum table in memory. */
struct pool_frame {
    struct pool_disk *disk; /* NULL: holds nothing */
    uint32_t block;
    uint32_t pins; /* parts that need it, or its being written */
    bool loading, referenced;
    struct list waiting; /* parts: it is being loaded */
    struct list link;    /* in load_queue */
};

struct pool_loader {
    struct ring_io io;
    struct pool *pool;
    struct pool_frame *frame; /* NULL: idle */
    uint8_t *pair;
};

struct pool_checksums {
    struct pool_frame *frames;
    struct format_checksum_block *blocks; /* of each frame */
    uint32_t count, limit, used, hand;
    struct list load_queue;  /* frames waiting for a loader */
    struct list starved;     /* parts waiting for a frame */
    struct pool_loader loaders[LOADERS_MAX];
    uint64_t loads, evictions;
};

struct pool_volume {
    struct pool *pool;
    struct id id, group;
    uint64_t size_bytes, blocks;
    uint64_t dirty_blocks, lost_blocks;
    uint8_t heal;    /* HOLES_LOST, and no hole left: 1: a checkpoint makes that durable, 2: the catalogue follows */
    uint32_t ghosts; /* extents on a failed disk for which there was no room elsewhere */
    bool haunted;    /* it has ghosts, or those that found room meanwhile may not be in the tables yet */
    uint32_t life, flags;
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
    struct id coming; /* the last that was given an order; it may not be durable yet */
    uint64_t coming_order;
    struct id seen;    /* the journals' last */
    uint64_t highest, committed, order; /* of it */
};

/* The same bytes to every healthy disk: the catalogue or a group's record. */
struct pool_blob_io {
    struct ring_io io;
    struct pool_blob *blob;
};
struct pool_blob {
    struct list link; /* in blobs_held: until a disk that failed is struck */
    struct pool *pool;
    struct pool_blob_io writes[POOL_DISKS_MAX];
    const struct format_slot *slot;
    const char *what;
    unsigned left;
    void (*written)(struct pool_blob *blob); /* by all; or the pool has failed */
};

struct pool_group {
    struct pool *pool;
    struct id id;
    bool used;
    bool stored; /* its record exists on disk */
    struct list queue;
    bool in_flight;
    struct pool_blob write;
    uint8_t *blob;
    uint32_t size;
    uint64_t sequence;
};

struct pool_catalogue {
    struct pool_blob write;
    struct list queue;
    bool in_flight;
    uint8_t *buffer;
    uint64_t sequence;
};

/* Neighbours on their way to their place in one write. */
struct pool_placing {
    struct ring_io io;
    struct pool *pool;
    struct list link; /* in pool->placings_free */
    struct pool_part *parts[PLACING_PARTS_MAX];
    struct iovec vectors[PLACING_PARTS_MAX];
    unsigned count;
    uint64_t bytes;
};

struct pool {
    struct ring *ring;
    struct iobuf_arena *arena;
    struct iobuf_waiter arena_waiter;
    bool arena_waiting;
    struct id id, node;
    int failure;
    struct pool_disk disks[POOL_DISKS_MAX]; /* by disk index; not all are `used` */
    unsigned disk_count, next_disk;
    uint64_t table_sequence; /* of the table of disks in the superblocks */
    uint64_t birth;          /* the last that was given: of extents, and the order of sessions */
    uint32_t extent_count, reserved_extents, used_extents;
    struct pool_checksums checksums;
    struct pool_volume *volumes[POOL_VOLUMES_MAX];
    struct pool_group groups[POOL_GROUPS_MAX];
    struct pool_session sessions[POOL_GROUPS_MAX];
    struct pool_catalogue catalogue;
    /* placing and reading */
    struct list buckets[BUCKET_COUNT];
    struct list place_queue, intent_queue;
    struct list placings_free;
    unsigned placing_count, place_backlog; /* the latter in blocks, under way or waiting */
    struct pool_placing placings[PLACING_MAX];
    /* operations */
    struct list free_ops;
    struct pool_op **op_chunks;
    unsigned op_chunk_count;
    struct list finished;
    struct list held;       /* requests to an extent that moves, or whose disk has just failed */
    struct list blobs_held;
    bool healing;
    unsigned rescues; /* acknowledged writes on their way from a failed disk's journal to another disk */
    struct pool_drain *drain;
    bool is_open, closing;
    void (*disk_changed)(void *userdata, const struct pool_disk_info *disk);
    void *disk_changed_userdata;
    struct ring_mail mail;
    bool mail_armed;
    unsigned busy_count; /* ring operations under way */
    struct ring_timer tick;
    struct pool_stats stats;
};

/* Every disk that the pool reads and writes. */
#define POOL_DISK_IS_ALIVE(disk)                                                                                       \
    ((disk)->used && (disk)->fd >= 0 && (disk)->state != POOL_DISK_FAILED && !(disk)->leaving)
#define pool_for_each_disk(pool, disk)                                                                                 \
    for (struct pool_disk *disk = (struct pool_disk *)(pool)->disks; disk < (pool)->disks + POOL_DISKS_MAX; disk++)    \
        if (POOL_DISK_IS_ALIVE(disk))

/* pool.c */
struct pool_op *pool_op_new(struct pool *pool, enum pool_op_kind kind);
/* Tells who waits for it, in this batch but not from within the caller. It is free when told and not held any more. */
void pool_op_finish(struct pool *pool, struct pool_op *op, int result);
void pool_op_release(struct pool *pool, struct pool_op *op); /* one hold less */
void pool_wake(struct pool *pool); /* the journals' pumps and what is finished, at the end of the batch */
void pool_fail(struct pool *pool, int error, const char *what, const char *path);
uint32_t pool_crc(const void *data, size_t size);
/* Of a struct that carries its own checksum in `crc`: computed with that 0. */
uint32_t pool_crc_sealed(const void *data, size_t size, const uint32_t *crc);
void *pool_aligned(size_t size); /* zeroed, aligned to a block, free() */
/* Address space for a whole table, memory only where it is used; NULL: none. */
void *pool_table_map(size_t size);
/* Runs the ring until nothing of the pool is under way and (when `checkpoint`) a checkpoint was written. */
int pool_settle(struct pool *pool, bool checkpoint);
void pool_free(struct pool *pool);

/* pool_create.c */
struct pool_disk_prepared {
    char *path;
    int fd;
    struct format_super super; /* as in its slot 1 */
};

/* pool_disk.c: superblocks and layout; blocking */
struct pool_layout {
    uint64_t table_offset, checksum_offset, data_offset;
    uint32_t extent_count;
};
uint32_t pool_table_blocks(uint32_t extents, uint32_t per_block);
int pool_layout_compute(uint64_t disk_bytes, uint64_t journal_bytes, struct pool_layout *ret);
void pool_super_seal(struct format_super *super);
/* 0, -ENODATA when neither slot holds one, or the errno of reading. *ret_doubt: the other slot is neither valid nor
 * empty, torn or rotten. */
int pool_super_read(int fd, struct format_super *ret, unsigned *ret_slot, bool *ret_doubt);
int pool_disk_size(int fd, uint64_t *ret_bytes);
int pool_read_at(int fd, void *data, size_t size, uint64_t offset);
int pool_write_at(int fd, const void *data, size_t size, uint64_t offset);
/* The disk's memory, from disk->super: tables, journal, checkpoint. */
int pool_disk_init(struct pool *pool, struct pool_disk *disk);
void pool_disk_free(struct pool_disk *disk);

/* pool_extents.c */
struct pool_disk *pool_extents_disk(struct pool *pool, uint32_t extent);
struct format_descriptor *pool_extents_descriptor(struct pool *pool, uint32_t extent);
uint32_t *pool_extents_busy(struct pool *pool, uint32_t extent);
uint64_t pool_extents_offset(struct pool *pool, uint32_t extent, unsigned block);
uint32_t pool_extents_seed(const struct id *volume);
uint32_t pool_extents_checksum(uint32_t seed, uint64_t block, const void *data);
uint64_t pool_extents_mask(unsigned word, unsigned first, unsigned count);
/* The pool's extent for an extent of the volume; EXTENT_NONE: none and not `allocate`. */
uint32_t pool_extents_of(struct pool_volume *volume, uint32_t logical, bool allocate);
/* The bits; the checksums are the caller's to set. Clears `lost`. */
void pool_extents_set_written(struct pool *pool, uint32_t extent, unsigned first, unsigned count);
void pool_extents_set_zero(struct pool *pool, uint32_t extent, unsigned first, unsigned count);
void pool_extents_set_lost(struct pool *pool, uint32_t extent, unsigned first, unsigned count);
bool pool_extents_any_content(struct pool *pool, uint32_t extent, unsigned first, unsigned count);
bool pool_extents_is_written(struct pool *pool, uint32_t extent, unsigned block);
bool pool_extents_is_lost(struct pool *pool, uint32_t extent, unsigned block);
/* Gives the disk's extents back that hold nothing and that no record names. */
void pool_extents_release_empty(struct pool_disk *disk);
void pool_extents_may_be_empty(struct pool *pool, uint32_t extent);
void pool_extents_release_volume(struct pool_volume *volume);
/* A free extent on a disk that takes new ones; EXTENT_NONE: there is none. Not taken yet. */
uint32_t pool_extents_find_free(struct pool *pool);
/* The volume's extent is another one from now on, with these bits; the old one is nobody's. */
void pool_extents_replace(struct pool_volume *volume, uint32_t logical, uint32_t extent,
                          const struct format_descriptor *bits);
bool pool_extents_hole_is_lost(const struct pool_volume *volume);
/* Takes a descriptor read from disk; of several for one place the one born last stays, the others become free. */
void pool_extents_adopt(struct pool *pool, uint32_t extent);
/* Replay: an entry says that the extent is that of the volume's place since `birth`. False: it was taken over since. */
bool pool_extents_claim(struct pool_volume *volume, uint32_t logical, uint32_t extent, uint64_t birth);
void pool_extents_forget(struct pool *pool, uint32_t extent);

/* pool_dirty.c */
void pool_dirty_set(struct pool_volume *volume, uint64_t block, uint64_t count);

/* pool_tables.c */
void pool_tables_touch(struct pool *pool, uint32_t extent, enum format_table_kind kind);
void pool_tables_encode(struct pool_disk *disk, struct pool_table *table, uint32_t block, void *ret);
uint64_t pool_tables_offset(const struct pool_table *table, uint32_t block, unsigned slot);
/* Of the pair at `data` the slot that counts, 0 or 1; -1: empty; -EUCLEAN: damaged. */
int pool_tables_choose(const struct pool_disk *disk, const struct pool_table *table, uint32_t block, uint8_t *data);
/* Its newest slot, and that what is written from now on has a higher sequence. */
void pool_tables_note(struct pool_disk *disk, struct pool_table *table, uint32_t block, int slot, uint64_t sequence);
int pool_tables_load(struct pool_disk *disk, struct err *err); /* descriptors */

/* pool_checksums.c */
int pool_checksums_new(struct pool *pool, uint32_t frames);
void pool_checksums_free(struct pool *pool);
/* For tests, and for machines with little memory: how many frames are used at most. */
void pool_checksums_limit(struct pool *pool, uint32_t frames);
/* True: the block of the part's extent is in memory and stays until unpinned; false: pool_part_ready comes later. */
bool pool_checksums_pin(struct pool_part *part);
void pool_checksums_unpin(struct pool_part *part);
uint32_t *pool_checksums_of(struct pool *pool, const struct pool_frame *frame, uint32_t extent);
/* Before the loop runs. NULL and *ret_error: it cannot be read, or (-ENOBUFS) all frames are dirty. */
struct pool_frame *pool_checksums_load_now(struct pool *pool, uint32_t extent, int *ret_error);
struct pool_frame *pool_checksums_find(const struct pool_disk *disk, uint32_t block);
void pool_checksums_forget(struct pool_disk *disk);
void pool_checksums_retry(struct pool *pool); /* frames may have become free */
void pool_checksums_fail(struct pool *pool);

/* pool_request.c */
void pool_part_ready(struct pool_part *part); /* its frame is there */
void pool_part_done(struct pool_part *part, int result);
void pool_part_again(struct pool_part *part, uint32_t extent); /* from the beginning, at this extent */
void pool_request_release(struct pool *pool); /* the held ones try again */
unsigned pool_request_split(uint64_t block, uint64_t count, unsigned index, uint64_t *ret_block, uint32_t *ret_logical,
                            unsigned *ret_first);

/* pool_volumes.c, pool_groups.c, pool_blob.c */
struct pool_volume *pool_volume_new(struct pool *pool, const struct format_volume *from);
void pool_volume_free(struct pool_volume *volume);
int pool_catalogue_load(struct pool *pool, struct err *err);
/* The catalogue as it is, to all disks. */
void pool_catalogue_save(struct pool *pool, pool_done *done, void *userdata);
int pool_catalogue_save_now(struct pool *pool);
/* Volumes whose holes were lost and that have none any more are as others are; called now and then. */
void pool_volume_heal(struct pool *pool);
void pool_groups_save_again(struct pool *pool, pool_done *done, void *userdata);
int pool_groups_load(struct pool *pool, struct err *err);
bool pool_blob_is_valid(const struct pool *pool, const struct format_slot *slot, uint64_t magic, uint32_t limit);
void pool_blob_seal(struct pool *pool, struct format_slot *slot, uint64_t magic);
void pool_blob_write(struct pool *pool, struct pool_blob *blob, const struct format_slot *slot,
                     const uint64_t offsets[static 2], const char *what);
/* The newest valid copy over all disks into `ret` (FORMAT_SLOT bytes), which then all disks hold. -ENODATA: none was
 * ever written; -EUCLEAN: all are damaged. */
int pool_blob_load(struct pool *pool, uint64_t magic, const uint64_t offsets[static 2], uint32_t limit,
                   struct format_slot *ret);

/* pool_session.c */
struct pool_session *pool_session_find(struct pool *pool, const struct id *group);
struct pool_session *pool_session_get(struct pool *pool, const struct id *group);
bool pool_session_covers(const struct pool_op *op); /* is it (still) an uncommitted write of a live session? */
bool pool_session_is_live(const struct pool_op *op);
/* Dirty bits for what of the session is in the journal and not committed. */
void pool_session_mark(struct pool_journal *journal, const struct pool_session *slot);
uint64_t pool_session_order(struct pool *pool, const struct id *group, const struct id *session);
/* Everything up to `upto` of the session is durable on both. */
void pool_session_knows(struct pool_session *slot, const struct id *session, uint64_t upto);
void pool_session_saw(struct pool *pool, const struct id *group, const struct id *session, uint64_t order,
                      uint64_t sequence);

/* pool_journal.c */
void pool_journal_pump(struct pool *pool);
void pool_journal_init(struct pool_disk *disk);
void pool_journal_free(struct pool_disk *disk);
uint64_t pool_journal_settled(struct pool_journal *journal);
struct pool_part *pool_part_of(struct list *link);

/* pool_choose.c: which of the disks at the given paths are the pool's; before the loop runs */
struct pool_choice {
    struct pool_disk disks[POOL_DISKS_MAX]; /* found; those that are taken have fd -1 */
    unsigned count;
    const struct id *lost;
    unsigned lost_count;
    unsigned absent_count; /* paths without a disk, and what is wrong with the first */
    struct err absent;
    int absent_result;
};
int pool_choose(struct pool *pool, struct pool_choice *choice, struct err *err);
void pool_choose_end(struct pool_choice *choice);
bool pool_choose_is_unsettled(const struct pool *pool);
void pool_choose_settle(struct pool *pool);

/* pool_members.c: the table of disks in the superblocks */
void pool_members_commit(struct pool *pool, pool_done *done, void *userdata); /* done: all disks have it durably */
void pool_members_tell(struct pool_disk *disk); /* the listener */
struct pool_disk *pool_members_find(struct pool *pool, const struct id *disk);
uint32_t pool_members_capacity(const struct pool *pool, const struct pool_disk *without); /* extents of healthy disks */
bool pool_members_house_ghosts(struct pool *pool); /* true: there are none left */
void pool_disk_begin(struct pool_disk *disk); /* a ring operation on it */
void pool_disk_end(struct pool_disk *disk);

/* pool_disks.c */
void pool_disks_keep_last(struct pool *pool); /* when no disk is left that could take what is drained: it stays */

/* pool_failure.c */
void pool_disk_fail(struct pool_disk *disk, int error, const char *what);
void pool_failure_pump(struct pool *pool);
bool pool_failure_is_striking(const struct pool *pool);
bool pool_failure_is_busy(const struct pool *pool); /* a disk that failed is not dealt with yet */
void pool_failure_requeue(struct pool_part *part);

/* pool_drain.c */
void pool_drain_start(struct pool *pool); /* disks that were draining go on */
void pool_drain_pump(struct pool *pool);
void pool_drain_free(struct pool *pool);
void pool_drain_part_ready(struct pool_part *part);
void pool_drain_part_durable(struct pool_part *part);
void pool_drain_fill(const struct pool_part *part, uint64_t *ret_birth, uint32_t *ret_words);
bool pool_drain_holds(const struct pool *pool, uint32_t extent);
bool pool_drain_moves(const struct pool *pool, const struct pool_volume *volume);
bool pool_drain_is_target(const struct pool *pool, uint32_t extent);
bool pool_drain_targets(const struct pool_disk *disk); /* one of its free extents is taken as good as */
void pool_drain_disk_failed(struct pool_disk *disk);
void pool_drain_part_lost(struct pool_part *part);
bool pool_drain_needs(const struct pool_disk *disk);

/* pool_io.c */
void pool_io_place(struct pool_part *part);
void pool_io_read(struct pool_part *part);
void pool_io_leave(struct pool_part *part); /* no longer under way to or from its place */
void pool_io_pump(struct pool *pool);
void pool_io_fail_waiting(struct pool *pool);

/* pool_checkpoint.c */
void pool_checkpoint_init(struct pool_disk *disk);
void pool_checkpoint_consider(struct pool *pool);
void pool_checkpoint_tick(struct ring_timer *timer);
/* Before the loop runs: the whole checkpoint at once, tail at the head. */
int pool_checkpoint_write_now(struct pool_disk *disk);
/* Before the loop runs: the changed table blocks only. */
int pool_checkpoint_flush_now(struct pool_disk *disk);
/* After the loop: if its journal is empty, the disk says so, and the next opening need not look. */
int pool_checkpoint_seal_now(struct pool_disk *disk);

/* pool_scan.c, pool_replay.c */
struct pool_scan {
    struct pool_disk *disk;
    uint8_t *buffer; /* of one record: its header blocks, then its data blocks */
    uint64_t lsn, end;
    uint64_t settled; /* highest that any record told */
    bool looked_ahead;
    bool bad[FORMAT_RECORD_DATA_MAX]; /* data blocks of this record that rotted */
};
/* 1: `buffer` holds a record (its bad blocks marked) at `lsn`; 0: the journal ends here; or an errno, with `err` set. */
int pool_scan_read(struct pool_scan *scan, struct err *err);
const struct format_entry *pool_scan_entry(const struct format_record *record, const struct format_entry *previous);
/* Did the newer superblock, whose slot is not valid, rot after it was whole? */
int pool_scan_is_rotten(struct pool_disk *disk, bool *ret_rotten);
int pool_replay_run(struct pool *pool, struct err *err);
