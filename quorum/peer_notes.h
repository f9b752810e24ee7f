/* What this node has to remember of its peer: its T_kill, durably, and which of its guests it signed gone. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "quorum/wire.h"

#define PEER_GONE_MAX 64u

struct peer_notes {
    char path[160];
    uint32_t t_kill_ms; /* WIRE_T_KILL_NONE: none, or never heard */
    struct wire_gone gone[PEER_GONE_MAX];
    unsigned gone_count;
};

/* Reads what an earlier start kept in `folder`. */
void peer_notes_load(struct peer_notes *notes, const char *folder);
/* R11: "X's heartbeats state it, Y keeps it durably". Writes only on a change. */
void peer_notes_take_t_kill(struct peer_notes *notes, uint32_t t_kill_ms);
/* True when it is news. The latest incarnation of a guest counts. */
bool peer_notes_take_gone(struct peer_notes *notes, const struct wire_gone *gone);
