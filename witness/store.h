/* The witness's durable memory: clusters, their nodes and keys, their groups' records, enrolment tokens. SQLite behind
 * one door (store_*.c, which alone include sqlite3.h); WAL with synchronous=FULL, so that a commit is on stable storage.
 *
 * Writes are made inside a transaction: store_begin, any number of changes, store_commit; an answer leaves only after
 * the commit (protocol: "durable, fsync before the reply"). A failed write leaves the transaction failed as a whole: roll
 * it back. -ENOSPC: the disk is full, and the store is as it was before the transaction; after any other error only a
 * fresh start from the disk can tell what is on it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/id.h"
#include "common/seal.h"
#include "witness/record_core.h"

#define STORE_NAME_SIZE 64u
#define STORE_CLUSTERS_MAX 10000u
#define STORE_TOKENS_MAX 256u

#define STORE_FILE "witness.db"

struct store;

struct store_node {
    struct id id;
    char name[STORE_NAME_SIZE];
    uint8_t to_witness[SEAL_KEY_SIZE], from_witness[SEAL_KEY_SIZE];
    bool has_next; /* it was given new keys, and has not used them yet */
    uint8_t next_to_witness[SEAL_KEY_SIZE], next_from_witness[SEAL_KEY_SIZE];
};
struct store_cluster {
    struct id id;
    char name[STORE_NAME_SIZE];
    struct id incarnation;      /* of this cluster's records here; a new one when they turn out to be old (R5) */
    struct store_node nodes[2]; /* in the order of their ids */
    bool unconfirmed;           /* enrolled, no node heard yet: its token may be answered once more */
    struct record_cluster records;
};

/* Room for one more group, up to RECORD_GROUPS_MAX: groups are made by an operator's hand, so that this allocation is no
 * part of the pace of leases. 0, or -ENOMEM. */
int store_cluster_make_room(struct store_cluster *cluster);
/* A cluster on the heap; its keys are wiped. */
void store_cluster_free(struct store_cluster *cluster);

/* Opens or makes `folder`/witness.db (0600), brings an older schema up to date, refuses a newer one. Each page and each
 * row's checksum is verified: "damaged" when one is wrong. */
int store_open(const char *folder, struct store **ret, struct err *err);
int store_open_file(const char *path, struct store **ret, struct err *err);
void store_close(struct store *store);
/* This witness, made at random with its store. */
struct id store_witness_id(const struct store *store);
uint64_t store_size_bytes(struct store *store);

/* Calls `found` for each cluster; `cluster` is on the heap and becomes the callee's (store_cluster_free). Records
 * start their guard at `now_ns`. */
int store_load(struct store *store, uint64_t now_ns, void (*found)(struct store_cluster *cluster, void *userdata),
               void *userdata, struct err *err);

int store_begin(struct store *store, struct err *err);
int store_commit(struct store *store, struct err *err);
void store_rollback(struct store *store);
/* Does the disk take changes again? A durable write that changes nothing. */
int store_probe(struct store *store, struct err *err);

/* -EEXIST when the cluster is known, -ENOSPC beyond STORE_CLUSTERS_MAX. */
int store_add_cluster(struct store *store, const struct store_cluster *cluster, struct err *err);
int store_delete_cluster(struct store *store, const struct id *cluster, struct err *err);
/* New keys beside the old ones; and in their place. */
int store_put_next_keys(struct store *store, const struct id *cluster, unsigned node, const uint8_t to[static SEAL_KEY_SIZE],
                        const uint8_t from[static SEAL_KEY_SIZE], struct err *err);
int store_promote_keys(struct store *store, const struct id *cluster, unsigned node, struct err *err);
/* A node was heard: the token that enrolled its cluster is worth nothing any more. */
int store_confirm(struct store *store, const struct id *cluster, struct err *err);
/* A group's record and its cluster's commit counter; `evicted` may be NULL. */
int store_put_group(struct store *store, const struct id *cluster, const struct record_group *group, uint64_t counter,
                    const struct id *evicted, struct err *err);
int store_put_promise(struct store *store, const struct id *cluster, unsigned node, uint32_t promise_ms, struct err *err);
int store_put_restored(struct store *store, const struct id *cluster, const struct id *incarnation, struct err *err);

/* Tokens are kept as a hash of their secret. `now` and `expires`: seconds since 1970 (a token outlives a restart).
 * store_take_token: 0 when it was there and not expired, and is now used up; else -ENOENT. */
int store_add_token(struct store *store, const uint8_t hash[static 16], int64_t now, int64_t expires, struct err *err);
int store_take_token(struct store *store, const uint8_t hash[static 16], int64_t now, int64_t *ret_expires,
                     struct err *err);
/* An answer may get lost on its way: until a node of the cluster has been heard, the same token may ask again. */
int store_bind_token(struct store *store, const struct id *cluster, const uint8_t hash[static 16], int64_t expires,
                     struct err *err);
bool store_token_admitted(struct store *store, const struct id *cluster, const uint8_t hash[static 16], int64_t now);

/* A copy into `path` (made, 0600) while the store goes on being used; a store put back from it grants nothing (R5).
 * Step: 1: call again, 0: the copy is complete, but not yet durable. After an error it has ended, too. */
int store_backup_begin(struct store *store, const char *path, struct err *err);
int store_backup_step(struct store *store, struct err *err);
void store_backup_end(struct store *store);
/* Copies a finished backup to the place where it stays, durably. */
int store_copy_out(const char *from, const char *to, struct err *err);
/* Puts the backup `from` into a folder that has no store, verified and marked as restored. No daemon may run there. */
int store_restore(const char *from, const char *folder, struct err *err);
