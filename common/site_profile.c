/* The timing profiles (protocol "Timing profiles"). */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/site.h"

/* R8: the promise G outlasts the lease L although the clocks' rates differ by up to ρ = 1 % each way. */
#define PROMISE_COVERS(lease, promise) ((promise) * 100 >= (lease) * 102)
static_assert(PROMISE_COVERS(1000, 1250) && PROMISE_COVERS(2500, 2800) && PROMISE_COVERS(12000, 13000), "R8");

static const struct site_profile profiles[] = {
    {.name = "fast", .lease_ms = 1000, .promise_ms = 1250, .heartbeat_ms = 100, .suspect_ms = 500, .watchdog_ms = 2000},
    {.name = "default", .lease_ms = 2500, .promise_ms = 2800, .heartbeat_ms = 100, .suspect_ms = 500,
     .watchdog_ms = 5000},
    /* For a witness behind a line of 3 s round trip and 20 % loss; between the nodes nothing is slower. */
    {.name = "slow", .lease_ms = 12000, .promise_ms = 13000, .heartbeat_ms = 100, .suspect_ms = 500,
     .watchdog_ms = 10000},
};

int site_profile_by_name(const char *name, struct site_profile *ret)
{
    for (unsigned index = 0; index < sizeof(profiles) / sizeof(profiles[0]); index++) {
        if (strcmp(profiles[index].name, name) == 0) {
            *ret = profiles[index];
            return 0;
        }
    }
    return -EINVAL;
}
