/* A pool on files in a temporary folder, driven one operation at a time: for the tests of the pool. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "storaged/pool/format.h"
#include "storaged/pool/pool.h"
#include "storaged/ring.h"

#define LAB_DISKS_MAX 4
#define LAB_DISK_BYTES (256ull << 20)

struct lab {
    char folder[64];
    char paths[LAB_DISKS_MAX][96];
    const char *path_list[LAB_DISKS_MAX];
    unsigned disk_count;
    struct ring *ring;
    struct pool *pool;
    struct id group, volume;
    bool done;
    int result;
    uint64_t bad_block;
};

static inline void lab_make(struct lab *lab, unsigned disk_count, uint64_t journal_bytes)
{
    *lab = (struct lab){.folder = "/tmp/hci-test-pool-XXXXXX", .disk_count = disk_count};
    lab->group = id_random();
    lab->volume = id_random();
    check(mkdtemp(lab->folder));
    for (unsigned index = 0; index < disk_count; index++) {
        snprintf(lab->paths[index], sizeof lab->paths[index], "%s/disk%u", lab->folder, index);
        lab->path_list[index] = lab->paths[index];
    }
    struct pool_create_options options = {.paths = lab->path_list,
                                          .path_count = disk_count,
                                          .file_bytes = LAB_DISK_BYTES,
                                          .node = id_random(),
                                          .journal_bytes = journal_bytes};
    struct id pool;
    struct err err = {0};
    if (pool_create(&options, &pool, &err) < 0)
        fprintf(stderr, "%s\n", err.text);
    check(!err.text[0]);
}

static inline void lab_open(struct lab *lab)
{
    struct err err = {0};
    check(ring_new(64, &lab->ring) == 0);
    if (pool_open(lab->ring, lab->path_list, lab->disk_count, &lab->pool, &err) < 0)
        fprintf(stderr, "%s\n", err.text);
    check(!err.text[0]);
}

static inline void lab_close(struct lab *lab)
{
    pool_close(lab->pool);
    ring_free(lab->ring);
    lab->pool = NULL;
}

static inline void lab_reopen(struct lab *lab)
{
    lab_close(lab);
    lab_open(lab);
}

static inline void lab_remove(struct lab *lab)
{
    for (unsigned index = 0; index < lab->disk_count; index++)
        unlink(lab->paths[index]);
    rmdir(lab->folder);
}

/* Runs `work` on the opened pool in a process that then ends without closing anything: a crash. */
static inline void lab_crash(struct lab *lab, void (*work)(struct lab *lab))
{
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        lab_open(lab);
        work(lab);
        _exit(0);
    }
    int status;
    check(waitpid(child, &status, 0) == child);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static inline void lab_done(void *userdata, int result)
{
    struct lab *lab = userdata;
    lab->done = true;
    lab->result = result;
    ring_stop(lab->ring);
}

static inline int lab_wait(struct lab *lab)
{
    while (!lab->done)
        check(ring_run(lab->ring) == 0);
    lab->done = false;
    return lab->result;
}

static inline void lab_io_done(struct pool_io *io, int result)
{
    lab_done(io->private_data, result);
}

static inline struct pool_volume *lab_volume(struct lab *lab)
{
    return pool_volume_find(lab->pool, &lab->volume);
}

static inline int lab_create_volume(struct lab *lab, const struct id *volume, uint64_t size_bytes)
{
    pool_volume_create(lab->pool, &lab->group, volume, size_bytes, lab_done, lab);
    return lab_wait(lab);
}

static inline uint8_t *lab_buffer(uint32_t count)
{
    uint8_t *data = aligned_alloc(4096, (size_t)count * 4096);
    check(data);
    return data;
}

/* What block `block` holds in version `version`; version 0: zeros. */
static inline void lab_fill(uint8_t *data, uint64_t block, uint64_t version)
{
    uint64_t state = block * 0x9e3779b97f4a7c15u + version;
    for (unsigned index = 0; index < 512; index++, state = state * 6364136223846793005u + 1442695040888963407u)
        ((uint64_t *)(void *)data)[index] = version ? state : 0;
}

static inline void lab_fill_range(uint8_t *data, uint64_t block, uint32_t count, uint64_t version)
{
    for (uint32_t index = 0; index < count; index++)
        lab_fill(data + (size_t)index * 4096, block + index, version);
}

/* session NULL: a dirty write. */
static inline int lab_write_session(struct lab *lab, uint64_t block, uint32_t count, uint64_t version,
                                    const struct id *session, uint64_t sequence)
{
    uint8_t *data = lab_buffer(count);
    lab_fill_range(data, block, count, version);
    struct pool_io io = {.done = lab_io_done, .volume = lab_volume(lab), .block = block, .count = count, .data = data,
                         .dirty = !session, .sequence = sequence, .private_data = lab};
    if (session)
        io.session = *session;
    pool_write(lab->pool, &io);
    int result = lab_wait(lab);
    memset(data, 0xaa, (size_t)count * 4096); /* the pool needs it no more */
    free(data);
    return result;
}

static inline int lab_write(struct lab *lab, uint64_t block, uint32_t count, uint64_t version)
{
    return lab_write_session(lab, block, count, version, NULL, 0);
}

static inline int lab_zero(struct lab *lab, uint64_t block, uint32_t count)
{
    struct pool_io io = {.done = lab_io_done,
                         .volume = lab_volume(lab),
                         .block = block,
                         .count = count,
                         .dirty = true,
                         .private_data = lab};
    pool_zero(lab->pool, &io);
    return lab_wait(lab);
}

static inline int lab_read(struct lab *lab, uint64_t block, uint32_t count, uint8_t *data)
{
    memset(data, 0x55, (size_t)count * 4096);
    struct pool_io io = {.done = lab_io_done,
                         .volume = lab_volume(lab),
                         .block = block,
                         .count = count,
                         .data = data,
                         .private_data = lab};
    pool_read(lab->pool, &io);
    int result = lab_wait(lab);
    lab->bad_block = io.bad_block;
    return result;
}

/* Do all these blocks read as `version`? */
static inline bool lab_holds(struct lab *lab, uint64_t block, uint32_t count, uint64_t version)
{
    uint8_t *data = lab_buffer(count), *expected = lab_buffer(count);
    lab_fill_range(expected, block, count, version);
    int result = lab_read(lab, block, count, data);
    bool holds = result == 0 && memcmp(data, expected, (size_t)count * 4096) == 0;
    free(data);
    free(expected);
    return holds;
}

static inline int lab_checkpoint(struct lab *lab)
{
    pool_checkpoint(lab->pool, lab_done, lab);
    return lab_wait(lab);
}

/* --- the bytes on disk -------------------------------------------------------------------------------------------- */

static inline struct format_super lab_super(struct lab *lab, unsigned disk)
{
    struct format_super supers[2];
    int fd = open(lab->paths[disk], O_RDONLY);
    check(fd >= 0);
    for (unsigned slot = 0; slot < 2; slot++)
        check(pread(fd, &supers[slot], sizeof supers[slot], (off_t)FORMAT_SUPER_OFFSET(slot)) == sizeof supers[slot]);
    close(fd);
    return supers[supers[1].sequence > supers[0].sequence];
}

static inline void lab_overwrite(struct lab *lab, unsigned disk, uint64_t offset, uint64_t size, int byte)
{
    uint8_t *data = malloc(1 << 20);
    check(data);
    memset(data, byte, 1 << 20);
    int fd = open(lab->paths[disk], O_WRONLY);
    check(fd >= 0);
    for (uint64_t at = 0; at < size; at += 1 << 20) {
        size_t part = size - at < (1 << 20) ? (size_t)(size - at) : 1 << 20;
        check(pwrite(fd, data, part, (off_t)(offset + at)) == (ssize_t)part);
    }
    check(fsync(fd) == 0);
    close(fd);
    free(data);
}

/* As if nothing that was written to its place had reached the disk. */
static inline void lab_lose_data(struct lab *lab)
{
    for (unsigned disk = 0; disk < lab->disk_count; disk++) {
        struct format_super super = lab_super(lab, disk);
        lab_overwrite(lab, disk, super.data_offset, (uint64_t)super.extent_count * FORMAT_EXTENT, 0x66);
    }
}
