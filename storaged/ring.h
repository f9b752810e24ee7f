/* The data thread's loop: one io_uring, its completions, socket readiness, timers and mail from other threads.
 * The only file pair that includes liburing.h. Everything but ring_post runs on the thread that calls ring_run. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring;

/* `entries`: submissions per batch; more operations than that may be in flight. */
int ring_new(unsigned entries, struct ring **ret);
/* Nothing may be in flight. */
void ring_free(struct ring *ring);
/* Runs until ring_stop. Returns 0 or a negative errno of io_uring itself. */
int ring_run(struct ring *ring);
void ring_stop(struct ring *ring);
/* CLOCK_BOOTTIME at the start of the current batch, milliseconds. */
uint64_t ring_now_ms(const struct ring *ring);
/* Grows by one per batch, at least every 100 ms: proof that this thread lives (R8). May be read by any thread. */
uint64_t ring_beat(const struct ring *ring);

/* Disk I/O. The caller embeds `struct ring_io`, keeps it and the buffers until `done`, which may start new
 * operations. `result`: bytes, or a negative errno. Buffers, sizes and offsets are aligned as O_DIRECT asks. */
struct ring_io {
    void (*done)(struct ring_io *io, int result);
    struct iovec vector;
};
void ring_read(struct ring *ring, struct ring_io *io, int fd, void *data, size_t size, uint64_t offset);
/* `durable`: with RWF_DSYNC, on stable storage when done. */
void ring_write(struct ring *ring, struct ring_io *io, int fd, const void *data, size_t size, uint64_t offset, bool durable);
void ring_writev(struct ring *ring, struct ring_io *io, int fd, const struct iovec *vectors, unsigned count, uint64_t offset,
                 bool durable);
/* fdatasync */
void ring_sync(struct ring *ring, struct ring_io *io, int fd);

/* Readiness of a socket, level-triggered: `ready` is called again and again while one of `events` (POLLIN, POLLOUT)
 * holds; POLLERR and POLLHUP are always reported. */
struct ring_watch {
    void (*ready)(struct ring_watch *watch, unsigned events);
    /* private */
    struct ring *ring;
    int fd;
    unsigned events;
    struct ring_poll *poll;
};
void ring_watch_start(struct ring *ring, struct ring_watch *watch, int fd, unsigned events);
/* Changes what is waited for; 0 pauses. */
void ring_watch_change(struct ring_watch *watch, unsigned events);
/* No call of `ready` after this; the fd may then be closed and the memory freed at once. Harmless when not started. */
void ring_watch_stop(struct ring_watch *watch);

/* One-shot timers; starting a started one moves it. Stop is harmless when not started. Zeroed memory is a stopped timer. */
struct ring_timer {
    void (*expired)(struct ring_timer *timer);
    /* private */
    struct ring *ring;
    uint64_t deadline_ms;
    unsigned heap_index; /* 1-based; 0: not started */
};
void ring_timer_start(struct ring *ring, struct ring_timer *timer, uint64_t delay_ms);
void ring_timer_stop(struct ring_timer *timer);

/* Mail. `run` is called once on the ring's thread, in the order of posting. ring_post may be called by any thread and
 * takes the caller's memory until `run`. ring_defer is the same from the ring's own thread (after the current batch:
 * breaks recursion). */
struct ring_mail {
    void (*run)(struct ring_mail *mail);
    struct ring_mail *next; /* private */
};
void ring_post(struct ring *ring, struct ring_mail *mail);
void ring_defer(struct ring *ring, struct ring_mail *mail);
