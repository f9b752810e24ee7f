/* The datagrams between the nodes and with the witness: every message in one schema, both directions.
 *
 * Datagram (≤ 1200 bytes):
 *   0  u32  magic "HCIq"            clear, authenticated (common/seal.h)
 *   4  u8   version, 1
 *   5  u8   direction (enum wire_direction)
 *   6  u16  0
 *   8  16   cluster id
 *  24  16   node id: the sender; in W → node the addressee
 *  40  …    sealed: nonce 24, ciphertext, tag 16. The plain text starts with u8 kind and is little-endian, exact in
 *           length: a byte left over is an error.
 *
 * Protocol "Datagrams": one key per direction and node; a reply counts only if it echoes a 128-bit id outstanding in this
 * boot of the asker; requests are accepted only under a boot id that has passed a challenge (struct wire_guard). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/id.h"
#include "common/seal.h"

#define WIRE_VERSION 1u
#define WIRE_HEADER_SIZE 40u
#define WIRE_PLAIN_MAX (SEAL_DATAGRAM_MAX - WIRE_HEADER_SIZE - SEAL_OVERHEAD)
#define WIRE_CLAIMS_MAX 60u  /* primary claims in one lease request: 16 bytes each */
#define WIRE_GONE_MAX 8u     /* "guest gone" notices in one heartbeat */
#define WIRE_NAME_MAX 63u    /* bytes of a guest's name */
#define WIRE_RECORDS_MAX 40u /* records in one reply */
#define WIRE_FROM_MAX 2u     /* alternatives in a CAS */
#define WIRE_LANES 4u        /* links, or kinds of request to W: each has its own order */
#define WIRE_T_KILL_NONE UINT32_MAX /* R11: no watchdog that would end this node */

enum wire_direction { WIRE_NODE_TO_NODE = 1, WIRE_NODE_TO_WITNESS = 2, WIRE_WITNESS_TO_NODE = 3 };

/* Numbers are never reused. */
enum wire_kind {
    WIRE_HEARTBEAT = 1,     /* node → node, each heartbeat_ms on every link */
    WIRE_HEARTBEAT_ACK = 2,
    WIRE_LEASE = 3,         /* node → W, every L/4 */
    WIRE_LEASE_ACK = 4,
    WIRE_CAS = 5,
    WIRE_VERDICT = 6,
    WIRE_RECORDS = 7,
    WIRE_RECORDS_REPLY = 8,
};

enum wire_verdict {
    WIRE_OK = 1, WIRE_STALE = 2, WIRE_ADOPT = 3, WIRE_BEHIND = 4, WIRE_WAIT = 5, WIRE_REFUSED = 6,
    WIRE_REBOUND = 7, /* not judged: the CAS was bound to another boot of W; repeat with the boot in this reply */
};
/* Why W refused; 0 with every other verdict. */
enum wire_reason {
    WIRE_REASON_NONE = 0, WIRE_REASON_RESTORED = 1, WIRE_REASON_QUOTA = 2, WIRE_REASON_EPOCH = 3, WIRE_REASON_GROWTH = 4,
    WIRE_REASON_MEMBERS = 5, WIRE_REASON_CONFLICT = 6,
};

struct wire_record {
    struct id group;
    uint64_t epoch;
    uint8_t members;
};
struct wire_position { /* one side of a CAS */
    uint64_t epoch;
    uint8_t members;
};
struct wire_gone { /* R11 (ii): X signs that a guest is gone */
    struct id group;
    uint64_t incarnation;
    char guest[WIRE_NAME_MAX + 1];
};

/* In front of every request. */
struct wire_request {
    struct id id;       /* to be echoed */
    struct id boot;     /* random per start of the asker */
    struct id answer;   /* the last challenge heard from the other side, or null */
    uint64_t sequence;  /* rises within a boot and lane */
};
/* In front of every reply. */
struct wire_reply {
    struct id echo;
    struct id boot;      /* of the answerer */
    struct id challenge; /* not null: the request did not count; answer this first */
};

struct wire_message {
    enum wire_kind kind;
    struct wire_request request; /* HEARTBEAT, LEASE, CAS, RECORDS */
    struct wire_reply reply;     /* the others */

    /* HEARTBEAT */
    uint8_t link;
    uint32_t t_kill_ms;
    uint8_t gone_count;
    struct wire_gone gone[WIRE_GONE_MAX];
    /* HEARTBEAT, LEASE */
    bool wants_lease;
    uint32_t lease_ms, promise_ms;
    /* HEARTBEAT_ACK, LEASE_ACK */
    bool acknowledged;
    /* LEASE, CAS, RECORDS: the highest commit counter of W this node ever saw. LEASE_ACK, VERDICT, RECORDS_REPLY: W's */
    uint64_t counter;
    /* LEASE */
    uint8_t claim_count;
    struct id claims[WIRE_CLAIMS_MAX];
    /* LEASE_ACK */
    struct id incarnation;
    bool restored; /* R5: W holds an old store and grants nothing until it is seeded */
    /* CAS */
    struct id witness_boot;
    struct id group; /* and VERDICT */
    uint8_t from_count;
    struct wire_position from[WIRE_FROM_MAX], to;
    bool was_primary;
    /* VERDICT */
    enum wire_verdict verdict;
    enum wire_reason reason;
    struct wire_position record;
    uint32_t wait_ms, loser_ms;
    /* RECORDS */
    uint64_t since;
    /* RECORDS_REPLY */
    uint64_t up_to; /* the records after `since` up to this counter are all here; < counter: ask again */
    uint8_t record_count;
    struct wire_record records[WIRE_RECORDS_MAX];
};

struct wire_header {
    enum wire_direction direction;
    struct id cluster, node;
};

/* Plain text. Encode: bytes written, or -EMSGSIZE when a list is longer than its limit or the text does not fit.
 * Decode: 0, or -EBADMSG with *ret undefined. */
ssize_t wire_encode(const struct wire_message *message, uint8_t *out, size_t out_size);
int wire_decode(const uint8_t *plain, size_t size, struct wire_message *ret);

/* Whole datagrams. `wire_peek` reads the clear header so that the receiver can find the key; -EBADMSG when it is none of
 * ours or of another version. `wire_open` also refuses a kind that does not travel in this direction. */
ssize_t wire_seal(const uint8_t key[static SEAL_KEY_SIZE], const struct wire_header *header,
                  const struct wire_message *message, uint8_t *out, size_t out_size);
int wire_peek(const uint8_t *datagram, size_t size, struct wire_header *ret);
int wire_open(const uint8_t key[static SEAL_KEY_SIZE], const uint8_t *datagram, size_t size, struct wire_message *ret);

/* A guest's name as it may travel: 1 to WIRE_NAME_MAX of A-Z a-z 0-9 . _ - */
bool wire_name_is_valid(const char *name);

const char *wire_verdict_name(enum wire_verdict verdict);
const char *wire_reason_sentence(enum wire_reason reason);

/* The receiver's side of "requests are accepted only under a boot id that has passed a challenge", one per asker. */
struct wire_guard {
    struct id boot;      /* accepted, null: none yet */
    struct id challenge; /* what the next boot id must answer; a new one after each acceptance, so that recorded
                            datagrams of an earlier boot never pass */
    uint64_t highest[WIRE_LANES];
};
enum wire_admission {
    WIRE_ADMITTED,   /* counts */
    WIRE_CHALLENGED, /* reply with the guard's challenge; nothing else */
    WIRE_REPEATED,   /* older than one already taken on this lane: ignore */
};
void wire_guard_init(struct wire_guard *guard, const struct id *challenge);
/* `fresh`: a new random id, used when the boot id changes. */
enum wire_admission wire_guard_admit(struct wire_guard *guard, const struct wire_request *request, unsigned lane,
                                     const struct id *fresh);
