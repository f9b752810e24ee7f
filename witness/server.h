/* The witness on its datagram socket: opens, admits, judges, makes durable, answers. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "witness/counters.h"
#include "witness/served.h"
#include "witness/store.h"

/* Limits on what comes from outside. A node sends 2 to 5 datagrams a second, and one per group when the other is lost. */
#define SERVER_NODE_RATE 100u       /* authentic datagrams of a node, each second … */
#define SERVER_NODE_BURST 512u      /* … and at once */
#define SERVER_STRANGER_RATE 20u    /* for one cluster, from addresses that are not its nodes' */
#define SERVER_STRANGER_BURST 128u
#define SERVER_STRANGERS_RATE 50000u /* for all clusters: what opening them costs stays below a tenth of a core */

struct server;

/* Binds UDP on address:port, loads every cluster of the store. `store` and `counters` are borrowed and outlive it. */
int server_new(sd_event *event, struct store *store, struct counters *counters, const char *address, uint16_t port,
               struct server **ret, struct err *err);
void server_free(struct server *server);

/* Makes a new cluster and the token's use durable in one commit and starts serving it. `cluster` is copied; when the same
 * token asks again for the same cluster before a node of it was heard, it is filled with what was answered before. */
int server_enrol(struct server *server, struct store_cluster *cluster, const uint8_t token_hash[static 16],
                 struct err *err);
/* Fresh keys for one node: `cluster` names it by its id and carries the node as nodes[0], with the keys. Both its old and
 * its new ones are good until the new ones have been used once. */
int server_rekey(struct server *server, struct store_cluster *cluster, const uint8_t token_hash[static 16], struct err *err);
/* Forgets a cluster, named by its name or id: it may be enrolled anew. */
int server_forget(struct server *server, const char *name, struct err *err);
/* For the sweep of alerts: borrowed. */
const struct served_table *server_table(const struct server *server);
/* The disk takes no changes: leases go on, records stand still. */
bool server_is_full(const struct server *server);
/* For `status`: clusters, when each node was last heard, groups held. */
json_t *server_status(const struct server *server);
