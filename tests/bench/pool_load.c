/* Bench: how much does the pool alone, without network and mirror, on given files or disks? WIPES THEM.
 *
 *     pool_load [-s SECONDS] [-d DEPTH] [-b BYTES] [-v VOLUME_MIB] [-w random|sequential] [-r] PATH...
 *
 * -r reads instead (after the volume was written once). A file that does not exist is made, 2 GiB. Prints one line. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "storaged/pool/pool.h"

#define DEPTH_MAX 1024u
#define FILE_BYTES (2ull << 30)

struct options {
    unsigned seconds, depth, bytes, volume_mib;
    bool sequential, read;
    const char *const *paths;
    unsigned path_count;
};

struct load {
    const struct options *options;
    struct ring *ring;
    struct pool *pool;
    struct pool_volume *volume;
    struct pool_io ios[DEPTH_MAX];
    uint64_t slots, next, random; /* slots: requests that the volume holds */
    uint64_t started_ms, requests, fill_left;
    unsigned running;
    bool *busy; /* slots: two writes at once must not overlap */
    bool reading, stop;
    int result;
};

static uint64_t random_next(struct load *load)
{
    load->random = load->random * 6364136223846793005u + 1442695040888963407u;
    return load->random >> 33;
}

static void request_next(struct load *load, struct pool_io *io)
{
    const struct options *options = load->options;
    uint64_t slot;
    do {
        bool in_order = options->sequential || load->fill_left;
        slot = in_order ? load->next++ % load->slots : random_next(load) % load->slots;
    } while (load->busy[slot]);
    load->busy[slot] = true;
    io->block = slot * io->count;
    if (load->reading)
        pool_read(load->pool, io);
    else
        pool_write(load->pool, io);
}

static void request_done(struct pool_io *io, int result)
{
    struct load *load = io->private_data;
    load->busy[io->block / io->count] = false;
    load->requests++;
    if (result < 0)
        load->result = result;
    bool filled = load->fill_left > 0 && --load->fill_left == 0;
    bool late = !load->fill_left && ring_now_ms(load->ring) - load->started_ms >= load->options->seconds * 1000ull;
    if (result == 0 && !filled && !load->stop && !late) {
        request_next(load, io);
        return;
    }
    load->stop = true;
    if (--load->running == 0)
        ring_stop(load->ring);
}

static int load_run(struct load *load)
{
    load->requests = 0;
    load->stop = false;
    load->started_ms = clock_boottime_ms();
    load->running = load->options->depth;
    for (unsigned index = 0; index < load->options->depth; index++)
        request_next(load, &load->ios[index]);
    int result = ring_run(load->ring);
    return result < 0 ? result : load->result;
}

static double cpu_seconds(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

static void load_report(const struct load *load, const struct rusage *before, const struct pool_stats *earlier)
{
    const struct options *options = load->options;
    double seconds = (double)(clock_boottime_ms() - load->started_ms) / 1000;
    struct rusage after;
    struct pool_stats stats;
    getrusage(RUSAGE_SELF, &after);
    pool_get_stats(load->pool, &stats);
    double cpu = cpu_seconds(&after) - cpu_seconds(before);
    printf("%s %s %u bytes depth %u disks %u: %.0f requests/s %.1f MiB/s, %.1f us of CPU each; %.1f parts per journal "
           "write, %llu checkpoints\n",
           options->sequential ? "sequential" : "random", options->read ? "read" : "write", options->bytes,
           options->depth, options->path_count, (double)load->requests / seconds,
           (double)load->requests * options->bytes / seconds / (1 << 20), cpu * 1e6 / (double)load->requests,
           (double)(stats.journal_records - earlier->journal_records) /
               (double)(stats.journal_writes - earlier->journal_writes + 1),
           (unsigned long long)(stats.checkpoints - earlier->checkpoints));
}

static void volume_made(void *userdata, int result)
{
    struct load *load = userdata;
    load->result = result;
    ring_stop(load->ring);
}

static int load_open(struct load *load)
{
    const struct options *options = load->options;
    struct pool_create_options create = {.paths = options->paths, .path_count = options->path_count,
                                         .file_bytes = FILE_BYTES, .node = id_random(), .force = true};
    struct id id = id_random();
    struct err err = {0};
    int result = pool_create(&create, &id, &err);
    if (result == 0)
        result = ring_new(256, &load->ring);
    if (result == 0)
        result = pool_open(load->ring, options->paths, options->path_count, &load->pool, &err);
    if (result < 0) {
        fprintf(stderr, "%s\n", err.text);
        return result;
    }
    pool_volume_create(load->pool, &id, &id, (uint64_t)options->volume_mib << 20, volume_made, load);
    result = ring_run(load->ring);
    load->volume = pool_volume_find(load->pool, &id);
    return result < 0 ? result : load->result;
}

static void load_prepare(struct load *load)
{
    const struct options *options = load->options;
    load->slots = ((uint64_t)options->volume_mib << 20) / options->bytes;
    load->busy = calloc(load->slots, sizeof *load->busy);
    check(load->busy && load->slots > options->depth);
    for (unsigned index = 0; index < options->depth; index++) {
        uint8_t *data = aligned_alloc(4096, options->bytes);
        check(data);
        memset(data, (int)index + 1, options->bytes);
        load->ios[index] = (struct pool_io){.done = request_done, .volume = load->volume, .data = data,
                                            .count = options->bytes / 4096, .unmirrored = true, .private_data = load};
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: pool_load [-s SECONDS] [-d DEPTH] [-b BYTES] [-v VOLUME_MIB] [-w random|sequential] [-r] "
                    "PATH...\n");
    return 2;
}

static bool options_parse(int count, char **words, struct options *ret)
{
    int letter;
    while ((letter = getopt(count, words, "s:d:b:v:w:r")) != -1) {
        unsigned value = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;
        switch (letter) {
        case 's': ret->seconds = value; break;
        case 'd': ret->depth = value; break;
        case 'b': ret->bytes = value; break;
        case 'v': ret->volume_mib = value; break;
        case 'w': ret->sequential = strcmp(optarg, "sequential") == 0; break;
        case 'r': ret->read = true; break;
        default: return false;
        }
    }
    ret->paths = (const char *const *)words + optind;
    ret->path_count = (unsigned)(count - optind);
    return ret->path_count > 0 && ret->depth > 0 && ret->depth <= DEPTH_MAX && ret->bytes % 4096 == 0 &&
           ret->bytes > 0 && ret->bytes <= (1u << 20);
}

int main(int count, char **words)
{
    static struct load load;
    struct options options = {.seconds = 5, .depth = 32, .bytes = 4096, .volume_mib = 1024};
    if (!options_parse(count, words, &options))
        return usage();
    log_init("pool_load", LOG_LEVEL_WARNING);
    load = (struct load){.options = &options, .random = 1};
    int result = load_open(&load);
    if (result == 0) {
        load_prepare(&load);
        load.fill_left = load.slots; /* every extent is there: what is measured is overwriting */
        result = load_run(&load);
    }
    struct rusage before;
    struct pool_stats earlier;
    getrusage(RUSAGE_SELF, &before);
    if (result == 0) {
        pool_get_stats(load.pool, &earlier);
        load.fill_left = 0;
        load.reading = options.read;
        result = load_run(&load);
    }
    if (result < 0) {
        fprintf(stderr, "pool_load: %s\n", strerror(-result));
        return 1;
    }
    load_report(&load, &before, &earlier);
    pool_close(load.pool);
    ring_free(load.ring);
    return 0;
}
