/* One thing a person must know, as it is told everywhere: one sentence, and fields for programs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/id.h"

struct alert {
    char kind[16];     /* "site_dark", "node_lost", "degraded", "store_full", "many", "test" */
    bool raised;       /* else it has ended */
    char key[96];      /* the same for raising and ending, for whoever opens and closes tickets */
    char site[64];     /* "" when it concerns the witness itself */
    char site_id[ID_TEXT_SIZE];
    char node[64];     /* "" when it concerns no single one */
    char since[32];    /* UTC, "2026-11-21T03:00:12Z" */
    char at[32];
    char sentence[768];
};

/* The JSON document that the webhook posts and the hook reads; the caller frees it. NULL: out of memory. */
char *alert_to_json(const struct alert *alert);
