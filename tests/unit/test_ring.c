/* The ring: does each kind of event arrive, in order, once, and not after it was stopped? */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <fcntl.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/list.h"
#include "storaged/ring.h"

static struct ring *ring_make(unsigned entries)
{
    struct ring *ring = NULL;
    assert_int_equal(ring_new(entries, &ring), 0);
    return ring;
}

/* --- timers ------------------------------------------------------------------------------------------------------- */

struct clocked {
    struct ring_timer timer;
    struct ring *ring;
    uint64_t due_ms;
    unsigned *order, place;
    bool last;
};

static void clocked_expired(struct ring_timer *timer)
{
    struct clocked *clocked = list_entry(timer, struct clocked, timer);
    assert_true(clock_boottime_ms() >= clocked->due_ms);
    assert_int_equal((*clocked->order)++, clocked->place);
    if (clocked->last)
        ring_stop(clocked->ring);
}

static void timers_expire_in_order(void **state)
{
    struct ring *ring = ring_make(8);
    struct clocked timers[100];
    unsigned order = 0;
    for (unsigned index = 0; index < 100; index++) {
        unsigned place = index * 37 % 100;
        timers[index] = (struct clocked){
            .timer.expired = clocked_expired, .ring = ring, .order = &order, .place = place, .last = place == 99};
        timers[index].due_ms = clock_boottime_ms() + place * 2 + 1;
        ring_timer_start(ring, &timers[index].timer, place * 2 + 1);
    }
    assert_int_equal(ring_run(ring), 0);
    assert_int_equal(order, 100);
    ring_free(ring);
}

static void fail_expired(struct ring_timer *timer)
{
    fail_msg("a stopped timer expired");
}

static void stopped_and_moved_timers(void **state)
{
    struct ring *ring = ring_make(8);
    struct ring_timer stopped[20];
    memset(stopped, 0, sizeof stopped);
    unsigned order = 0;
    struct clocked end = {.timer.expired = clocked_expired, .ring = ring, .order = &order, .last = true};
    ring_timer_start(ring, &end.timer, 1);
    for (unsigned index = 0; index < 20; index++) {
        stopped[index].expired = fail_expired;
        ring_timer_start(ring, &stopped[index], index % 7);
    }
    end.due_ms = clock_boottime_ms() + 30;
    ring_timer_start(ring, &end.timer, 30); /* moves it */
    for (unsigned index = 0; index < 20; index++) {
        ring_timer_stop(&stopped[(index * 3) % 20]);
        ring_timer_stop(&stopped[(index * 3) % 20]); /* harmless */
    }
    assert_int_equal(ring_run(ring), 0);
    assert_int_equal(order, 1);
    ring_free(ring);
}

static void beats_without_events(void **state)
{
    struct ring *ring = ring_make(8);
    unsigned order = 0;
    struct clocked end = {.timer.expired = clocked_expired, .ring = ring, .order = &order, .last = true};
    uint64_t before = ring_beat(ring);
    ring_timer_start(ring, &end.timer, 450);
    assert_int_equal(ring_run(ring), 0);
    assert_true(ring_beat(ring) - before >= 4);
    assert_true(ring_beat(ring) - before < 50); /* and it does not spin */
    ring_free(ring);
}

/* --- disk I/O ----------------------------------------------------------------------------------------------------- */

struct disk_io {
    struct ring_io io;
    struct ring *ring;
    unsigned *left;
    int expected;
};

static void disk_done(struct ring_io *io, int result)
{
    struct disk_io *disk = list_entry(io, struct disk_io, io);
    assert_int_equal(result, disk->expected);
    if (--*disk->left == 0)
        ring_stop(disk->ring);
}

/* Far more in flight than the queue has entries. */
static void reads_and_writes_beyond_the_queue(void **state)
{
    enum { COUNT = 300 };
    struct ring *ring = ring_make(8);
    char path[] = "/tmp/hci-test-ring-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    static uint8_t data[COUNT][512], back[COUNT][512];
    static struct disk_io ios[COUNT];
    unsigned left = COUNT;
    for (unsigned index = 0; index < COUNT; index++) {
        memset(data[index], (int)index, sizeof data[index]);
        ios[index] = (struct disk_io){.io.done = disk_done, .ring = ring, .left = &left, .expected = 512};
        ring_write(ring, &ios[index].io, fd, data[index], 512, index * 512, index % 2);
    }
    assert_int_equal(ring_run(ring), 0);
    left = COUNT;
    for (unsigned index = 0; index < COUNT; index++)
        ring_read(ring, &ios[index].io, fd, back[index], 512, index * 512);
    assert_int_equal(ring_run(ring), 0);
    assert_memory_equal(data, back, sizeof data);

    struct iovec vectors[2] = {{data[7], 512}, {data[9], 512}};
    struct disk_io vector = {.io.done = disk_done, .ring = ring, .left = &left, .expected = 1024};
    struct disk_io sync = {.io.done = disk_done, .ring = ring, .left = &left, .expected = 0};
    struct disk_io wrong = {.io.done = disk_done, .ring = ring, .left = &left, .expected = -9 /* EBADF */};
    left = 3;
    ring_writev(ring, &vector.io, fd, vectors, 2, 0, true);
    ring_sync(ring, &sync.io, fd);
    ring_read(ring, &wrong.io, 999999, back[0], 512, 0);
    assert_int_equal(ring_run(ring), 0);
    assert_int_equal(pread(fd, back, 1024, 0), 1024);
    assert_memory_equal(back[1], data[9], 512);
    close(fd);
    ring_free(ring);
}

/* --- readiness ---------------------------------------------------------------------------------------------------- */

struct reader {
    struct ring_watch watch;
    struct ring *ring;
    int fd;
    unsigned calls, wanted, last_events;
    bool take; /* reads a byte per call */
    bool stop_inside;
};

static void reader_ready(struct ring_watch *watch, unsigned events)
{
    struct reader *reader = list_entry(watch, struct reader, watch);
    char byte;
    reader->last_events = events;
    if (reader->take && (events & POLLIN))
        assert_int_equal(read(reader->fd, &byte, 1), 1);
    if (++reader->calls < reader->wanted)
        return;
    if (reader->stop_inside)
        ring_watch_stop(watch);
    ring_stop(reader->ring);
}

static void run_ms(struct ring *ring, uint64_t delay_ms)
{
    unsigned order = 0;
    struct clocked end = {.timer.expired = clocked_expired, .ring = ring, .order = &order, .last = true};
    ring_timer_start(ring, &end.timer, delay_ms);
    assert_int_equal(ring_run(ring), 0);
    ring_timer_stop(&end.timer);
}

static void watch_is_level_triggered(void **state)
{
    struct ring *ring = ring_make(8);
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct reader reader = {.watch.ready = reader_ready, .ring = ring, .fd = pair[0], .wanted = 5, .take = true};
    ring_watch_start(ring, &reader.watch, pair[0], POLLIN);
    assert_int_equal(write(pair[1], "12345", 5), 5); /* one event, five calls */
    assert_int_equal(ring_run(ring), 0);
    assert_int_equal(reader.calls, 5);

    ring_watch_change(&reader.watch, 0); /* paused: nothing although there is something to read */
    assert_int_equal(write(pair[1], "6", 1), 1);
    run_ms(ring, 20);
    assert_int_equal(reader.calls, 5);

    reader.wanted = 6;
    ring_watch_change(&reader.watch, POLLIN);
    assert_int_equal(ring_run(ring), 0);

    reader.wanted = 7;
    ring_watch_change(&reader.watch, POLLIN | POLLOUT);
    assert_int_equal(ring_run(ring), 0);
    assert_int_equal(reader.last_events, POLLOUT);

    ring_watch_change(&reader.watch, POLLIN);
    run_ms(ring, 10);
    unsigned calls = reader.calls;
    reader.wanted = calls + 1;
    close(pair[1]); /* hang-up is told although not asked for */
    reader.take = false;
    reader.stop_inside = true;
    assert_int_equal(ring_run(ring), 0);
    assert_true(reader.last_events & POLLHUP);
    run_ms(ring, 20);
    assert_int_equal(reader.calls, calls + 1); /* stopped from inside */
    ring_watch_stop(&reader.watch);            /* harmless */
    close(pair[0]);
    ring_free(ring);
}

/* The memory and the descriptor go while the kernel still polls; the ring must not touch them (run with asan). */
static void watch_stops_in_flight(void **state)
{
    struct ring *ring = ring_make(8);
    for (unsigned round = 0; round < 50; round++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        struct reader *reader = calloc(1, sizeof *reader);
        reader->watch.ready = reader_ready;
        reader->ring = ring;
        reader->fd = pair[0];
        ring_watch_start(ring, &reader->watch, pair[0], POLLIN);
        if (round % 3 == 0)
            run_ms(ring, 1);
        if (round % 2)
            ring_watch_change(&reader->watch, POLLIN | POLLPRI);
        if (round % 5 == 0)
            assert_int_equal(write(pair[1], "x", 1), 1);
        ring_watch_stop(&reader->watch);
        free(reader);
        close(pair[0]);
        close(pair[1]);
    }
    ring_free(ring);
}

/* --- mail --------------------------------------------------------------------------------------------------------- */

struct letter {
    struct ring_mail mail;
    struct ring *ring;
    unsigned *count, number, most;
};

static void letter_run(struct ring_mail *mail)
{
    struct letter *letter = list_entry(mail, struct letter, mail);
    assert_int_equal(letter->number, (*letter->count)++);
    if (*letter->count == letter->most)
        ring_stop(letter->ring);
}

static void *post_all(void *letters)
{
    for (struct letter *letter = letters; letter->ring; letter++)
        ring_post(letter->ring, &letter->mail);
    return NULL;
}

static void mail_from_another_thread(void **state)
{
    enum { COUNT = 10000 };
    static struct letter letters[COUNT + 1];
    struct ring *ring = ring_make(8);
    unsigned count = 0;
    for (unsigned index = 0; index < COUNT; index++)
        letters[index] = (struct letter){
            .mail.run = letter_run, .ring = ring, .count = &count, .number = index, .most = COUNT};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_all, letters), 0);
    assert_int_equal(ring_run(ring), 0);
    pthread_join(thread, NULL);
    assert_int_equal(count, COUNT);
    ring_free(ring);
}

static void deferred_mail_comes_after(void **state)
{
    struct ring *ring = ring_make(8);
    unsigned count = 0;
    struct letter letters[3];
    for (unsigned index = 0; index < 3; index++) {
        letters[index] = (struct letter){
            .mail.run = letter_run, .ring = ring, .count = &count, .number = index, .most = 3};
        ring_defer(ring, &letters[index].mail);
    }
    assert_int_equal(count, 0);
    uint64_t start_ms = clock_boottime_ms();
    assert_int_equal(ring_run(ring), 0);
    assert_true(clock_boottime_ms() - start_ms < 90); /* it does not sleep over it */
    ring_free(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_expire_in_order),
        cmocka_unit_test(stopped_and_moved_timers),
        cmocka_unit_test(beats_without_events),
        cmocka_unit_test(reads_and_writes_beyond_the_queue),
        cmocka_unit_test(watch_is_level_triggered),
        cmocka_unit_test(watch_stops_in_flight),
        cmocka_unit_test(mail_from_another_thread),
        cmocka_unit_test(deferred_mail_comes_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
