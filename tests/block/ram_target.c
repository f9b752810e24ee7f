/* An iSCSI target whose one volume is in memory: for judging the target by hand with qemu-img, iscsi-test-cu and others.
 * Usage: ram_target ADDR:PORT NAME MEBIBYTES [CHAP-USER CHAP-SECRET]; ends on SIGINT or SIGTERM. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/log.h"
#include "storaged/iscsi/iscsi_target.h"
#include "tests/block/ram_lun.h"

struct program {
    struct ring *ring;
    struct iobuf_arena *arena;
    struct lun_table *table;
    struct iscsi_target *target;
    struct ram_lun ram;
    struct ring_watch signals;
    struct ring_timer draining;
    int signal_fd;
};

static void drained(struct ring_timer *timer)
{
    struct program *program = list_entry(timer, struct program, draining);
    struct iscsi_target_stats stats;
    iscsi_target_get_stats(program->target, &stats);
    if (stats.sessions || stats.connections) {
        ring_timer_start(program->ring, timer, 10);
        return;
    }
    printf("%lu logins, %lu refused, %lu commands, %lu bytes read, %lu written, %lu protocol errors, %lu waits for memory\n",
           stats.logins, stats.logins_refused, stats.commands, stats.bytes_read, stats.bytes_written, stats.protocol_errors,
           stats.memory_waits);
    ring_stop(program->ring);
}

static void signalled(struct ring_watch *watch, unsigned events)
{
    struct program *program = list_entry(watch, struct program, signals);
    ring_watch_stop(watch);
    iscsi_target_stop(program->target);
    ring_timer_start(program->ring, &program->draining, 1);
}

static void watch_signals(struct program *program)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    program->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    program->signals.ready = signalled;
    program->draining.expired = drained;
    ring_watch_start(program->ring, &program->signals, program->signal_fd, POLLIN);
}

int main(int argc, char **argv)
{
    static struct program program;
    struct iscsi_target_options options = {.port_group = 1, .memory_bytes = 64u << 20};
    struct err err;
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: %s ADDR:PORT NAME MEBIBYTES [CHAP-USER CHAP-SECRET]\n", argv[0]);
        return 2;
    }
    log_init("ram_target", LOG_LEVEL_INFO);
    if (ring_new(256, &program.ring) < 0 || iobuf_arena_new(128u << 20, &program.arena) < 0)
        return 1;
    program.table = lun_table_new();
    if (ram_lun_open(&program.ram, program.ring, argv[2], strtoull(argv[3], NULL, 10) << 20) < 0)
        return 1;
    if (argc == 6) {
        snprintf(program.ram.user, sizeof(program.ram.user), "%s", argv[4]);
        snprintf(program.ram.secret, sizeof(program.ram.secret), "%s", argv[5]);
    }
    lun_table_add(program.table, &program.ram.lun);
    if (iscsi_target_new(program.ring, program.arena, program.table, &options, &program.target) < 0)
        return 1;
    if (iscsi_target_listen(program.target, argv[1], &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    watch_signals(&program);
    int r = ring_run(program.ring);
    iscsi_target_free(program.target);
    lun_table_remove(program.table, &program.ram.lun);
    ram_lun_close(&program.ram);
    lun_table_free(program.table);
    iobuf_arena_free(program.arena);
    ring_free(program.ring);
    close(program.signal_fd);
    return r < 0;
}
