/* /metrics for Prometheus, on a thread of its own; the only file pair that knows libmicrohttpd. */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "witness/counters.h"

#define METRICS_CONNECTIONS_MAX 8u
#define METRICS_TIMEOUT_S 5u

struct metrics;

/* `counters` is borrowed. Whoever reaches the address reads the figures: keep it on loopback or an internal line. */
int metrics_new(const char *address, uint16_t port, const struct counters *counters, struct metrics **ret, struct err *err);
void metrics_free(struct metrics *metrics);
