/* Every message of the mirror link: what it carries, its bounds, and both directions of its encoding.
 *
 * A frame is head ‖ body ‖ data, all integers little-endian:
 *   0  u32  magic "HCM1"
 *   4  u16  kind (enum mirror_kind; numbers are never reused)
 *   6  u16  body size
 *   8  u32  data size
 *  12  u32  CRC32C of the data (0 when there is none)
 *  16  u32  CRC32C of the body
 *  20  u32  CRC32C of bytes 0..19
 * Valid when (1) magic and head checksum match, (2) the kind is known, (3) the body has exactly the kind's size and
 * its checksum matches, (4) every field is within its bounds, (5) the data has the size that the fields say and its
 * checksum matches. Anything else ends the connection: nothing after it can be trusted to be a frame. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/id.h"
#include "quorum/authority_core.h"
#include "storaged/lun.h"

#define MIRROR_VERSION 2u
#define MIRROR_HEAD_SIZE 24u
#define MIRROR_BODY_MAX 320u
#define MIRROR_FRAME_MAX (MIRROR_HEAD_SIZE + MIRROR_BODY_MAX) /* without data */
#define MIRROR_DATA_MAX (LUN_REQUEST_MAX + LUN_BLOCK_SIZE)
#define MIRROR_RUN_BLOCKS 64u      /* compared at once */
#define MIRROR_HASH_SIZE 16u
#define MIRROR_TAIL_ENTRIES 512u   /* per message */
#define MIRROR_TAIL_ENTRY_SIZE 28u /* volume id, u64 block, u32 count */
#define MIRROR_GROUPS_MAX 64u
#define MIRROR_MAP_MAX (48u * 1024)
#define MIRROR_TEXT_MAX 1024u

enum mirror_kind {
    MIRROR_HELLO = 1,  /* first in both directions: version, cluster, node, boot */
    MIRROR_PING = 2,
    MIRROR_GROUPS = 3, /* second: the ids of all groups that this node holds */
    MIRROR_AUTHORITY = 4, /* of one authority core to the other */
    MIRROR_WRITE = 5,  /* P → S, in sequence (R2); also copies of a resync */
    MIRROR_ZERO = 6,   /* the same for blocks that read zeros afterwards */
    MIRROR_META = 7,   /* the same for the group's metadata, as a whole */
    MIRROR_ACK = 8,    /* S → P: this sequence is durable here */
    MIRROR_COMMIT = 9, /* P → S: all up to `commit` is durable on both */
    MIRROR_COMPARE = 10, /* source → target: hashes of a run */
    MIRROR_NEED = 11,  /* target → source: which of them differ */
    MIRROR_TAIL = 12,  /* runs that may differ; `last` ends the list (R7.2) */
    MIRROR_FORWARD = 13, /* an initiator's request, to the authority */
    MIRROR_ANSWER = 14,
    MIRROR_SWAP = 15,  /* meta.swap, to the authority */
    MIRROR_CREATE = 16,
    MIRROR_REMOVE = 17,
    MIRROR_DONE = 18,  /* the answer to SWAP, CREATE, REMOVE, GROW */
    MIRROR_FETCH = 19, /* P → S: my copy of these blocks is bad, send yours */
    MIRROR_FETCHED = 20,
    MIRROR_GROW = 21, /* a volume, in steps: count (engine_grow.c) */
};

/* Flat: a message uses the fields that its kind's schema names; the others are zero. */
struct mirror_message {
    uint16_t kind;
    uint32_t data_size;

    struct id group;
    uint64_t epoch;
    struct id session;
    uint64_t sequence;
    uint64_t commit;

    struct id volume;
    uint64_t block;
    uint32_t count;  /* blocks; entries of GROUPS and TAIL */
    uint64_t tag;    /* pairs a question with its answer */
    uint64_t bitmap; /* NEED: bit i is block + i */
    uint8_t last;    /* TAIL: 1 ends the list */
    uint8_t copy;    /* WRITE, ZERO: 1 is a resync's copy */

    uint8_t opcode; /* enum lun_opcode */
    uint8_t status; /* enum lun_status */
    uint64_t sector;
    uint32_t sectors;
    uint8_t tried;   /* FORWARD of LUN_COMPARE_WRITE: it may have been carried out here before */
    uint32_t offset; /* ANSWER: of a miscompare, in bytes */
    uint8_t mapped;  /* ANSWER to LUN_MAP */
    uint64_t run_sectors;

    int32_t result; /* 0 or a negative errno */
    uint64_t version;
    uint64_t size_bytes;
    uint8_t is_new; /* CREATE: the group, too */
    char name[64], group_name[64];

    uint32_t protocol;
    struct id cluster, node, boot;

    struct authority_message authority;
};

/* Head and body into `out`; `data` is `message->data_size` bytes that follow it on the wire. Returns the size written.
 * The message must obey the schema (a programmer's error otherwise). */
size_t mirror_wire_encode(const struct mirror_message *message, const void *data, uint8_t out[static MIRROR_FRAME_MAX]);

struct mirror_head {
    uint16_t kind, body_size;
    uint32_t data_size, data_crc, body_crc;
};
/* From exactly MIRROR_HEAD_SIZE bytes. 0 or -EBADMSG with a reason. */
int mirror_wire_decode_head(const uint8_t *bytes, struct mirror_head *ret, const char **ret_reason);
/* From exactly head->body_size bytes. */
int mirror_wire_decode_body(const struct mirror_head *head, const uint8_t *body, struct mirror_message *ret, const char **ret_reason);
int mirror_wire_check_data(const struct mirror_head *head, const void *data);
const char *mirror_wire_kind_name(uint16_t kind);
