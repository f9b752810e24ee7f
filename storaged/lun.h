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
};

enum lun_status {
    LUN_OK,
    LUN_MEDIUM_ERROR, /* bad_sector names the place; SBC 03/11/00 on read, 03/0C/00 on write */
    LUN_NO_SPACE,     /* 07/27/07 */
    LUN_DROPPED,      /* no answer may be given: the connection is to be closed (iscsi.md: never NOT READY or ABORTED) */
};

/* Owned by the target until submitted, then by the group until `done`, which is always called exactly once, never
 * from within lun_submit. */
struct lun_request {
    void (*done)(struct lun_request *request);
    enum lun_opcode opcode;
    uint64_t sector;     /* first, in LUN_SECTOR_SIZE units; inside the volume: the target checked */
    uint32_t sectors;    /* READ and WRITE: at most LUN_REQUEST_MAX bytes */
    uint8_t *data;       /* READ, WRITE: sectors * 512 bytes from iobuf_get, aligned to 4096; the target's */
    enum lun_status status;
    uint64_t bad_sector;
    struct lun_nexus *nexus; /* whose command this is; lun_nexus_drop gives back what is still held */
    struct list link;    /* for its current owner */
    void *owner_data;    /* for the group's own use while it owns the request */
};

/* One initiator's login at one target. Embedded in the target's session. */
struct lun_nexus {
    char initiator[224]; /* RFC 7143 §4.2.7: at most 223 bytes */
    struct lun *lun;
    bool dropped; /* lun_nexus_drop was called: nothing is submitted any more */
    /* Called when the group wants the initiator's connections closed (its admission ended, a held command ran into
     * 25 s, the forwarding link broke). Returns at once; lun_nexus_drop follows, never from within this call. */
    void (*close)(struct lun_nexus *nexus, const char *reason);
    struct list link; /* in the lun's list, kept by lun.c */
};

/* One volume as initiators see it. Owned by the group side; stays while a nexus is open. */
struct lun {
    struct id volume;
    char name[64];           /* target IQN is "iqn.2026-01.io.hci:" + name */
    uint64_t sectors;
    struct list nexuses;
    bool closing;            /* no new nexus */
    void (*submit)(struct lun *lun, struct lun_request *request);
    /* The nexus is lost: gives back (LUN_DROPPED) what is still held of it and lets finish what is under way. May call
     * `done` from within. NULL when nothing is ever held. */
    void (*drop)(struct lun *lun, struct lun_nexus *nexus);
    /* May this initiator log in now? When CHAP is required, ret_user/ret_secret are filled (secret: wiped by the
     * caller) and *ret_chap is true. 0, or -EACCES with a reason in ret_reason for the log, or -EAGAIN: another
     * initiator's nexus is not drained yet, ask again in a moment (the target does so while the login may last). */
    int (*admit)(struct lun *lun, const char *initiator, bool *ret_chap, char ret_user[static 64],
                 char ret_secret[static 64], const char **ret_reason);
    /* Active/optimized here (primary or sole)? For ALUA; true when not known better. */
    bool (*is_optimized)(struct lun *lun);
};

/* The data thread's table of logical units by name; the target looks them up, the groups add and remove them. */
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
static inline void lun_submit(struct lun *lun, struct lun_request *request) { lun->submit(lun, request); }
