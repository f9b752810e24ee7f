/* The witness's durable memory: clusters, their nodes and keys, their groups' records, enrolment tokens. SQLite behind
 * one door, the only file that includes sqlite3.h; WAL with synchronous=FULL, so that a commit is on stable storage.
 *
 * Writes are made inside a transaction: store_begin, any number of changes, store_commit; an answer leaves only after
 * the commit (protocol: "durable, fsync before the reply"). A failed write leaves the transaction failed as a whole. */
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

struct store;

struct store_node {
    struct id id;
    char name[STORE_NAME_SIZE];
    uint8_t to_witness[SEAL_KEY_SIZE], from_witness[SEAL_KEY_SIZE];
};
struct store_cluster {
    struct id id;
    char name[STORE_NAME_SIZE];
    struct id incarnation;      /* of this cluster's records here; a new one when they turn out to be old (R5) */
    struct store_node nodes[2]; /* in the order of their ids */
    struct record_cluster records;
};

/* Opens or makes `folder`/witness.db (0600). Refuses a store of another schema version. */
int store_open(const char *folder, struct store **ret, struct err *err);
void store_close(struct store *store);
/* This witness, made at random with its store. */
struct id store_witness_id(const struct store *store);

/* Calls `found` for each cluster; `cluster` is on the heap and becomes the callee's (wipe the keys, then free). Records
 * start their guard at `now_ns`. */
int store_load(struct store *store, uint64_t now_ns, void (*found)(struct store_cluster *cluster, void *userdata),
               void *userdata, struct err *err);

int store_begin(struct store *store, struct err *err);
int store_commit(struct store *store, struct err *err);
void store_rollback(struct store *store);

/* -EEXIST when the cluster is known, -ENOSPC beyond STORE_CLUSTERS_MAX. */
int store_add_cluster(struct store *store, const struct store_cluster *cluster, struct err *err);
/* A group's record and its cluster's commit counter; `evicted` may be NULL. */
int store_put_group(struct store *store, const struct id *cluster, const struct record_group *group, uint64_t counter,
                    const struct id *evicted, struct err *err);
int store_put_promise(struct store *store, const struct id *cluster, unsigned node, uint32_t promise_ms, struct err *err);
int store_put_restored(struct store *store, const struct id *cluster, const struct id *incarnation, struct err *err);

/* Tokens are kept as a hash of their secret. `now` and `expires`: seconds since 1970 (a token outlives a restart).
 * store_take_token: 0 when it was there and not expired, and is now used up; else -ENOENT. */
int store_add_token(struct store *store, const uint8_t hash[static 16], int64_t now, int64_t expires, struct err *err);
int store_take_token(struct store *store, const uint8_t hash[static 16], int64_t now, struct err *err);
