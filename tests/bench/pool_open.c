/* Bench: how long does opening a large pool take, and how much memory does it need then? The pool's data are a hole in
 * a sparse file; only its metadata are there.
 *
 *     pool_open [-g GIB] [-m MAPPED_PERCENT] [-t TOUCHED_PERCENT] FILE
 *
 * Makes the pool with one volume, so much of which is mapped and fully written, opens it, and reads one block in each
 * extent of the touched part (the checks fail: the data are not there; their checksums are loaded all the same). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "storaged/crc32c.h"
#include "storaged/pool/format.h"
#include "storaged/pool/pool.h"

struct bench {
    const char *path;
    uint64_t bytes;
    unsigned mapped_percent, touched_percent;
    struct id volume;
    struct ring *ring;
    struct pool *pool;
    int result;
};

static void done(void *userdata, int result)
{
    struct bench *bench = userdata;
    bench->result = result;
    ring_stop(bench->ring);
}

static int pool_get(struct bench *bench)
{
    struct err err = {0};
    int result = pool_open(bench->ring, &bench->path, 1, &bench->pool, &err);
    if (result < 0)
        fprintf(stderr, "%s\n", err.text);
    return result;
}

static int pool_make(struct bench *bench)
{
    struct pool_create_options options = {.paths = &bench->path, .path_count = 1, .node = id_random(), .force = true};
    struct id id;
    struct err err = {0};
    int fd = open(bench->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bench->bytes) < 0)
        return -errno;
    close(fd);
    int result = pool_create(&options, &id, &err);
    if (result < 0)
        fprintf(stderr, "%s\n", err.text);
    if (result == 0)
        result = pool_get(bench);
    if (result < 0)
        return result;
    struct pool_stats stats;
    pool_get_stats(bench->pool, &stats);
    bench->bytes = stats.total_bytes;
    pool_volume_create(bench->pool, &bench->volume, &bench->volume, stats.total_bytes, done, bench);
    result = ring_run(bench->ring);
    pool_close(bench->pool);
    return result < 0 ? result : bench->result;
}

static void block_fill(const struct format_super *super, uint32_t index, uint32_t mapped,
                       struct format_descriptor_block *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->header = (struct format_table_header){
        .magic = FORMAT_TABLE_MAGIC, .kind = FORMAT_DESCRIPTORS, .pool = super->pool, .index = index, .sequence = 1};
    for (uint32_t place = 0; place < FORMAT_DESCRIPTORS_PER_BLOCK; place++) {
        uint32_t extent = index * FORMAT_DESCRIPTORS_PER_BLOCK + place;
        struct format_descriptor *descriptor = &ret->descriptors[place];
        if (extent >= mapped)
            break;
        *descriptor = (struct format_descriptor){.logical = extent, .life = 2, .birth = extent + 1};
        memset(descriptor->written, 0xff, sizeof descriptor->written);
    }
}

/* As if so many extents had been written in full. */
static int tables_make(const struct bench *bench)
{
    struct format_super super;
    int fd = open(bench->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || pread(fd, &super, sizeof super, 0) != sizeof super)
        return -EIO;
    uint32_t mapped = (uint32_t)((uint64_t)super.extent_count * bench->mapped_percent / 100);
    uint32_t blocks = (super.extent_count + FORMAT_DESCRIPTORS_PER_BLOCK - 1) / FORMAT_DESCRIPTORS_PER_BLOCK;
    struct format_descriptor_block *block = malloc(sizeof *block);
    check(block);
    for (uint32_t index = 0; index < blocks; index++) {
        block_fill(&super, index, mapped, block);
        for (unsigned place = 0; place < FORMAT_DESCRIPTORS_PER_BLOCK; place++)
            if (block->descriptors[place].birth)
                block->descriptors[place].volume = bench->volume;
        block->header.crc = crc32c(block, sizeof *block);
        if (pwrite(fd, block, sizeof *block, (off_t)(super.table_offset + (uint64_t)index * 2 * 4096)) != sizeof *block)
            return -EIO;
    }
    free(block);
    int result = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return result;
}

static void read_done(struct pool_io *io, int result)
{
    ring_stop(((struct bench *)io->private_data)->ring);
}

static int extents_touch(struct bench *bench)
{
    struct pool_volume *volume = pool_volume_find(bench->pool, &bench->volume);
    uint8_t *data = aligned_alloc(4096, 4096);
    check(volume && data);
    uint64_t extents = bench->bytes / FORMAT_EXTENT * bench->touched_percent / 100;
    for (uint64_t extent = 0; extent < extents; extent++) {
        struct pool_io io = {.done = read_done, .volume = volume, .block = extent * FORMAT_EXTENT_BLOCKS, .count = 1,
                             .data = data, .private_data = bench};
        pool_read(bench->pool, &io);
        int result = ring_run(bench->ring);
        if (result < 0)
            return result;
    }
    free(data);
    return 0;
}

static double resident_mib(void)
{
    char line[256];
    double mib = 0;
    FILE *status = fopen("/proc/self/status", "re");
    check(status);
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "VmRSS:", 6) == 0)
            mib = (double)strtoull(line + 6, NULL, 10) / 1024;
    fclose(status);
    return mib;
}

static int bench_run(struct bench *bench)
{
    int result = ring_new(64, &bench->ring);
    if (result == 0)
        result = pool_make(bench);
    if (result == 0)
        result = tables_make(bench);
    if (result < 0)
        return result;
    double before = resident_mib();
    uint64_t started = clock_boottime_ms();
    result = pool_get(bench);
    if (result < 0)
        return result;
    double seconds = (double)(clock_boottime_ms() - started) / 1000, opened = resident_mib();
    result = extents_touch(bench);
    printf("%llu GiB, %u %% mapped: opened in %.2f s, %.0f MiB; %u %% touched: %.0f MiB (before: %.0f MiB)\n",
           (unsigned long long)bench->bytes >> 30, bench->mapped_percent, seconds, opened, bench->touched_percent,
           resident_mib(), before);
    pool_close(bench->pool);
    ring_free(bench->ring);
    return result;
}

int main(int count, char **words)
{
    struct bench bench = {.bytes = 1ull << 40, .mapped_percent = 100, .touched_percent = 10};
    int letter;
    while ((letter = getopt(count, words, "g:m:t:")) != -1) {
        unsigned long value = optarg ? strtoul(optarg, NULL, 10) : 0;
        switch (letter) {
        case 'g': bench.bytes = (uint64_t)value << 30; break;
        case 'm': bench.mapped_percent = value > 100 ? 100 : (unsigned)value; break;
        case 't': bench.touched_percent = value > 100 ? 100 : (unsigned)value; break;
        default: count = 0;
        }
    }
    if (optind + 1 != count) {
        fprintf(stderr, "usage: pool_open [-g GIB] [-m MAPPED_PERCENT] [-t TOUCHED_PERCENT] FILE\n");
        return 2;
    }
    bench.path = words[optind];
    bench.volume = id_random();
    log_init("pool_open", LOG_LEVEL_WARNING);
    int result = bench_run(&bench);
    if (result < 0)
        fprintf(stderr, "pool_open: %s\n", strerror(-result));
    return result < 0;
}
