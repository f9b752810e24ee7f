/* A rate with a burst, in eight bytes: when the next one would be due if all had kept the pace. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"

struct limit {
    uint64_t due_ns;
};

/* False: beyond one each `interval_ns` and the `burst` that may run ahead of that. */
static inline bool limit_take_each(struct limit *limit, uint64_t interval_ns, uint32_t burst, uint64_t now_ns)
{
    uint64_t due_ns = limit->due_ns > now_ns ? limit->due_ns : now_ns;
    if (due_ns - now_ns > (burst - 1) * interval_ns)
        return false;
    limit->due_ns = due_ns + interval_ns;
    return true;
}

static inline bool limit_take(struct limit *limit, uint32_t rate_per_s, uint32_t burst, uint64_t now_ns)
{
    return limit_take_each(limit, NSEC_PER_SEC / rate_per_s, burst, now_ns);
}
