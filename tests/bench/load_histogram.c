/* Latencies of iscsi_load: a log-linear histogram, so that a million answers cost no memory and no sorting. */
#include "tests/bench/load.h"

static unsigned index_of(uint64_t ns)
{
    if (ns < LOAD_STEPS)
        return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns); /* at least 7 */
    return (power - 6) * LOAD_STEPS + (unsigned)(ns >> (power - 7)) % LOAD_STEPS;
}

/* The middle of the step. */
static uint64_t value_of(unsigned index)
{
    if (index < LOAD_STEPS)
        return index;
    unsigned shift = index / LOAD_STEPS - 1;
    return ((uint64_t)(LOAD_STEPS + index % LOAD_STEPS) << shift) + (1ull << shift) / 2;
}

void load_histogram_add(struct load_histogram *histogram, uint64_t ns)
{
    histogram->counts[index_of(ns)]++;
    histogram->count++;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
}

uint64_t load_histogram_at(const struct load_histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram->count), seen = 0;
    if (histogram->count == 0)
        return 0;
    for (unsigned i = 0; i < sizeof histogram->counts / sizeof histogram->counts[0]; i++) {
        seen += histogram->counts[i];
        if (seen > wanted)
            return value_of(i) < histogram->max_ns ? value_of(i) : histogram->max_ns;
    }
    return histogram->max_ns;
}
