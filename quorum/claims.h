/* What storaged says of its groups over the control socket, taken apart; no side effects. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/id.h"
#include "quorum/freeze_core.h"
#include "quorum/wire.h"

struct claims {
    struct id primary[WIRE_CLAIMS_MAX], sole[FREEZE_GROUPS_MAX];
    unsigned primary_count, sole_count;
    bool serves_primary; /* also when what it serves did not fit */
    unsigned refused;    /* groups that did not fit in their list */
};

/* `storage.claim`. Groups beyond a list's limit are left out and counted: the others must not lose their claims for them,
 * least of all the sole ones, whose guests would be frozen. -EINVAL when a list is none or an entry is no id. */
int claims_take(json_t *params, struct claims *ret);
/* "group" of `peer.fence`; -EINVAL when it is missing, no id, or the null id. */
int claims_take_group(json_t *params, struct id *ret);
