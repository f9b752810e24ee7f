/* How many clusters does one witness carry? witness_load --make FOLDER CLUSTERS writes a store that knows them;
 * witness_load ADDRESS PORT PID CLUSTERS SECONDS plays their nodes and prints the figures as JSON. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/bench/witness_load.h"

#define JOIN_LIMIT_S 60u
#define STORM_S 10u /* every cluster loses a node within */
#define STORM_LIMIT_S 60u
#define SUSPECT_NS 500000000ull

static double cpu_seconds(int pid)
{
    char path[64], text[1024];
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    const char *rest = strrchr(text, ')');
    if (rest == NULL || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2)
        return 0;
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* The most that it ever had. */
static double memory_mib(int pid)
{
    char path[64], line[256];
    unsigned long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmHWM: %lu", &kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return (double)kib / 1024;
}

static void run_for(struct fleet *fleet, double seconds)
{
    uint64_t until_ns = clock_boottime_ns() + (uint64_t)(seconds * 1e9);
    while (clock_boottime_ns() < until_ns)
        fleet_turn(fleet);
}

static bool run_until(struct fleet *fleet, const uint64_t *value, uint64_t wanted, unsigned limit_s, const char *what)
{
    uint64_t until_ns = clock_boottime_ns() + limit_s * NSEC_PER_SEC;
    while (*value != wanted && clock_boottime_ns() < until_ns)
        fleet_turn(fleet);
    if (*value != wanted)
        fprintf(stderr, "witness_load: %s: %llu instead of %llu after %u s\n", what, (unsigned long long)*value,
                (unsigned long long)wanted, limit_s);
    return *value == wanted;
}

static bool join(struct fleet *fleet)
{
    if (!run_until(fleet, &fleet->joined, 2 * fleet->clusters, JOIN_LIMIT_S, "nodes with a lease"))
        return false;
    for (unsigned i = 0; i < fleet->clusters; i++)
        fleet_propose(fleet, i, false);
    if (!run_until(fleet, &fleet->changes_open, 0, JOIN_LIMIT_S, "first records not made"))
        return false;
    run_for(fleet, 3); /* G: from here on the witness grants exclusions */
    return true;
}

/* One after the other dies; the survivor notices after the time of suspicion and asks for all its groups. */
static bool storm(struct fleet *fleet, double *ret_s)
{
    uint64_t start_ns = clock_boottime_ns();
    unsigned died = 0, asked = 0;
    memset(&fleet->change_latency, 0, sizeof fleet->change_latency);
    while (asked < fleet->clusters) {
        uint64_t elapsed_ns = clock_boottime_ns() - start_ns, each_ns = STORM_S * NSEC_PER_SEC / fleet->clusters;
        for (; died < fleet->clusters && died * each_ns <= elapsed_ns; died++)
            fleet->nodes[2 * died + 1].dead = true;
        for (; asked < died && asked * each_ns + SUSPECT_NS <= elapsed_ns; asked++)
            fleet_propose(fleet, asked, true);
        fleet_turn(fleet);
    }
    bool done = run_until(fleet, &fleet->changes_open, 0, STORM_LIMIT_S, "records not changed");
    *ret_s = (double)(clock_boottime_ns() - start_ns) / 1e9;
    return done;
}

static int measure(struct fleet *fleet, int pid, double seconds)
{
    double storm_s = 0;
    if (!join(fleet))
        return 1;
    double cpu = cpu_seconds(pid);
    uint64_t start_ns = clock_boottime_ns();
    fleet->measuring = true;
    run_for(fleet, seconds);
    fleet->measuring = false;
    double took = (double)(clock_boottime_ns() - start_ns) / 1e9;
    cpu = (cpu_seconds(pid) - cpu) / took;
    if (!storm(fleet, &storm_s))
        return 1;
    const struct load_histogram *beats = &fleet->beat_latency, *changes = &fleet->change_latency;
    printf("{\"witness.clusters\": %u, \"witness.rss_mib\": %.1f, \"witness.cpu_cores\": %.3f,\n"
           " \"witness.heartbeats_per_s\": %.0f, \"witness.heartbeat_p50_ms\": %.3f, \"witness.heartbeat_p99_ms\": %.3f,\n"
           " \"witness.heartbeat_p90_ms\": %.3f, \"witness.heartbeat_max_ms\": %.3f,\n"
           " \"witness.heartbeats_lost\": %llu, \"witness.storm_s\": %.3f, \"witness.storm_cas_p50_ms\": %.3f,\n"
           " \"witness.storm_all_s\": %.3f}\n", fleet->clusters, memory_mib(pid), cpu, (double)fleet->beats / took,
           (double)load_histogram_at(beats, 0.5) / 1e6, (double)load_histogram_at(beats, 0.99) / 1e6,
           (double)load_histogram_at(beats, 0.9) / 1e6, (double)beats->max_ns / 1e6,
           (unsigned long long)fleet->beats_lost, (double)changes->max_ns / 1e9,
           (double)load_histogram_at(changes, 0.5) / 1e6, storm_s);
    return 0;
}

int main(int argc, char **argv)
{
    static struct fleet fleet;
    struct sockaddr_in witness = {.sin_family = AF_INET};
    if (seal_init() < 0)
        return 1;
    if (argc == 4 && strcmp(argv[1], "--make") == 0)
        return fleet_make_store(argv[2], (unsigned)atoi(argv[3])) < 0;
    if (argc != 6 || inet_pton(AF_INET, argv[1], &witness.sin_addr) != 1 || atoi(argv[4]) < 1) {
        fputs("Usage: witness_load --make FOLDER CLUSTERS | witness_load ADDRESS PORT PID CLUSTERS SECONDS\n", stderr);
        return 2;
    }
    witness.sin_port = htons((uint16_t)atoi(argv[2]));
    int error = fleet_open(&fleet, (unsigned)atoi(argv[4]), &witness);
    if (error < 0) {
        fprintf(stderr, "witness_load: %s\n", strerror(-error));
        return 1;
    }
    return measure(&fleet, atoi(argv[3]), atof(argv[5]));
}
