/* The witness on its datagram socket: opens, admits, judges, makes durable, answers. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "witness/store.h"

struct server;

/* Binds UDP on address:port, loads every cluster of the store (borrowed, outlives the server). */
int server_new(sd_event *event, struct store *store, const char *address, uint16_t port, struct server **ret,
               struct err *err);
void server_free(struct server *server);

/* Makes a new cluster and the token's use durable in one commit and starts serving it. `cluster` is copied. */
int server_enrol(struct server *server, const struct store_cluster *cluster, const uint8_t token_hash[static 16],
                 struct err *err);
/* For `status`: clusters, when each node was last heard, groups held. */
json_t *server_status(const struct server *server);
