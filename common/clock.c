/* Reads CLOCK_BOOTTIME, which counts suspended time too: a lease must not outlive a suspended host. */
#include "common/clock.h"

#include <time.h>

#include "common/check.h"

uint64_t clock_boottime_ns(void)
{
    struct timespec now;
    check(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
    return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

uint64_t clock_boottime_ms(void)
{
    return clock_boottime_ns() / NSEC_PER_MSEC;
}
