/* This node's guests as quorumd sees them: who is frozen, who may thaw, what feeds the watchdog. */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"
#include "quorum/freeze_core.h"

struct daemon;

struct guests {
    struct daemon *daemon;
    struct freeze freeze;
    char path[160]; /* the list survives a restart of quorumd, not of the host */
};

/* Reads the list that an earlier start of this boot kept: guests run on while quorumd restarts. */
void guests_start(struct guests *guests, struct daemon *daemon);
/* Runs one event through the freeze core and carries out what follows; `event->now_ns` and
 * `event->peer_valid` are set here. The reply is what the core answered to THAW. */
struct freeze_actions guests_step(struct guests *guests, struct freeze_event *event);
/* `guests.set`: vmhad's full list. Refuses what is not a cgroup below the configured root. */
int guests_set(struct guests *guests, json_t *list, struct err *err);
/* {"frozen":[name,…]}; a new reference. */
json_t *guests_event(const struct guests *guests);
