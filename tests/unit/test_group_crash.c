/* One of two nodes is killed (SIGKILL) under load, as secondary and as primary, again and again: what was acknowledged is
 * there, and only what may differ is copied. The killed node is a process of its own. */
#include <sys/prctl.h>

#include "pair_lab.h"

#define VOLUME_BYTES ((uint64_t)16 << 20)
#define BLOCKS (VOLUME_BYTES / 4096)
#define WRITERS 4
#define SLOTS 64 /* blocks per writer */

/* ---- node b in a process; forked from one that never had a thread ------------------------------------------------------------ */

struct zygote {
    int commands, answers;
    pid_t pid, node;
};

/* SIGUSR1, SIGUSR2: node a is suspect, is heard. SIGTERM: stop in order. */
static void run_node(struct lab_node *node)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    lab_start(node);
    for (;;) {
        int signal_number;
        sigwait(&signals, &signal_number);
        if (signal_number == SIGTERM)
            break;
        lab_hear(node, signal_number == SIGUSR2);
    }
    lab_stop(node);
    _exit(0);
}

static void run_zygote(struct lab *lab, int commands, int answers)
{
    char command;
    while (read(commands, &command, 1) == 1) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            run_node(&lab->nodes[1]);
        }
        if (write(answers, &pid, sizeof pid) != sizeof pid)
            break;
        waitpid(pid, NULL, 0);
        if (write(answers, &pid, sizeof pid) != sizeof pid)
            break;
    }
    _exit(0);
}

static void zygote_begin(struct zygote *zygote, struct lab *lab)
{
    int to[2], from[2];
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    zygote->pid = fork();
    if (zygote->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing behind */
        close(to[1]);
        run_zygote(lab, to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    zygote->commands = to[1];
    zygote->answers = from[0];
}

static void zygote_start(struct zygote *zygote)
{
    assert_int_equal(write(zygote->commands, "s", 1), 1);
    assert_int_equal(read(zygote->answers, &zygote->node, sizeof zygote->node), sizeof zygote->node);
}

static void zygote_stop(struct zygote *zygote, struct lab *lab, int signal_number)
{
    pid_t gone;
    assert_int_equal(kill(zygote->node, signal_number), 0);
    assert_int_equal(read(zygote->answers, &gone, sizeof gone), sizeof gone);
    lab->nodes[1].alive = false;
}

static void zygote_end(struct zygote *zygote)
{
    close(zygote->commands);
    close(zygote->answers);
    waitpid(zygote->pid, NULL, 0);
}

/* ---- load -------------------------------------------------------------------------------------------------------------------- */

struct writer {
    struct lab_node *node;
    unsigned index;
    _Atomic bool stop;
    _Atomic unsigned written;
    uint64_t done[SLOTS];  /* the last acknowledged */
    uint64_t begun[SLOTS]; /* the last tried */
    uint64_t next;
};

static void fill(uint64_t *data, uint64_t value)
{
    for (unsigned i = 0; i < 512; i++)
        data[i] = value;
}

static void *write_on(void *argument)
{
    struct writer *writer = argument;
    uint64_t *data = aligned_alloc(4096, 4096);
    while (!writer->stop) {
        uint64_t value = ++writer->next, slot = value * 7 % SLOTS, block = slot * WRITERS + writer->index;
        fill(data, value);
        writer->begun[slot] = value;
        if (lab_io_again(writer->node, "vol", LUN_WRITE, block * 8, 8, data) != LUN_OK)
            break;
        writer->done[slot] = value;
        writer->written++;
    }
    free(data);
    return NULL;
}

static void check_block(const uint64_t *data, const struct writer *writer, unsigned slot, const char *where)
{
    for (unsigned i = 1; i < 512; i++)
        if (data[i] != data[0])
            fail_msg("%s: writer %u slot %u: a torn block", where, writer->index, slot);
    if (data[0] != writer->done[slot] && data[0] != writer->begun[slot])
        fail_msg("%s: writer %u slot %u: %llu is there, %llu was acknowledged", where, writer->index, slot, (unsigned long long)data[0],
                 (unsigned long long)writer->done[slot]);
}

static void check_node(struct lab_node *node, const struct id *volume, const struct writer *writers)
{
    uint64_t *data = aligned_alloc(4096, 4096);
    for (unsigned w = 0; w < WRITERS; w++)
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            lab_raw_read(node, volume, slot * WRITERS + w, 1, (uint8_t *)data);
            check_block(data, &writers[w], slot, node->index ? "node b" : "node a");
        }
    free(data);
}

static void start_writers(struct writer *writers, pthread_t *threads)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i].stop = false;
        writers[i].written = 0;
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    }
}

static void stop_writers(struct writer *writers, pthread_t *threads)
{
    for (unsigned i = 0; i < WRITERS; i++)
        writers[i].stop = true;
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(writers[i].written > 10);
    }
}

/* ---- the story ----------------------------------------------------------------------------------------------------------------- */

/* b dies, a goes on alone, b returns. */
static void kill_b(struct lab *lab, struct zygote *zygote, struct writer *writers)
{
    pthread_t threads[WRITERS];
    start_writers(writers, threads);
    usleep(100000);
    zygote_stop(zygote, lab, SIGKILL);
    lab_hear(&lab->nodes[0], false);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_SOLE);
    usleep(50000);
    unsigned resyncs = lab->nodes[0].resyncs_done;
    zygote_start(zygote);
    lab_hear(&lab->nodes[0], true);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_PRIMARY);
    usleep(50000);
    stop_writers(writers, threads);
    assert_true(lab->nodes[0].resyncs_done > resyncs);
}

/* a stops in order and comes back: b is the primary now. */
static void make_b_primary(struct lab *lab, struct zygote *zygote)
{
    lab_stop(&lab->nodes[0]);
    assert_int_equal(kill(zygote->node, SIGUSR1), 0);
    usleep(500000);
    lab_start(&lab->nodes[0]);
    assert_int_equal(kill(zygote->node, SIGUSR2), 0);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_SECONDARY);
}

/* Both copies, as b's process left its own. */
static void compare(struct lab *lab, struct zygote *zygote, const struct id *volume, const struct writer *writers)
{
    zygote_stop(zygote, lab, SIGTERM);
    lab_start(&lab->nodes[1]);
    check_node(&lab->nodes[0], volume, writers);
    check_node(&lab->nodes[1], volume, writers);
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_PRIMARY);
    lab_assert_equal_copies(lab, volume, BLOCKS);
    check_node(&lab->nodes[1], volume, writers);
}

static void test_kills(void **state)
{
    struct lab *lab = lab_new((uint16_t)(32000 + getpid() % 200));
    struct zygote zygote;
    static struct writer writers[WRITERS];
    zygote_begin(&zygote, lab);
    lab_start(&lab->nodes[0]);
    zygote_start(&zygote);
    struct id volume = lab_create(lab, 0, "vol", VOLUME_BYTES);
    for (unsigned i = 0; i < WRITERS; i++)
        writers[i] = (struct writer){.node = &lab->nodes[0], .index = i};
    lab_wait_role(&lab->nodes[0], "vol", AUTHORITY_PRIMARY);
    for (unsigned round = 0; round < 3; round++) {
        kill_b(lab, &zygote, writers); /* as secondary */
        print_message("round %u: b killed as secondary: %llu bytes copied\n", round, (unsigned long long)lab->nodes[0].resync_copied);
        make_b_primary(lab, &zygote);
        kill_b(lab, &zygote, writers); /* as primary: a takes over, b comes back to be resynced */
        print_message("round %u: b killed as primary: %llu bytes copied\n", round, (unsigned long long)lab->nodes[0].resync_copied);
        /* What was written alone, some of it once more while it was copied; not the volume. */
        assert_true(lab->nodes[0].resync_copied < 2 * WRITERS * SLOTS * 4096);
    }
    compare(lab, &zygote, &volume, writers);
    zygote_end(&zygote);
    lab_free(lab);
}

int main(void)
{
    log_init("crash", getenv("PAIR_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kills)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
