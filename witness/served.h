/* The clusters that this witness serves, in memory: found by id at each datagram. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "quorum/wire.h"
#include "witness/alert_core.h"
#include "witness/limit.h"
#include "witness/store.h"

#define SERVED_SLOTS 32768u /* open addressing, a power of two well above STORE_CLUSTERS_MAX */

struct member { /* a node, this boot */
    struct wire_guard guard;
    uint64_t heard_ns;
    struct sockaddr_in from; /* of its last datagram that was admitted */
    struct limit quota;
};
struct served {
    struct store_cluster *cluster;
    struct member members[2];
    struct limit strangers;
    struct alert_site alerts;
    uint64_t start_ns;
    unsigned groups, single[2]; /* what alert_facts wants, counted at each change */
};
struct served_table {
    struct served *slots[SERVED_SLOTS];
    unsigned count;
};

struct served *served_find(const struct served_table *table, const struct id *cluster);
/* `cluster` becomes the table's. */
struct served *served_add(struct served_table *table, struct store_cluster *cluster, uint64_t now_ns);
void served_remove(struct served_table *table, struct served *served);
void served_clear(struct served_table *table);
/* After a change of a record. */
void served_count_groups(struct served *served);
