/* Simulated disks for the pool's tests: they finish requests late and out of order, fail on demand, and keep the stream
 * of writes and flushes. The linker puts them between the pool and the kernel (--wrap, see CMakeLists.txt), so the
 * product carries no seam for it. Time is theirs too: with one seed a run repeats exactly. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CUT_DISKS_MAX 6u
#define CUT_SECTOR 512u
#define CUT_EVENTS_MAX 400000u
#define CUT_DATA_MAX (1ull << 30)

enum cut_event_kind { CUT_WRITE, CUT_WRITE_DONE, CUT_SYNC, CUT_SYNC_DONE, CUT_NOTE };

/* What the workload tells: the model of tests/unit/power_cut_model.h gives it its meaning. */
struct cut_note {
    uint32_t kind, index, count, version;
    uint64_t block, sequence;
};

struct cut_event {
    uint8_t kind, disk;
    bool durable;    /* WRITE: asked for */
    uint32_t start;  /* DONE: the event it ends */
    uint32_t size;   /* WRITE */
    uint64_t offset, data; /* WRITE: on the disk, in the log's data */
    struct cut_note note;
};

struct cut_log {
    uint32_t event_count;
    uint64_t data_used;
    struct cut_event events[CUT_EVENTS_MAX];
    uint8_t data[CUT_DATA_MAX];
};

struct cut_disk {
    char path[64];
    int fd;
    dev_t device;
    ino_t inode;
    uint64_t bytes;
    uint8_t *image;   /* shared: what the pool reads and writes */
    uint8_t *touched; /* shared: per 4 KiB block: does the image differ from what is durable? */
};

enum cut_operation { CUT_OP_READ, CUT_OP_WRITE, CUT_OP_SYNC };
/* 0, or the negative errno with which the request shall end; a write then has not happened. */
typedef int cut_fault(void *userdata, unsigned disk, enum cut_operation operation, uint64_t offset, uint64_t size);

enum cut_mode {
    CUT_OFF,    /* the kernel's files, nothing simulated */
    CUT_RECORD, /* late, out of order, kept in the log */
    CUT_TOUCH,  /* at once; only what was written is kept */
};

struct cut_device {
    struct cut_disk disks[CUT_DISKS_MAX];
    unsigned disk_count;
    struct cut_log *log; /* shared */
    enum cut_mode mode;
    uint64_t random;
    cut_fault *fault;
    void *userdata;
};

/* Empty disks in memory; they are the process's until it ends. */
void cut_device_new(struct cut_device *device, unsigned disk_count, uint64_t bytes, uint64_t seed);
void cut_device_free(struct cut_device *device);
/* From here on the pool's I/O on these disks goes there (one device at a time); NULL: nowhere. */
void cut_device_use(struct cut_device *device);
/* Into the log, between the disks' events. */
void cut_note_write(const struct cut_note *note);
uint64_t cut_random(uint64_t *state);
/* Fewer than `limit`. */
uint32_t cut_random_below(uint64_t *state, uint32_t limit);
