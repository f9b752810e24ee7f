/* The data thread's loop over one io_uring: completions, readiness, timers and mail, one batch after the other. */
#include "storaged/ring.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/list.h"

#define BEAT_MS 100u          /* R8: the longest time without a batch */
#define SUBMIT_ATTEMPTS 10000 /* of 100 us: a kernel that takes nothing for a second is broken */

/* The low bits of a completion's user_data say what the pointer above them is. */
enum ring_tag { TAG_IO = 0, TAG_POLL = 1, TAG_IGNORE = 2, TAG_MASK = 3 };

/* The kernel's side of a watch. Outlives the watch while its request is in flight, so that the watch's memory and
 * descriptor may go at once. */
struct ring_poll {
    struct ring_watch *watch; /* NULL: the watch was stopped */
    bool in_flight;
    bool cancelling;
    bool in_callback;
};

struct mail_queue {
    struct ring_mail *first;
    struct ring_mail **end;
};

struct ring {
    struct io_uring uring;
    uint64_t now_ms;
    _Atomic uint64_t beat;
    bool stop;
    unsigned polls; /* ring_poll objects that exist */
    unsigned busy;  /* ring_io operations not yet done */
    struct ring_timer **heap;
    unsigned heap_count, heap_size;
    struct mail_queue deferred;
    pthread_mutex_t post_lock; /* guards `posted` */
    struct mail_queue posted;
    int post_fd;
    struct ring_watch post_watch;
};

/* --- mail ------------------------------------------------------------------------------------------------------ */

static void mail_init(struct mail_queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static void mail_append(struct mail_queue *queue, struct ring_mail *mail)
{
    mail->next = NULL;
    *queue->end = mail;
    queue->end = &mail->next;
}

/* Takes the whole queue, in order. */
static struct ring_mail *mail_take(struct mail_queue *queue)
{
    struct ring_mail *first = queue->first;
    mail_init(queue);
    return first;
}

static void mail_run(struct ring_mail *mail)
{
    while (mail) {
        struct ring_mail *next = mail->next; /* `run` may post or free it */
        mail->run(mail);
        mail = next;
    }
}

static void post_ready(struct ring_watch *watch, unsigned events)
{
    struct ring *ring = list_entry(watch, struct ring, post_watch);
    uint64_t count;
    if (read(ring->post_fd, &count, sizeof count) < 0)
        check(errno == EAGAIN || errno == EINTR);
    pthread_mutex_lock(&ring->post_lock);
    struct ring_mail *first = mail_take(&ring->posted);
    pthread_mutex_unlock(&ring->post_lock);
    mail_run(first);
}

void ring_post(struct ring *ring, struct ring_mail *mail)
{
    pthread_mutex_lock(&ring->post_lock);
    bool was_empty = !ring->posted.first;
    mail_append(&ring->posted, mail);
    /* Under the lock: once the mail has run, the ring may be freed. */
    if (was_empty)
        check(eventfd_write(ring->post_fd, 1) == 0);
    pthread_mutex_unlock(&ring->post_lock);
}

void ring_defer(struct ring *ring, struct ring_mail *mail)
{
    mail_append(&ring->deferred, mail);
}

/* --- submissions ----------------------------------------------------------------------------------------------- */

/* A full queue is handed to the kernel and is empty again. */
static struct io_uring_sqe *sqe_get(struct ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    for (int attempt = 0; !sqe; attempt++) {
        int result = io_uring_submit(&ring->uring);
        check(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR);
        check(attempt < SUBMIT_ATTEMPTS);
        sqe = io_uring_get_sqe(&ring->uring);
        if (!sqe)
            usleep(100);
    }
    return sqe;
}

/* After the prep function, which clears user_data in some versions of liburing. */
static void sqe_finish(struct io_uring_sqe *sqe, void *pointer, enum ring_tag tag)
{
    check(((uintptr_t)pointer & TAG_MASK) == 0);
    io_uring_sqe_set_data64(sqe, (uintptr_t)pointer | tag);
}

void ring_read(struct ring *ring, struct ring_io *io, int fd, void *data, size_t size, uint64_t offset)
{
    struct io_uring_sqe *sqe = sqe_get(ring);
    io->vector = (struct iovec){.iov_base = data, .iov_len = size};
    io_uring_prep_read(sqe, fd, data, (unsigned)size, offset);
    sqe_finish(sqe, io, TAG_IO);
    ring->busy++;
}

void ring_write(struct ring *ring, struct ring_io *io, int fd, const void *data, size_t size, uint64_t offset,
                bool durable)
{
    struct io_uring_sqe *sqe = sqe_get(ring);
    io->vector = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    io_uring_prep_write(sqe, fd, data, (unsigned)size, offset);
    sqe->rw_flags = durable ? RWF_DSYNC : 0;
    sqe_finish(sqe, io, TAG_IO);
    ring->busy++;
}

void ring_writev(struct ring *ring, struct ring_io *io, int fd, const struct iovec *vectors, unsigned count,
                 uint64_t offset, bool durable)
{
    struct io_uring_sqe *sqe = sqe_get(ring);
    io_uring_prep_writev2(sqe, fd, vectors, count, offset, durable ? RWF_DSYNC : 0);
    sqe_finish(sqe, io, TAG_IO);
    ring->busy++;
}

void ring_sync(struct ring *ring, struct ring_io *io, int fd)
{
    struct io_uring_sqe *sqe = sqe_get(ring);
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    sqe_finish(sqe, io, TAG_IO);
    ring->busy++;
}

/* --- readiness ------------------------------------------------------------------------------------------------- */

static void poll_arm(struct ring *ring, struct ring_poll *poll)
{
    struct io_uring_sqe *sqe = sqe_get(ring);
    io_uring_prep_poll_add(sqe, poll->watch->fd, poll->watch->events);
    sqe_finish(sqe, poll, TAG_POLL);
    poll->in_flight = true;
    poll->cancelling = false;
}

static void poll_cancel(struct ring *ring, struct ring_poll *poll)
{
    if (poll->cancelling)
        return;
    struct io_uring_sqe *sqe = sqe_get(ring);
    io_uring_prep_poll_remove(sqe, (uintptr_t)poll | TAG_POLL);
    sqe_finish(sqe, NULL, TAG_IGNORE);
    poll->cancelling = true;
}

static void poll_free(struct ring *ring, struct ring_poll *poll)
{
    check(!poll->in_flight && !poll->in_callback);
    ring->polls--;
    free(poll);
}

void ring_watch_start(struct ring *ring, struct ring_watch *watch, int fd, unsigned events)
{
    check(!watch->poll);
    struct ring_poll *poll = calloc(1, sizeof *poll);
    check(poll);
    ring->polls++;
    poll->watch = watch;
    watch->ring = ring;
    watch->fd = fd;
    watch->events = events;
    watch->poll = poll;
    if (events)
        poll_arm(ring, poll);
}

void ring_watch_change(struct ring_watch *watch, unsigned events)
{
    check(watch->poll);
    if (watch->events == events)
        return;
    watch->events = events;
    if (watch->poll->in_flight)
        poll_cancel(watch->ring, watch->poll); /* armed anew with the new events when it comes back */
    else if (events && !watch->poll->in_callback)
        poll_arm(watch->ring, watch->poll);
}

void ring_watch_stop(struct ring_watch *watch)
{
    struct ring_poll *poll = watch->poll;
    if (!poll)
        return;
    watch->poll = NULL;
    poll->watch = NULL;
    if (poll->in_flight)
        poll_cancel(watch->ring, poll);
    else if (!poll->in_callback)
        poll_free(watch->ring, poll);
}

static void poll_completed(struct ring *ring, struct ring_poll *poll, int result)
{
    poll->in_flight = false;
    poll->cancelling = false;
    /* What the caller no longer waits for is not reported; an error of the poll itself (a bad descriptor) is. */
    if (poll->watch && result != -ECANCELED) {
        unsigned events = result < 0 ? POLLERR : (unsigned)result & (poll->watch->events | POLLERR | POLLHUP);
        poll->in_callback = true;
        if (events && poll->watch->events)
            poll->watch->ready(poll->watch, events);
        poll->in_callback = false;
    }
    if (!poll->watch)
        poll_free(ring, poll);
    else if (poll->watch->events)
        poll_arm(ring, poll);
}

/* --- timers: a binary heap, earliest first, indices from 1 ----------------------------------------------------- */

static void heap_put(struct ring *ring, unsigned index, struct ring_timer *timer)
{
    ring->heap[index] = timer;
    timer->heap_index = index;
}

static void heap_sift_up(struct ring *ring, unsigned index, struct ring_timer *timer)
{
    while (index > 1 && ring->heap[index / 2]->deadline_ms > timer->deadline_ms) {
        heap_put(ring, index, ring->heap[index / 2]);
        index /= 2;
    }
    heap_put(ring, index, timer);
}

static void heap_sift_down(struct ring *ring, unsigned index, struct ring_timer *timer)
{
    for (;;) {
        unsigned child = index * 2;
        if (child > ring->heap_count)
            break;
        if (child < ring->heap_count && ring->heap[child + 1]->deadline_ms < ring->heap[child]->deadline_ms)
            child++;
        if (ring->heap[child]->deadline_ms >= timer->deadline_ms)
            break;
        heap_put(ring, index, ring->heap[child]);
        index = child;
    }
    heap_put(ring, index, timer);
}

void ring_timer_stop(struct ring_timer *timer)
{
    unsigned index = timer->heap_index;
    if (!index)
        return;
    struct ring *ring = timer->ring;
    check(index <= ring->heap_count && ring->heap[index] == timer);
    struct ring_timer *last = ring->heap[ring->heap_count--];
    timer->heap_index = 0;
    if (last == timer)
        return;
    if (index > 1 && ring->heap[index / 2]->deadline_ms > last->deadline_ms)
        heap_sift_up(ring, index, last);
    else
        heap_sift_down(ring, index, last);
}

void ring_timer_start(struct ring *ring, struct ring_timer *timer, uint64_t delay_ms)
{
    ring_timer_stop(timer);
    if (ring->heap_count + 1 >= ring->heap_size) {
        unsigned size = ring->heap_size ? ring->heap_size * 2 : 64;
        struct ring_timer **heap = realloc(ring->heap, size * sizeof *heap);
        check(heap);
        ring->heap = heap;
        ring->heap_size = size;
    }
    /* Counted from now, not from the start of the batch, and rounded up: a timer never expires early. */
    uint64_t now_ns = clock_boottime_ns();
    timer->ring = ring;
    timer->deadline_ms = delay_ms ? (now_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC + delay_ms : now_ns / NSEC_PER_MSEC;
    ring->heap_count++;
    heap_sift_up(ring, ring->heap_count, timer);
}

static void timers_expire(struct ring *ring)
{
    /* Those started by a callback with delay 0 wait for the next batch: others have their turn first. */
    unsigned most = ring->heap_count;
    while (most-- && ring->heap_count && ring->heap[1]->deadline_ms <= ring->now_ms) {
        struct ring_timer *timer = ring->heap[1];
        ring_timer_stop(timer);
        timer->expired(timer);
    }
}

/* --- the loop -------------------------------------------------------------------------------------------------- */

static uint64_t wait_ms(const struct ring *ring)
{
    if (ring->deferred.first || ring->stop)
        return 0;
    if (!ring->heap_count)
        return BEAT_MS;
    uint64_t now_ms = clock_boottime_ms(), deadline_ms = ring->heap[1]->deadline_ms;
    if (deadline_ms <= now_ms)
        return 0;
    return deadline_ms - now_ms < BEAT_MS ? deadline_ms - now_ms : BEAT_MS;
}

static int batch_wait(struct ring *ring)
{
    uint64_t timeout_ms = wait_ms(ring);
    if (timeout_ms == 0) { /* no sleep, not even the kernel's for a timeout of zero: that costs a context switch */
        int submitted = io_uring_submit_and_get_events(&ring->uring);
        bool busy = submitted == -EINTR || submitted == -EAGAIN || submitted == -EBUSY;
        return submitted < 0 && !busy ? submitted : 0;
    }
    struct __kernel_timespec timeout = {.tv_sec = 0, .tv_nsec = (long long)(timeout_ms * NSEC_PER_MSEC)};
    struct io_uring_cqe *cqe;
    int result = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, &timeout, NULL);
    if (result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY)
        return 0;
    return result < 0 ? result : 0;
}

static void batch_complete(struct ring *ring)
{
    struct io_uring_cqe *cqe;
    unsigned most = io_uring_cq_ready(&ring->uring);
    while (most-- && io_uring_peek_cqe(&ring->uring, &cqe) == 0 && cqe) {
        uint64_t data = cqe->user_data;
        int result = cqe->res;
        io_uring_cqe_seen(&ring->uring, cqe);
        void *pointer = (void *)(uintptr_t)(data & ~(uint64_t)TAG_MASK);
        switch ((enum ring_tag)(data & TAG_MASK)) {
        case TAG_IO:
            ring->busy--;
            ((struct ring_io *)pointer)->done(pointer, result);
            break;
        case TAG_POLL:
            poll_completed(ring, pointer, result);
            break;
        default:
            break;
        }
    }
}

static int batch_run(struct ring *ring)
{
    int result = batch_wait(ring);
    if (result < 0)
        return result;
    ring->now_ms = clock_boottime_ms();
    atomic_fetch_add_explicit(&ring->beat, 1, memory_order_relaxed);
    batch_complete(ring);
    timers_expire(ring);
    mail_run(mail_take(&ring->deferred));
    return 0;
}

int ring_run(struct ring *ring)
{
    int result = 0;
    while (!ring->stop && result == 0)
        result = batch_run(ring);
    ring->stop = false;
    return result;
}

void ring_stop(struct ring *ring)
{
    ring->stop = true;
}

uint64_t ring_now_ms(const struct ring *ring)
{
    return ring->now_ms;
}

uint64_t ring_beat(const struct ring *ring)
{
    return atomic_load_explicit(&ring->beat, memory_order_relaxed);
}

/* SUBMIT_ALL: one refused operation completes with its error and does not hold back those behind it. Without it (an
 * old kernel) the ring works as well. */
static int uring_init(struct io_uring *uring, unsigned entries)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE,
                                     .cq_entries = entries * 4};
    int result = io_uring_queue_init_params(entries, uring, &params);
    if (result != -EINVAL)
        return result;
    params = (struct io_uring_params){.flags = IORING_SETUP_CQSIZE, .cq_entries = entries * 4};
    return io_uring_queue_init_params(entries, uring, &params);
}

int ring_new(unsigned entries, struct ring **ret)
{
    struct ring *ring = calloc(1, sizeof *ring);
    if (!ring)
        return -ENOMEM;
    int result = uring_init(&ring->uring, entries);
    if (result < 0) {
        free(ring);
        return result;
    }
    ring->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ring->post_fd < 0) {
        result = -errno;
        io_uring_queue_exit(&ring->uring);
        free(ring);
        return result;
    }
    mail_init(&ring->deferred);
    mail_init(&ring->posted);
    pthread_mutex_init(&ring->post_lock, NULL);
    ring->now_ms = clock_boottime_ms();
    ring->post_watch.ready = post_ready;
    ring_watch_start(ring, &ring->post_watch, ring->post_fd, POLLIN);
    *ret = ring;
    return 0;
}

void ring_free(struct ring *ring)
{
    if (!ring)
        return;
    check(ring->busy == 0);
    ring_watch_stop(&ring->post_watch);
    /* Stopped watches whose cancellation is still under way. */
    while (ring->polls && batch_wait(ring) == 0)
        batch_complete(ring);
    check(ring->polls == 0);
    io_uring_queue_exit(&ring->uring);
    close(ring->post_fd);
    pthread_mutex_destroy(&ring->post_lock);
    free(ring->heap);
    free(ring);
}
