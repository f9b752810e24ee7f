/* iscsi_load: loads an iSCSI target and prints what it measured; `iscsi_load --help`. */
#include <inttypes.h>

#include "tests/bench/load.h"

static void print_latency(const char *name, const struct load_histogram *histogram)
{
    static const struct {
        const char *name;
        double share;
    } points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99_9", 0.999}};
    if (histogram->count == 0)
        return;
    printf(", \"%s\": {\"count\": %" PRIu64, name, histogram->count);
    for (unsigned i = 0; i < sizeof points / sizeof points[0]; i++)
        printf(", \"%s_us\": %.1f", points[i].name, (double)load_histogram_at(histogram, points[i].share) / 1e3);
    printf(", \"max_us\": %.1f}", (double)histogram->max_ns / 1e3);
}

static void print_counts(const struct load_options *options, const struct load_result *result)
{
    double operations = (double)(result->reads + result->writes);
    double seconds = result->seconds > 0 ? result->seconds : 1e-9;
    printf("{\"pattern\": \"%s\", \"write_percent\": %u, \"depth\": %u, \"block\": %u, \"seconds\": %.3f",
           options->random ? "rand" : "seq", options->write_percent, options->depth, options->block_bytes, seconds);
    printf(", \"reads\": %" PRIu64 ", \"writes\": %" PRIu64 ", \"iops\": %.1f, \"mib_s\": %.2f", result->reads,
           result->writes, operations / seconds, operations * options->block_bytes / seconds / (1 << 20));
}

static void print(const struct load_options *options, const struct load_result *result)
{
    print_counts(options, result);
    print_latency("read", &result->read_latency);
    print_latency("write", &result->write_latency);
    printf(", \"answered\": %" PRIu64 ", \"stall_max_s\": %.3f, \"errors\": %" PRIu64 ", \"lost\": %s",
           result->answered, result->stall_max_s, result->errors, result->lost ? "true" : "false");
    if (options->verify)
        printf(", \"blocks_compared\": %" PRIu64 ", \"blocks_bad\": %" PRIu64 ", \"blocks_in_doubt\": %" PRIu64,
               result->blocks_compared, result->blocks_bad, result->in_doubt);
    printf(", \"client_cpu_s\": %.2f}\n", result->cpu_seconds);
}

int main(int argc, char **argv)
{
    static struct load_options options;
    static struct load_result result; /* two histograms: too much for a stack */
    load_options_parse(&options, argc, argv);
    int status = load_run(&options, &result);
    print(&options, &result);
    return status;
}
