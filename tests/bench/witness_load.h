/* witness_load: plays the nodes of many clusters against one hci-witnessd, with real sealed datagrams. Its parts: the
 * store that knows them, the nodes, the phases. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "quorum/wire.h"
#include "tests/bench/load.h"

#define FLEET_GROUPS 4u
#define FLEET_LEASE_MS 2500u /* protocol "Timing profiles", default */
#define FLEET_PROMISE_MS 2800u
#define FLEET_BEAT_NS (FLEET_LEASE_MS * 1000000ull / 4)
#define FLEET_RETRY_NS 250000000ull
#define FLEET_SOCKETS 2u

struct fleet_change { /* a CAS that this node waits for */
    struct id id;
    uint64_t first_ns, due_ns; /* first sent, 0: never; to be sent (again) */
    bool open;
};
struct fleet_node {
    uint8_t to_witness[SEAL_KEY_SIZE], from_witness[SEAL_KEY_SIZE];
    struct wire_header header;
    struct id boot, challenge;
    uint64_t sequence;
    struct id beat_id;
    uint64_t beat_sent_ns; /* 0: answered */
    uint64_t beat_due_ns;
    bool joined, dead;
    struct fleet_change changes[FLEET_GROUPS];
    unsigned changes_open;
};
struct fleet {
    unsigned clusters;
    struct fleet_node *nodes; /* two per cluster */
    uint64_t *epochs;         /* FLEET_GROUPS per cluster */
    unsigned *indices; /* clusters by the hash of their id */
    unsigned next_beat, next_change;
    int sockets[FLEET_SOCKETS];
    struct sockaddr_in witness;
    struct id witness_boot;
    uint64_t beats, beats_lost, changes_open, joined;
    struct load_histogram beat_latency, change_latency;
    bool measuring;
};

/* Writes a store in `folder` that knows `clusters` clusters; their keys follow from their numbers. */
int fleet_make_store(const char *folder, unsigned clusters);
struct id fleet_cluster_id(unsigned cluster);
struct id fleet_node_id(unsigned cluster, unsigned node);
void fleet_key(unsigned cluster, unsigned node, bool to_witness, uint8_t ret[static SEAL_KEY_SIZE]);

/* Opens the sockets and spreads the heartbeats over one period from now. */
int fleet_open(struct fleet *fleet, unsigned clusters, const struct sockaddr_in *witness);
/* Sends what is due, up to a bound, and takes what has arrived. */
void fleet_turn(struct fleet *fleet);
/* Node 0 of the cluster proposes for every group: both members at first, itself alone when `alone`. */
void fleet_propose(struct fleet *fleet, unsigned cluster, bool alone);
