/* The pool under SIGKILL: a process writes at random and tells through a pipe what it submitted, what was done and what
 * it committed; it is killed at a random moment. What was done must be there, and dirty unless committed. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "tests/unit/pool_lab.h"

#define BLOCKS 6144u
#define VOLUME_BYTES (BLOCKS * 4096ull)
#define WRITERS 24u
#define ROUNDS 14u
#define COUNT_MAX 257u

enum event_kind { EVENT_SUBMIT, EVENT_DONE, EVENT_COMMIT };

struct event {
    uint32_t kind;
    uint32_t block, count;
    uint32_t version; /* a multiple of 5: zeros */
    uint64_t sequence; /* 0: a dirty write */
};

struct block_state {
    uint32_t acknowledged, submitted; /* versions */
    uint64_t sequence;                /* of the acknowledged one, this round */
    bool must_be_dirty;
};

static struct block_state blocks[BLOCKS];
static uint32_t next_version = 1;

static void block_expected(uint8_t *data, uint64_t block, uint32_t version)
{
    lab_fill(data, block, version % 5 ? version : 0);
}

/* --- the process that is killed -------------------------------------------------------------------------------------
 */

struct writer {
    struct pool_io io;
    struct killed *killed;
    uint32_t version;
    bool busy;
};

struct killed {
    struct lab *lab;
    int pipe;
    struct id session;
    uint64_t sequence;
    struct writer writers[WRITERS];
};

static void tell(struct killed *killed, enum event_kind kind, const struct writer *writer, uint64_t sequence)
{
    struct event event = {.kind = kind, .sequence = sequence};
    if (writer) {
        event.block = (uint32_t)writer->io.block;
        event.count = writer->io.count;
        event.version = writer->version;
    }
    check(write(killed->pipe, &event, sizeof event) == sizeof event);
}

static bool range_is_busy(const struct killed *killed, uint64_t block, uint32_t count)
{
    for (unsigned index = 0; index < WRITERS; index++) {
        const struct pool_io *io = &killed->writers[index].io;
        if (killed->writers[index].busy && io->block < block + count && block < io->block + io->count)
            return true;
    }
    return false;
}

static void writer_next(struct writer *writer)
{
    struct killed *killed = writer->killed;
    struct pool_io *io = &writer->io;
    do {
        io->count = random() % 16 ? 1 + (uint32_t)random() % 12 : 1 + (uint32_t)random() % COUNT_MAX;
        io->block = (uint32_t)random() % (BLOCKS - io->count + 1);
    } while (range_is_busy(killed, io->block, io->count));
    writer->busy = true;
    writer->version = next_version++;
    io->dirty = random() % 2;
    io->session = io->dirty ? (struct id){0} : killed->session;
    io->sequence = io->dirty ? 0 : ++killed->sequence;
    for (uint32_t index = 0; index < io->count; index++)
        block_expected(io->data + (size_t)index * 4096, io->block + index, writer->version);
    tell(killed, EVENT_SUBMIT, writer, io->sequence);
    if (writer->version % 5)
        pool_write(killed->lab->pool, io);
    else
        pool_zero(killed->lab->pool, io);
}

/* Commits up to below the oldest that is not done, sometimes. */
static void commit_some(struct killed *killed)
{
    uint64_t upto = killed->sequence;
    for (unsigned index = 0; index < WRITERS; index++) {
        const struct pool_io *io = &killed->writers[index].io;
        if (killed->writers[index].busy && io->sequence && io->sequence <= upto)
            upto = io->sequence - 1;
    }
    tell(killed, EVENT_COMMIT, NULL, upto);
    pool_session_commit(killed->lab->pool, &killed->lab->group, upto);
}

static void writer_done(struct pool_io *io, int result)
{
    struct writer *writer = (struct writer *)io;
    check(result == 0);
    tell(writer->killed, EVENT_DONE, writer, io->sequence);
    memset(io->data, 0xcc, (size_t)io->count * 4096);
    writer->busy = false;
    if (random() % 4 == 0)
        commit_some(writer->killed);
    writer_next(writer);
}

static void kill_me_now(struct lab *lab, int pipe, unsigned seed)
{
    static struct killed killed;
    srandom(seed);
    lab_open(lab);
    killed = (struct killed){.lab = lab, .pipe = pipe, .session = id_random()};
    pool_session_begin(lab->pool, &lab->group, &killed.session);
    for (unsigned index = 0; index < WRITERS; index++) {
        struct writer *writer = &killed.writers[index];
        *writer = (struct writer){.killed = &killed};
        writer->io = (struct pool_io){.done = writer_done, .volume = lab_volume(lab), .data = lab_buffer(COUNT_MAX)};
        writer_next(writer);
    }
    ring_run(lab->ring);
}

/* --- the one that kills and looks ------------------------------------------------------------------------------------
 */

static void sleep_ms(long delay_ms)
{
    struct timespec delay = {delay_ms / 1000, delay_ms % 1000 * 1000000};
    nanosleep(&delay, NULL);
}

static void event_take(const struct event *event)
{
    for (uint32_t block = event->block; block < event->block + event->count; block++) {
        struct block_state *state = &blocks[block];
        if (event->kind == EVENT_SUBMIT) {
            state->submitted = event->version;
        } else {
            state->acknowledged = event->version;
            state->sequence = event->sequence;
            state->must_be_dirty |= event->sequence == 0;
        }
    }
    if (event->kind == EVENT_SUBMIT && event->version >= next_version)
        next_version = event->version + 1;
}

/* Returns the highest commit told. */
static uint64_t events_read(int pipe, unsigned *ret_done)
{
    struct event event;
    uint64_t commit = 0;
    while (read(pipe, &event, sizeof event) == sizeof event) {
        *ret_done += event.kind == EVENT_DONE;
        if (event.kind == EVENT_COMMIT)
            commit = event.sequence > commit ? event.sequence : commit;
        else
            event_take(&event);
    }
    return commit;
}

static void kill_after(pid_t child, long delay_ms)
{
    int status;
    sleep_ms(delay_ms);
    kill(child, SIGKILL);
    check(waitpid(child, &status, 0) == child);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The pipe holds little: a process of its own would be more, so the reader drains while the writer lives. */
static uint64_t round_run(struct lab *lab, unsigned seed, unsigned *ret_done)
{
    int fds[2];
    check(pipe(fds) == 0);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        close(fds[0]);
        kill_me_now(lab, fds[1], seed);
        _exit(1);
    }
    close(fds[1]);
    pid_t killer = fork();
    check(killer >= 0);
    if (killer == 0) {
        sleep_ms(30 + (long)(seed * 7919u % 400));
        kill(child, SIGKILL);
        _exit(0);
    }
    uint64_t commit = events_read(fds[0], ret_done);
    close(fds[0]);
    int status;
    check(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    check(waitpid(killer, &status, 0) == killer);
    return commit;
}

/* Killed while it replays. */
static void replay_interrupt(struct lab *lab, unsigned seed)
{
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        lab_open(lab);
        for (;;)
            pause();
    }
    kill_after(child, 1 + (long)(seed % 12));
}

static bool is_dirty(struct lab *lab, uint64_t block)
{
    uint64_t found;
    return pool_dirty_next(lab->pool, lab_volume(lab), block, 1, &found) && found == block;
}

static void block_verify(struct lab *lab, uint32_t block, const uint8_t *data)
{
    struct block_state *state = &blocks[block];
    uint8_t expected[4096];
    block_expected(expected, block, state->acknowledged);
    bool is_acknowledged = memcmp(data, expected, sizeof expected) == 0;
    if (!is_acknowledged && state->submitted > state->acknowledged) {
        block_expected(expected, block, state->submitted);
        if (memcmp(data, expected, sizeof expected) == 0) {
            state->acknowledged = state->submitted; /* it had become durable, nobody had been told */
            assert_true(is_dirty(lab, block));
            is_acknowledged = true;
        }
    }
    if (!is_acknowledged)
        fail_msg("block %u: neither version %u nor %u", block, state->acknowledged, state->submitted);
    if (state->must_be_dirty && !is_dirty(lab, block))
        fail_msg("block %u: may differ from the peer, no mark", block);
}

static void round_verify(struct lab *lab, uint64_t commit)
{
    uint8_t *data = lab_buffer(256);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        blocks[block].must_be_dirty |= blocks[block].sequence > commit;
        if (block % 256 == 0)
            assert_int_equal(lab_read(lab, block, 256, data), 0);
        block_verify(lab, block, data + (size_t)(block % 256) * 4096);
    }
    free(data);
    pool_dirty_clear(lab->pool, lab_volume(lab), 0, BLOCKS);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        blocks[block].submitted = blocks[block].acknowledged;
        blocks[block].sequence = 0;
        blocks[block].must_be_dirty = false;
    }
}

static void acknowledged_survives(void **unused)
{
    struct lab lab;
    unsigned done = 0;
    lab_make(&lab, 2, 4ull << 20);
    lab_open(&lab);
    assert_int_equal(lab_create_volume(&lab, &lab.volume, VOLUME_BYTES), 0);
    lab_close(&lab);
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    for (unsigned round = 0; round < ROUNDS; round++, seed++) {
        uint64_t commit = round_run(&lab, seed, &done);
        for (unsigned times = seed % 3; times > 0; times--)
            replay_interrupt(&lab, seed * times);
        lab_open(&lab);
        round_verify(&lab, commit);
        lab_close(&lab);
    }
    print_message("%u writes were done\n", done);
    assert_true(done > 100);
    lab_remove(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acknowledged_survives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
