/* A group: its volumes, its authority core and everything that is under way for it. Private to the engine and the
 * group_*.c files; README.md tells how they share the work. All on the data thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "quorum/authority_core.h"
#include "storaged/engine/engine.h"
#include "storaged/group/group_blob.h"
#include "storaged/lun.h"
#include "storaged/mirror/mirror_link.h"
#include "storaged/pool/pool.h"
#include "storaged/group/range_lock.h"

#define GROUP_EVENTS_MAX 32u
#define GROUP_SWAPS_MAX 16u
#define GROUP_HELD_MS 25000u       /* R4: then close the initiators' connections rather than answer them an error */
#define GROUP_COMMIT_MS 50u        /* an idle stream's commit is told within that */
#define ENGINE_GROUPS_MAX 60u      /* primary claims of all fit in one lease request (quorum/wire.h) */
#define ENGINE_OPERATIONS_MAX 2048u
#define ENGINE_RECEIPTS_MAX 4096u
#define ENGINE_FORWARD_BYTES_MAX (16u << 20) /* out at once: the other side's receive memory keeps room for mirroring */
#define ENGINE_FORWARDS_MAX 512u
#define ENGINE_CALLS_MAX 32u       /* questions to the other node */
#define RESYNC_RUNS 8u
#define RESYNC_PIECES 8u
#define GROUP_SECTORS_PER_BLOCK (LUN_BLOCK_SIZE / LUN_SECTOR_SIZE)
#define RESYNC_HOLD_BLOCKS 256u    /* so few left: hold new writes and finish */

struct group;

struct group_volume {
    struct group *group;
    struct id id;
    char name[GROUP_NAME_SIZE];
    uint64_t size_bytes;
    struct pool_volume *stored;
    struct range_lock lock;
    struct lun lun;
    bool exported;
    bool used;
    bool growing; /* engine_grow.c is at it: not to be deleted */
};

/* A place in the session's stream that is not yet durable on both (R2). */
struct flight {
    struct list link; /* group->flights, by sequence; empty when not in flight */
    uint64_t sequence;
    bool stored, acknowledged; /* here; there */
    void (*acked)(struct flight *flight);
};

enum operation_state {
    OPERATION_HELD,      /* waits for somebody to serve it */
    OPERATION_LOCKING,   /* waits for its range */
    OPERATION_MEMORY,    /* waits for a buffer */
    OPERATION_RUNNING,   /* pool, link or both are at it */
    OPERATION_FORWARDED, /* the authority has it */
    OPERATION_SETTLED,   /* is completed, or held again, at the end of the batch */
};

/* One request of an initiator here, or forwarded to us by the other node. */
struct operation {
    struct list link; /* group->held, running or forwarded; engine's free list */
    struct group *group;
    struct group_volume *volume;
    enum operation_state state;
    struct lun_request *request; /* NULL: of the other node */
    uint64_t tag;                /* ours: FORWARD, FETCH */
    uint64_t peer_tag;           /* the other node's: FORWARD received */
    enum lun_opcode opcode;
    uint64_t sector;
    uint32_t sectors;
    uint8_t *data; /* of the request; of the other node: owned, from the receive (write) or work (read) arena */
    uint64_t arrival, held_since_ms;
    bool redo;   /* R4: what it did counts no more; hold it when it settles */
    bool orphan; /* nobody waits for the answer any more */
    bool guarded; /* settled locally: R1's guard stands before its completion */

    struct range_lock_entry lock;
    struct iobuf_waiter waiter;
    uint8_t *bounce;      /* whole blocks: of a request that is not aligned to them, or that depends on what is there */
    uint64_t step_block;  /* what is being done now */
    uint32_t step_count;
    unsigned step_phase;
    uint64_t cursor;      /* sectors done (UNMAP goes in steps) */
    struct pool_io io;
    bool io_busy, send_busy, ack_wanted;
    int io_result;
    struct mirror_send send;
    struct flight flight;
    enum lun_status status;
    uint64_t bad_sector;
    uint32_t miscompare_offset;
    bool tried; /* COMPARE_WRITE: what it writes may be there already, from before it was held again */
    bool mapped;
    uint64_t run_sectors;
    struct ring_mail mail;
};

/* S: one message of the stream, until durable. */
struct receipt {
    struct list link;
    struct group *group;
    struct id session;
    uint64_t epoch, sequence;
    uint64_t tag;  /* COMPARE, FETCH */
    enum { RECEIPT_WRITE, RECEIPT_COMPARE, RECEIPT_FETCH, RECEIPT_META } kind;
    uint8_t *data;  /* received */
    uint8_t *own;   /* read here: work arena */
    struct iobuf_waiter waiter;
    uint8_t hashes[MIRROR_RUN_BLOCKS * MIRROR_HASH_SIZE]; /* COMPARE: the source's */
    struct pool_io io;
};

struct resync_piece {
    struct mirror_send send;
    struct flight flight;
    struct resync_run *run;
    bool used;
};

struct resync_run {
    struct group *group;
    bool used, waiting, io_busy;
    bool stopped; /* the session is over: clean up as soon as nothing is busy */
    struct group_volume *volume;
    uint64_t block;
    uint32_t count;
    uint64_t tag;
    struct range_lock_entry lock;
    struct iobuf_waiter waiter;
    uint8_t *buffer;
    struct pool_io io;
    struct mirror_send compare;
    unsigned sends_busy, acks_wanted;
    bool need_wanted;
    struct resync_piece pieces[RESYNC_PIECES];
    uint8_t hashes[MIRROR_RUN_BLOCKS * MIRROR_HASH_SIZE];
};

struct resync {
    bool active, reconciling, holding;
    bool advancing, again_wanted; /* breaks recursion */
    bool failed; /* a block could not be read in this pass */
    unsigned volume_index;
    uint64_t cursor;
    unsigned passes;
    uint64_t started_ms, copied_blocks, compared_blocks;
    bool meta_sent; /* metadata of meta_version is acknowledged */
    uint64_t meta_version;
    unsigned busy_runs;
    struct resync_run *runs; /* RESYNC_RUNS, made with the group */
    struct ring_timer again; /* after a block that could not be read */
};

/* meta.swap at the authority. */
struct swap {
    struct list link; /* group->swaps; the first is the one being made */
    struct metadata_changes changes;
    uint64_t made_version; /* the map already carries it: only make it durable again */
    uint64_t started_ms;
    void (*done)(struct swap *swap, int result, uint64_t version);
    void *userdata;
    uint64_t tag; /* of the other node's question */
};

#define GROUP_INITIATORS_MAX 64u /* names of an access list */

struct group {
    struct engine *engine;
    struct list link;
    struct id id;
    char name[GROUP_NAME_SIZE];
    struct group_volume volumes[GROUP_VOLUMES_MAX];
    bool founded;
    bool dying;      /* being deleted: engine_volumes.c */
    bool delete_busy;
    struct engine_call *delete_call; /* whose delete it is: ours, or */
    uint64_t delete_tag;             /* the other node's (0: nobody's) */
    bool has_early;
    struct authority_message early; /* the other node's HELLO, come before our core was started */

    /* group.c: the core and its events */
    struct authority authority;
    struct authority_event events[GROUP_EVENTS_MAX];
    unsigned event_first, event_count;
    bool stepping, started;
    struct ring_timer timer;
    struct engine_group_state told; /* last group_changed */
    const char *told_reason;
    unsigned saves; /* of the record, in the pool */
    bool store_failed;
    bool lost_known;      /* lost_blocks was looked at since the start */
    uint64_t lost_blocks; /* of its volumes: content that only a failed disk held */

    /* what the core allows */
    bool serving, forwarding, quiescing;
    bool hold_writes; /* R7.4, and last pass of a resync */
    unsigned writes_running;

    /* requests */
    struct list held, running, forwarded;
    uint64_t arrivals;
    unsigned answers; /* to the other node, on their way out */

    /* group_session.c: the stream */
    struct id session;
    uint64_t session_epoch;
    enum authority_role session_as;
    bool dual;      /* P: writes go to both */
    bool journaled; /* the pool knows the session */
    uint64_t sequence;  /* last given (P) or received (S) */
    uint64_t committed; /* told to the pool */
    uint64_t commit_sent;
    struct list flights;
    unsigned receipts, tail_marks;
    bool tail_complete; /* the other's end marker came */
    bool tail_sending, tail_send_busy;
    unsigned tail_volume;
    uint64_t tail_block;
    struct mirror_send tail_send;
    uint8_t *tail_buffer; /* MIRROR_TAIL_ENTRIES entries */

    struct resync resync;

    /* group_meta.c */
    struct metadata metadata;      /* what readers see */
    struct metadata next_metadata; /* being made durable; wins over `metadata` in every save */
    bool has_next;
    struct list swaps;
    unsigned swap_count;
    struct flight meta_flight;
    bool meta_flying;     /* the other node has not acknowledged */
    bool meta_for_resync; /* what flies is the whole map of a resync, no swap */
    unsigned meta_saves;  /* in the pool */
    uint64_t told_meta_version;
    bool meta_known; /* S: the authority's map of this session has come; nothing is forwarded before */

    /* admission, from the metadata */
    bool has_owner, has_chap, has_acl, acl_is_broken;
    char admitted[224]; /* the only initiator name, when has_owner; "": nobody */
    char chap_user[64], chap_secret[64];
    char mutual_user[64], mutual_secret[64]; /* both empty: the target does not prove itself */
    unsigned acl_count;
    char acl[GROUP_INITIATORS_MAX][224]; /* who may log in, when has_acl and not has_owner */
};

/* ---- group.c ---- */
struct group *group_new(struct engine *engine, const struct id *id, const char *name);
void group_free(struct group *group); /* nothing of it may be under way */
struct group_volume *group_add_volume(struct group *group, const struct id *id, const char *name, uint64_t size_bytes);
void group_remove_volume(struct group_volume *volume);
struct group_volume *group_volume_by_id(struct group *group, const struct id *id);
unsigned group_volume_count(const struct group *group);
/* Gives the core its first event and the state of the world. */
void group_start(struct group *group, const struct authority_record *record);
void group_event(struct group *group, struct authority_event *event);
void group_tell(struct group *group, enum authority_event_kind kind, bool up); /* an event without more */
int group_save(struct group *group, pool_done *done, void *userdata);
void group_message(struct group *group, const struct authority_message *message); /* of the other node's core */
void group_tell_lease(struct group *group, bool valid, uint64_t generation);
void group_store_failed(struct group *group, int result, const char *what);
bool group_is_drained(const struct group *group);
void group_check_quiesced(struct group *group);
void group_export(struct group *group);
const char *group_members_text(const struct group *group, uint8_t members, char text[static 160]);
void group_fill_info(struct group *group, struct engine_group_info *ret);
uint64_t group_dirty_blocks(const struct group *group);

/* ---- group_held.c ---- */
void group_init_lun(struct group_volume *volume);
void group_run_held(struct group *group);
void group_quiesce_operations(struct group *group);
void group_drop_held(struct group *group, const char *reason);
void group_drop_of_peer(struct group *group); /* R: forwarded requests whose asker is gone */
void group_expire_held(struct group *group, uint64_t now_ms);
/* ---- group_io.c ---- */
struct operation *operation_new(struct group *group, struct group_volume *volume);
void operation_free(struct operation *operation);
void operation_begin(struct operation *operation); /* run, forward or hold it */
void operation_hold(struct operation *operation);
void operation_settle(struct operation *operation, enum lun_status status);
void operation_finish(struct operation *operation, enum lun_status status); /* answers and frees */
bool group_may_complete(struct group *group);
void group_flight_changed(struct group *group);

/* ---- group_step.c: what an operation does to the copies, under its lock; ends with operation_settle or _hold ---- */
void step_begin(struct operation *operation);
void step_map(struct operation *operation);
const char *operation_fetched(struct engine *engine, const struct mirror_message *message, uint8_t *data);

/* ---- group_session.c ---- */
void session_begin(struct group *group, const struct authority_action *action);
void session_end(struct group *group); /* forgets the stream; the pool is told by group_check_quiesced */
void session_raise(struct group *group, const struct authority_action *action);
void session_send_tail(struct group *group);
void session_forget_tail(struct group *group);
void session_mark_everything(struct group *group);
uint64_t session_next(struct group *group, struct flight *flight);
void session_stored(struct group *group, struct flight *flight);
void session_fill(const struct group *group, struct mirror_message *message, uint16_t kind);
void session_commit_tick(struct group *group);
/* Every message of the stream, the tail and its commits: NULL, or why the connection must be closed. Takes `data`. */
const char *session_message(struct group *group, const struct mirror_message *message, uint8_t *data);
bool session_matches(const struct group *group, const struct mirror_message *message);
struct receipt *receipt_new(struct group *group, const struct mirror_message *message, uint8_t *data);
void receipt_free(struct receipt *receipt);
bool receipt_is_current(const struct receipt *receipt); /* its session lives */
void session_acknowledge(struct receipt *receipt);

/* ---- group_resync.c: source and target ---- */
void resync_init(struct group *group);
void resync_start(struct group *group, bool reconciling);
void resync_stop(struct group *group);
void resync_advance(struct group *group);
bool resync_is_idle(const struct group *group);
const char *resync_need(struct group *group, const struct mirror_message *message);

/* ---- group_forward.c ---- */
void forward_send(struct operation *operation);
void forward_lose(struct group *group, const char *reason);
const char *forward_received(struct group *group, const struct mirror_message *message, uint8_t *data);
const char *forward_answered(struct engine *engine, const struct mirror_message *message, uint8_t *data);
void forward_answer(struct operation *operation, enum lun_status status); /* of the other node's request */

/* ---- group_meta.c ---- */
int meta_swap(struct group *group, struct swap *swap); /* -EAGAIN: not the authority; -EBUSY */
void meta_run(struct group *group);
void meta_hold(struct group *group); /* the session is over */
void meta_lose(struct group *group); /* this node is not the authority: swaps are answered -EAGAIN */
void meta_expire(struct group *group, uint64_t now_ms); /* swaps that waited for 25 s are answered -EAGAIN */
void meta_send_whole(struct group *group);
const char *meta_received(struct group *group, const struct mirror_message *message, uint8_t *data);
void meta_adopt(struct group *group);
bool meta_is_idle(const struct group *group);
/* ---- group_state.c: a volume's own entries of the metadata ---- */
const char *group_state_get(struct lun *lun, const char *key);
void group_state_swap(struct lun *lun, const char *key, const char *expected, const char *value,
                      void (*done)(void *userdata, int result), void *userdata);
void group_state_tick(struct engine *engine);
void group_state_changed(struct group *group); /* tells the initiators */
void group_state_forget(struct group *group, const char *volume);
/* ---- group_admit.c ---- */
void admission_update(struct group *group);
int admission_check(struct lun *lun, const char *initiator, struct lun_admission *ret);
