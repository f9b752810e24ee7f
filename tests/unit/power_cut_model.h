/* What a pool owes after a power cut: every acknowledged write, UNMAP, group record, volume and dirty mark; of what was
 * under way the old or the new. The workload's notes build it, model_look compares an opened pool with it. */
#pragma once

#include "common/id.h"
#include "storaged/pool/pool.h"
#include "tests/unit/power_cut_disk.h"

#define MODEL_VOLUMES 4u
#define MODEL_GROUPS 2u
#define MODEL_BLOCKS_MAX 1800u
#define MODEL_OPS_MAX 32u
#define MODEL_ATOMIC_BLOCKS 16u /* writes of 64 KiB in one extent: all or nothing */

enum model_note {
    MODEL_WRITE, MODEL_WRITTEN,  /* index: volume; block, count, version, sequence; op in `slot` below */
    MODEL_MARK, MODEL_MARKED, MODEL_CLEAR,
    MODEL_BEGIN, MODEL_COMMIT, MODEL_END, /* index: group; sequence: of the session, or up to where */
    MODEL_SAVE, MODEL_SAVED,     /* index: group; version */
    MODEL_CREATE, MODEL_CREATED, MODEL_DELETE, MODEL_DELETED, /* index: volume; count: blocks */
    MODEL_GROW, MODEL_GROWN,
};
/* cut_note.sequence of a write: 0 is a dirty one; the highest bit: of a node without mirror, neither. */
#define MODEL_UNMIRRORED (1ull << 63)

/* An even multiple of 5 is zeros. */
struct model_block {
    uint32_t version, pending; /* acknowledged; under way (0: nothing) */
    uint64_t sequence, pending_sequence;
    uint32_t pending_first, pending_count; /* of the whole write */
    bool must_be_dirty;
    bool own_dirty; /* its last write was, or it was marked since: all that is left of it when a disk was lost before */
    bool unknown; /* sectors of both: after a cut inside a large write that nobody was told of */
};

enum model_presence { MODEL_ABSENT, MODEL_COMING, MODEL_PRESENT, MODEL_GOING };

struct model_volume {
    enum model_presence presence;
    uint32_t block_count, grown_count; /* the other one while it grows */
    struct model_block blocks[MODEL_BLOCKS_MAX];
};

struct model_group {
    uint64_t session;            /* number of the live or last one; 0: none */
    bool live;
    uint64_t commit, acked, submitted; /* sequences */
    uint32_t saved, saving;      /* versions: on disk; the last asked for */
};

/* What a look saw, for the model after a cut that is kept. */
struct model_seen {
    bool present[MODEL_VOLUMES];
    uint32_t block_count[MODEL_VOLUMES];
    uint32_t version[MODEL_VOLUMES][MODEL_BLOCKS_MAX]; /* UINT32_MAX: unknown; UINT32_MAX - 1: lost */
    uint32_t saved[MODEL_GROUPS];
};

struct model {
    struct model_volume volumes[MODEL_VOLUMES];
    struct model_group groups[MODEL_GROUPS];
    uint32_t version; /* the highest used */
    uint64_t session; /* the same */
};

struct id model_group_id(unsigned group);
struct id model_volume_id(unsigned volume);
struct id model_session_id(uint64_t number);
static inline unsigned model_group_of(unsigned volume) { return volume % MODEL_GROUPS; }
void model_fill(uint8_t *data, unsigned volume, uint64_t block, uint32_t version);
void model_note(struct model *model, const struct cut_note *note);
/* Compares; prints the first differences and returns -1. */
/* `lossy`: blocks may be lost (-EBADMSG), then they are of no known version. */
int model_look(const struct model *model, struct ring *ring, struct pool *pool, struct model_seen *seen, bool lossy);
/* The power was cut, `seen` is what remained. */
void model_adopt(struct model *model, const struct model_seen *seen);
