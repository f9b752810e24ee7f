/* state_folder/join.json (0600) on the first node: what the second node will be given, and whether it was. */
#pragma once

#include <stdbool.h>

#include "common/site.h"

/* Once handed out, the secrets must not change (the second node may have them); once the second node has confirmed,
 * they are dropped from this host and nobody can join any more. */
struct join_state {
    bool handed_out;
    bool joined;
    struct site_secrets secrets; /* the joiner's; zero when joined. Wipe after use. */
};

/* -ENOENT with a sentence when this host did not make the cluster. */
int join_state_load(const char *path, struct join_state *ret, struct err *err);
int join_state_save(const char *path, const struct join_state *state, struct err *err);
