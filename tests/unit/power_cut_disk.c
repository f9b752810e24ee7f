/* Simulated disks under the pool: see power_cut_disk.h. */
#include "tests/unit/power_cut_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "storaged/ring.h"

#define FLIGHT_MAX 4096u
#define BLOCK 4096u

struct flight {
    struct ring_io *io;
    struct iovec *vectors; /* ours */
    unsigned vector_count;
    uint8_t *copy; /* WRITE: what the buffers held when it began */
    enum cut_operation operation;
    unsigned disk;
    bool durable;
    uint64_t offset, size, due_ns;
    uint32_t start;
};

/* What --wrap replaces has no room for a pointer to it. */
static struct {
    struct cut_device *device;
    struct flight flights[FLIGHT_MAX];
    unsigned count;
    struct ring *ring;
    struct ring_mail mail;
    bool armed;
    uint64_t now_ns;
} sim;

uint64_t cut_random(uint64_t *state)
{
    uint64_t value = *state += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

uint32_t cut_random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(cut_random(state) % limit);
}

static void *shared(uint64_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED);
    return memory;
}

static void disk_new(struct cut_disk *disk, uint64_t bytes)
{
    struct stat status;
    disk->bytes = bytes;
    disk->fd = memfd_create("power-cut-disk", MFD_CLOEXEC);
    check(disk->fd >= 0 && ftruncate(disk->fd, (off_t)bytes) == 0 && fstat(disk->fd, &status) == 0);
    snprintf(disk->path, sizeof disk->path, "/proc/self/fd/%d", disk->fd);
    disk->device = status.st_dev;
    disk->inode = status.st_ino;
    disk->image = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, disk->fd, 0);
    check(disk->image != MAP_FAILED);
    disk->touched = shared(bytes / BLOCK);
}

void cut_device_new(struct cut_device *device, unsigned disk_count, uint64_t bytes, uint64_t seed)
{
    check(disk_count <= CUT_DISKS_MAX && bytes % BLOCK == 0);
    *device = (struct cut_device){.disk_count = disk_count, .random = seed};
    for (unsigned index = 0; index < disk_count; index++)
        disk_new(&device->disks[index], bytes);
    device->log = shared(sizeof *device->log);
}

void cut_device_free(struct cut_device *device)
{
    for (unsigned index = 0; index < device->disk_count; index++) {
        munmap(device->disks[index].image, device->disks[index].bytes);
        munmap(device->disks[index].touched, device->disks[index].bytes / BLOCK);
        close(device->disks[index].fd);
    }
    munmap(device->log, sizeof *device->log);
}

void cut_device_use(struct cut_device *device)
{
    check(sim.count == 0);
    sim.device = device;
}

/* --- the log ------------------------------------------------------------------------------------------------------ */

static struct cut_event *event_new(enum cut_event_kind kind, unsigned disk)
{
    struct cut_log *log = sim.device->log;
    check(log->event_count < CUT_EVENTS_MAX);
    struct cut_event *event = &log->events[log->event_count++];
    *event = (struct cut_event){.kind = (uint8_t)kind, .disk = (uint8_t)disk};
    return event;
}

void cut_note_write(const struct cut_note *note)
{
    if (sim.device && sim.device->mode == CUT_RECORD)
        event_new(CUT_NOTE, 0)->note = *note;
}

static uint32_t log_write(unsigned disk, const void *data, uint64_t size, uint64_t offset, bool durable)
{
    struct cut_log *log = sim.device->log;
    if (sim.device->mode != CUT_RECORD)
        return 0;
    check(log->data_used + size <= CUT_DATA_MAX);
    struct cut_event *event = event_new(CUT_WRITE, disk);
    event->durable = durable;
    event->size = (uint32_t)size;
    event->offset = offset;
    event->data = log->data_used;
    memcpy(log->data + log->data_used, data, size);
    log->data_used += size;
    return log->event_count - 1;
}

static uint32_t log_sync(unsigned disk)
{
    if (sim.device->mode != CUT_RECORD)
        return 0;
    event_new(CUT_SYNC, disk);
    return sim.device->log->event_count - 1;
}

static void log_done(enum cut_event_kind kind, unsigned disk, uint32_t start)
{
    if (sim.device->mode == CUT_RECORD)
        event_new(kind, disk)->start = start;
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static int disk_of(int fd)
{
    struct stat status;
    if (!sim.device || sim.device->mode == CUT_OFF || fstat(fd, &status) < 0)
        return -1;
    for (unsigned index = 0; index < sim.device->disk_count; index++)
        if (sim.device->disks[index].inode == status.st_ino && sim.device->disks[index].device == status.st_dev)
            return (int)index;
    return -1;
}

static int fault_of(unsigned disk, enum cut_operation operation, uint64_t offset, uint64_t size)
{
    return sim.device->fault ? sim.device->fault(sim.device->userdata, disk, operation, offset, size) : 0;
}

static void image_write(unsigned index, const uint8_t *data, uint64_t size, uint64_t offset)
{
    struct cut_disk *disk = &sim.device->disks[index];
    check(offset % BLOCK == 0 && size % BLOCK == 0 && offset + size <= disk->bytes);
    memcpy(disk->image + offset, data, size);
    memset(disk->touched + offset / BLOCK, 1, size / BLOCK);
}

static void vectors_gather(const struct flight *flight, uint8_t *ret)
{
    for (unsigned index = 0; index < flight->vector_count; ret += flight->vectors[index++].iov_len)
        memcpy(ret, flight->vectors[index].iov_base, flight->vectors[index].iov_len);
}

static void image_read(const struct flight *flight)
{
    const uint8_t *from = sim.device->disks[flight->disk].image + flight->offset;
    for (unsigned index = 0; index < flight->vector_count; from += flight->vectors[index++].iov_len)
        memcpy(flight->vectors[index].iov_base, from, flight->vectors[index].iov_len);
}

static int flight_write(struct flight *flight, int fault)
{
    uint8_t *now = malloc(flight->size);
    check(now);
    vectors_gather(flight, now);
    check(memcmp(now, flight->copy, flight->size) == 0); /* nobody changes a buffer that is being written */
    free(now);
    if (fault)
        return fault; /* in the log it stays unfinished: all of it may be there, or parts, or nothing */
    image_write(flight->disk, flight->copy, flight->size, flight->offset);
    log_done(CUT_WRITE_DONE, flight->disk, flight->start);
    return (int)flight->size;
}

static void flight_land(unsigned index)
{
    struct flight flight = sim.flights[index];
    int result = fault_of(flight.disk, flight.operation, flight.offset, flight.size);
    sim.flights[index] = sim.flights[--sim.count];
    if (flight.operation == CUT_OP_READ && result == 0) {
        image_read(&flight);
        result = (int)flight.size;
    } else if (flight.operation == CUT_OP_WRITE) {
        result = flight_write(&flight, result);
    } else if (flight.operation == CUT_OP_SYNC && result == 0) {
        log_done(CUT_SYNC_DONE, flight.disk, flight.start);
    }
    free(flight.copy);
    free(flight.vectors);
    flight.io->done(flight.io, result);
}

static void sim_pump(struct ring_mail *mail);

static void sim_arm(struct ring *ring)
{
    if (sim.armed && sim.ring == ring)
        return;
    sim.armed = true;
    sim.ring = ring;
    sim.mail.run = sim_pump;
    ring_defer(ring, &sim.mail);
}

/* Lands what is due, in any order. */
static void sim_pump(struct ring_mail *mail)
{
    uint64_t *random = &sim.device->random;
    sim.now_ns += (1 + cut_random_below(random, 4000)) * 1000ull;
    for (unsigned most = sim.count; most > 0 && sim.count > 0; most--) {
        unsigned index = cut_random_below(random, sim.count);
        if (sim.flights[index].due_ns <= sim.now_ns)
            flight_land(index);
    }
    sim.armed = false;
    sim_arm(sim.ring);
}

static uint64_t delay_ns(void)
{
    uint64_t *random = &sim.device->random;
    if (sim.device->mode == CUT_TOUCH)
        return 0;
    return cut_random_below(random, cut_random_below(random, 8) ? 4000 : 60000) * 1000ull;
}

/* The pool orders what overlaps: two such requests are never at the disk together, unless both read. */
static void overlap_check(const struct flight *flight)
{
    for (unsigned index = 0; index < sim.count; index++) {
        const struct flight *other = &sim.flights[index];
        if (other->disk == flight->disk && other->operation != CUT_OP_SYNC && flight->operation != CUT_OP_SYNC &&
            (other->operation == CUT_OP_WRITE || flight->operation == CUT_OP_WRITE))
            check(other->offset >= flight->offset + flight->size || flight->offset >= other->offset + other->size);
    }
}

static void flight_start(struct ring *ring, struct flight *flight, const struct iovec *vectors, unsigned count)
{
    check(sim.count < FLIGHT_MAX);
    flight->vectors = calloc(count + 1, sizeof *vectors);
    check(flight->vectors);
    if (count)
        memcpy(flight->vectors, vectors, count * sizeof *vectors);
    flight->vector_count = count;
    for (unsigned index = 0; index < count; index++)
        flight->size += vectors[index].iov_len;
    flight->due_ns = sim.now_ns + delay_ns();
    overlap_check(flight);
    if (flight->operation == CUT_OP_WRITE) {
        flight->copy = malloc(flight->size);
        check(flight->copy);
        vectors_gather(flight, flight->copy);
        flight->start = log_write(flight->disk, flight->copy, flight->size, flight->offset, flight->durable);
    } else if (flight->operation == CUT_OP_SYNC) {
        flight->start = log_sync(flight->disk);
    }
    sim.flights[sim.count++] = *flight;
    sim_arm(ring);
}

/* --- what the linker puts in the place of ring.c's and libc's ----------------------------------------------------- */

void __real_ring_read(struct ring *, struct ring_io *, int, void *, size_t, uint64_t);
void __real_ring_write(struct ring *, struct ring_io *, int, const void *, size_t, uint64_t, bool);
void __real_ring_writev(struct ring *, struct ring_io *, int, const struct iovec *, unsigned, uint64_t, bool);
void __real_ring_sync(struct ring *, struct ring_io *, int);
void __real_ring_free(struct ring *);
uint64_t __real_clock_boottime_ns(void);
ssize_t __real_pwrite(int, const void *, size_t, off_t);
ssize_t __real_pread(int, void *, size_t, off_t);
int __real_fsync(int);
int __real_fdatasync(int);
int __real_open(const char *, int, ...);

void __wrap_ring_read(struct ring *ring, struct ring_io *io, int fd, void *data, size_t size, uint64_t offset);
void __wrap_ring_write(struct ring *ring, struct ring_io *io, int fd, const void *data, size_t size, uint64_t offset,
                       bool durable);
void __wrap_ring_writev(struct ring *ring, struct ring_io *io, int fd, const struct iovec *vectors, unsigned count,
                        uint64_t offset, bool durable);
void __wrap_ring_sync(struct ring *ring, struct ring_io *io, int fd);
void __wrap_ring_free(struct ring *ring);
uint64_t __wrap_clock_boottime_ns(void);
uint64_t __wrap_clock_boottime_ms(void);
ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_open(const char *path, int flags, ...);

void __wrap_ring_read(struct ring *ring, struct ring_io *io, int fd, void *data, size_t size, uint64_t offset)
{
    int disk = disk_of(fd);
    if (disk < 0) {
        __real_ring_read(ring, io, fd, data, size, offset);
        return;
    }
    io->vector = (struct iovec){data, size};
    struct flight flight = {.io = io, .operation = CUT_OP_READ, .disk = (unsigned)disk, .offset = offset};
    flight_start(ring, &flight, &io->vector, 1);
}

void __wrap_ring_writev(struct ring *ring, struct ring_io *io, int fd, const struct iovec *vectors, unsigned count,
                        uint64_t offset, bool durable)
{
    int disk = disk_of(fd);
    if (disk < 0) {
        __real_ring_writev(ring, io, fd, vectors, count, offset, durable);
        return;
    }
    check(count <= 1024); /* IOV_MAX: the kernel takes no more */
    struct flight flight = {
        .io = io, .operation = CUT_OP_WRITE, .disk = (unsigned)disk, .offset = offset, .durable = durable};
    flight_start(ring, &flight, vectors, count);
}

void __wrap_ring_write(struct ring *ring, struct ring_io *io, int fd, const void *data, size_t size, uint64_t offset,
                       bool durable)
{
    if (disk_of(fd) < 0) {
        __real_ring_write(ring, io, fd, data, size, offset, durable);
        return;
    }
    io->vector = (struct iovec){(void *)(uintptr_t)data, size};
    __wrap_ring_writev(ring, io, fd, &io->vector, 1, offset, durable);
}

void __wrap_ring_sync(struct ring *ring, struct ring_io *io, int fd)
{
    int disk = disk_of(fd);
    if (disk < 0) {
        __real_ring_sync(ring, io, fd);
        return;
    }
    struct flight flight = {.io = io, .operation = CUT_OP_SYNC, .disk = (unsigned)disk};
    flight_start(ring, &flight, NULL, 0);
}

void __wrap_ring_free(struct ring *ring)
{
    if (sim.ring == ring) {
        check(sim.count == 0);
        sim.armed = false;
        sim.ring = NULL;
    }
    __real_ring_free(ring);
}

uint64_t __wrap_clock_boottime_ns(void)
{
    if (!sim.device || sim.device->mode == CUT_OFF)
        return __real_clock_boottime_ns();
    return sim.now_ns += 1000;
}

uint64_t __wrap_clock_boottime_ms(void)
{
    return __wrap_clock_boottime_ns() / NSEC_PER_MSEC;
}

static int fault_errno(int result)
{
    errno = -result;
    return -1;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset)
{
    int disk = disk_of(fd);
    if (disk < 0)
        return __real_pwrite(fd, data, size, offset);
    int fault = fault_of((unsigned)disk, CUT_OP_WRITE, (uint64_t)offset, size);
    if (fault < 0)
        return fault_errno(fault);
    uint32_t start = log_write((unsigned)disk, data, size, (uint64_t)offset, false);
    image_write((unsigned)disk, data, size, (uint64_t)offset);
    log_done(CUT_WRITE_DONE, (unsigned)disk, start);
    return (ssize_t)size;
}

ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset)
{
    int disk = disk_of(fd);
    int fault = disk < 0 ? 0 : fault_of((unsigned)disk, CUT_OP_READ, (uint64_t)offset, size);
    return fault < 0 ? fault_errno(fault) : __real_pread(fd, data, size, offset);
}

static int sync_now(int disk)
{
    int fault = fault_of((unsigned)disk, CUT_OP_SYNC, 0, 0);
    if (fault < 0)
        return fault_errno(fault);
    uint32_t start = log_sync((unsigned)disk);
    log_done(CUT_SYNC_DONE, (unsigned)disk, start);
    return 0;
}

int __wrap_fsync(int fd)
{
    int disk = disk_of(fd);
    return disk < 0 ? __real_fsync(fd) : sync_now(disk);
}

int __wrap_fdatasync(int fd)
{
    int disk = disk_of(fd);
    return disk < 0 ? __real_fdatasync(fd) : sync_now(disk);
}

/* Not every kernel's memory files take O_DIRECT. */
int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return __real_open(path, sim.device ? flags & ~O_DIRECT : flags, mode);
}
