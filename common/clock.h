/* Time as the protocol counts it: CLOCK_BOOTTIME, whose values are never compared between hosts. */
#pragma once

#include <stdint.h>

#define MSEC_PER_SEC 1000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC 1000000000ull

/* Nanoseconds since this host booted, suspended time included. */
uint64_t clock_boottime_ns(void);
/* The same in milliseconds. */
uint64_t clock_boottime_ms(void);
