/* What a drain knows: one extent on its way (pool_move.c), and the disk it leaves (pool_drain.c). */
#pragma once

#include "storaged/pool/pool_internal.h"

#define PINS_MAX 64u
#define DRAIN_LOOK_MS 2u /* how long what is under way is given at a time */
#define DRAIN_PAUSE_MS_MAX 1000u

enum move_state { MOVE_IDLE, MOVE_QUIET, MOVE_FRAMES, MOVE_READ, MOVE_READ_BLOCKS, MOVE_WRITE, MOVE_JOURNAL };

/* The extent that took another's place, and what the old one's disk must have behind it before it may be given back. */
struct pin {
    uint32_t extent;
    struct pool_disk *disk;
    uint64_t super_sequence, lsn;
};

struct pool_drain {
    struct pool *pool;
    enum move_state state;
    struct pool_op *op; /* parts: MOVE_FROM, MOVE_TO */
    uint32_t from, to, logical;
    struct pool_volume *volume;
    uint64_t birth;
    bool given_up;
    unsigned frames;  /* of both that are there */
    unsigned block;   /* read by blocks */
    uint64_t unreadable[4];
    uint8_t *data;    /* an extent */
    struct ring_io io;
    struct ring_timer timer;
    bool pausing;
    uint64_t began_ms, records; /* when the move began; what guests had written until then */
    uint32_t cursor; /* on the disk that is drained */
    struct pool_disk *leaving;
    struct pin pins[PINS_MAX];
    unsigned pin_count;
};

/* Nothing is done for so long. */
void pool_drain_pause(struct pool_drain *drain, uint64_t delay_ms);
/* The new extent is not given back before the old one's disk has forgotten that one. */
void pool_drain_pin(struct pool_drain *drain);

/* pool_move.c */
void pool_move_begin(struct pool_drain *drain, struct pool_volume *volume, uint32_t logical, uint32_t to);
void pool_move_look(struct pool_drain *drain); /* MOVE_QUIET: is everything in its place by now? */
