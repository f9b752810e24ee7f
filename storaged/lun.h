/* What lies between the iSCSI target and a group of volumes: a logical unit and the requests to it.
 * The target builds requests, the group serves, forwards or holds them. All on the data thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/id.h"
#include "common/list.h"

#define LUN_SECTOR_SIZE 512u      /* logical block, SBC-4 */
#define LUN_BLOCK_SIZE 4096u      /* physical block, checksum and mirror unit */
#define LUN_REQUEST_MAX (1u << 20) /* bytes of one request; VPD B0 tells initiators */

enum lun_opcode {
    LUN_READ,
    LUN_WRITE, /* durable on every member when done: FUA and SYNCHRONIZE CACHE have nothing left to do */
    LUN_UNMAP, /* reads zeros afterwards */
    LUN_FLUSH, /* done when every write that was done before it is durable: at once */
    /* One step with nothing between, at most LUN_COMPARE_MAX sectors (SBC-4 §5.3). `data`: first what must be there, then
     * what replaces it, `sectors` each. LUN_MISCOMPARE: nothing was written. */
    LUN_COMPARE_WRITE,
    LUN_OR_WRITE, /* data |= what is there, in one step (SBC-4 §5.15, set operation) */
    LUN_MAP,      /* is `sector` backed by space, and how many of `sectors` are like it? → mapped, run_sectors. No data */
    LUN_BARRIER,  /* done when every request that came before it, whoever's, at whichever node, is. No sectors, no data */
};

#define LUN_COMPARE_MAX 128u
/* What a request brings along in `data`, in bytes. */
static inline uint32_t lun_bytes_out(enum lun_opcode opcode, uint32_t sectors)
{
    switch (opcode) {
    case LUN_WRITE:
    case LUN_OR_WRITE: return sectors * LUN_SECTOR_SIZE;
    case LUN_COMPARE_WRITE: return 2 * sectors * LUN_SECTOR_SIZE;
    default: return 0;
    }
}
#define LUN_ATOMIC_MAX 32u /* sectors: a LUN_WRITE of so many that does not cross a multiple of it is on a copy wholly or not at all */

enum lun_status {
    LUN_OK,
    LUN_MEDIUM_ERROR, /* bad_sector names the place; SBC 03/11/00 on read, 03/0C/00 on write */
    LUN_NO_SPACE,     /* 07/27/07 */
    LUN_MISCOMPARE,   /* miscompare_offset: the first byte of `data` that differs; 0E/1D/00 */
    LUN_DROPPED,      /* no answer may be given: the connection is to be closed (iscsi.md: never NOT READY or ABORTED) */
};

/* Owned by the target until submitted, then by the group until `done`, which is always called exactly once, never
 * from within lun_submit. */
struct lun_request {
    void (*done)(struct lun_request *request);
    enum lun_opcode opcode;
    uint64_t sector;     /* first, in LUN_SECTOR_SIZE units; inside the volume: the target checked */
    uint32_t sectors;    /* READ and WRITE: at most LUN_REQUEST_MAX bytes */
    uint8_t *data;       /* READ, WRITE, …: sectors * 512 bytes (twice for COMPARE_WRITE) from iobuf_get, aligned to 4096; the target's */
    enum lun_status status;
    uint64_t bad_sector;
    uint32_t miscompare_offset;
    bool mapped;         /* MAP */
    uint64_t run_sectors;
    struct lun_nexus *nexus; /* whose command this is; lun_nexus_drop gives back what is still held */
    struct list link;    /* for its current owner */
    void *owner_data;    /* for the group's own use while it owns the request */
};

/* What initiators are to be told of (unit attentions). */
enum lun_change {
    LUN_CAPACITY_CHANGED, /* lun->sectors: 2A/09 */
    LUN_ROLE_CHANGED,     /* is_optimized: 2A/06 */
    LUN_STATE_CHANGED,    /* a text of lun->state, by whomever */
};

/* What a login needs. Secrets are wiped by the target. */
struct lun_admission {
    bool chap; /* the initiator proves that it knows `secret` */
    char user[64], secret[64];
    bool mutual; /* so does the target, when the initiator asks: of mutual_secret (RFC 7143 §12.1.3) */
    char mutual_user[64], mutual_secret[64];
    const char *reason; /* of a refusal, for the log */
};

/* One initiator's login at one target. Embedded in the target's session. */
struct lun_nexus {
    char initiator[224]; /* RFC 7143 §4.2.7: at most 223 bytes */
    char address[64];    /* where it connects from, "127.0.0.1:40112", for people; "": not known */
    struct lun *lun;
    bool dropped; /* lun_nexus_drop was called: nothing is submitted any more */
    /* Called when the group wants the initiator's connections closed (its admission ended, a held command ran into
     * 25 s, the forwarding link broke). Returns at once; lun_nexus_drop follows, never from within this call. */
    void (*close)(struct lun_nexus *nexus, const char *reason);
    void (*changed)(struct lun_nexus *nexus, enum lun_change change); /* may be NULL; must not submit */
    struct list link; /* in the lun's list, kept by lun.c */
};

/* One volume as initiators see it. Owned by the group side; stays while a nexus is open. */
struct lun {
    struct id volume;
    char name[64];           /* target IQN is "iqn.2026-01.io.hci:" + name */
    uint64_t sectors;
    struct list nexuses;
    bool closing;            /* no new nexus */
    struct scsi_sanitize *sanitize; /* SANITIZE is at work; scsi_sanitize.c */
    bool sanitize_failed, sanitize_may_exit;
    void *unit;              /* the command set's own; freed by unit_free once not exported and without a nexus */
    void (*unit_free)(void *unit);
    void (*submit)(struct lun *lun, struct lun_request *request);
    /* The nexus is lost: gives back (LUN_DROPPED) what is still held of it and lets finish what is under way. May call
     * `done` from within. NULL when nothing is ever held. */
    void (*drop)(struct lun *lun, struct lun_nexus *nexus);
    /* May this initiator log in now? 0, or -EACCES with ret->reason, or -EAGAIN: another initiator's nexus is not
     * drained yet, ask again in a moment (the target does so while the login may last). */
    int (*admit)(struct lun *lun, const char *initiator, struct lun_admission *ret);
    /* Small texts that belong to the volume, durable on every member and the same wherever it is exported (persistent
     * reservations, saved mode pages). NULL: there is none. Borrowed until the next turn of the ring. */
    const char *(*state)(struct lun *lun, const char *key);
    /* All or nothing: replaces `expected` (NULL: there was none) by `value` (NULL: none). done: 0, -ESTALE (it was not
     * the expected one), -EIO; once, never from within this call. At most LUN_STATE_MAX bytes. */
    void (*state_swap)(struct lun *lun, const char *key, const char *expected, const char *value,
                       void (*done)(void *userdata, int result), void *userdata);
    /* Active/optimized here (primary or sole)? For ALUA; true when not known better. */
    bool (*is_optimized)(struct lun *lun);
};

/* The data thread's table of logical units by name; the target looks them up, the groups add and remove them. */
#define LUN_STATE_MAX 16384u
#define LUN_TABLE_MAX 512u
#define LUN_IQN_PREFIX "iqn.2026-01.io.hci:"
struct lun_table;
struct lun_table *lun_table_new(void);
void lun_table_free(struct lun_table *table);
int lun_table_add(struct lun_table *table, struct lun *lun); /* -EEXIST, -ENOSPC */
void lun_table_remove(struct lun_table *table, struct lun *lun); /* the lun may be freed when `nexuses` is empty */
struct lun *lun_table_find(struct lun_table *table, const char *name);
struct lun *lun_table_at(struct lun_table *table, unsigned index); /* NULL past the end: for discovery */

/* A session's life: open, submit…, drop once the connection is lost, close once every request came back. The nexus is
 * in lun->nexuses until closed, so an empty list means that the lun is drained. */
void lun_nexus_open(struct lun_nexus *nexus, struct lun *lun);
void lun_nexus_drop(struct lun_nexus *nexus);
void lun_nexus_close(struct lun_nexus *nexus);
/* Asks the target to close every nexus of the lun but those of `except` (an initiator name, may be NULL). */
void lun_expel(struct lun *lun, const char *except, const char *reason);
/* Calls `changed` of every nexus. */
void lun_tell(struct lun *lun, enum lun_change change);
static inline void lun_submit(struct lun *lun, struct lun_request *request) { lun->submit(lun, request); }
