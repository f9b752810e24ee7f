/* Many initiators at once: are they served without error, and fairly? Every session keeps DEPTH random 4 KiB commands
 * under way, half of them writes; the slowest is compared with the median.
 * Usage: sessions SESSIONS DEPTH SECONDS URL...   (iscsi://HOST:PORT/IQN/LUN; sessions take the URLs in turn) */
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/clock.h"

#define SESSIONS_MAX 1024u
#define DEPTH_MAX 128u
#define IO_SIZE 4096u
#define SECTOR_SIZE 512u
#define LOGIN_MS 30000u

struct session {
    struct bench *bench;
    struct iscsi_context *iscsi;
    struct iscsi_url *url;
    uint64_t blocks; /* of IO_SIZE */
    uint64_t done, slowest_ns;
    unsigned pending;
    bool ready;
};

struct operation {
    struct session *session;
    uint64_t started_ns;
};

struct bench {
    unsigned count, depth, ready;
    uint64_t start_ns, end_ns, errors;
    bool running;
    struct session sessions[SESSIONS_MAX];
    struct operation operations[SESSIONS_MAX * DEPTH_MAX];
    struct pollfd polls[SESSIONS_MAX];
    uint8_t data[IO_SIZE];
};

static void say_error(struct session *session, const char *what)
{
    if (session->bench->errors++ < 10)
        fprintf(stderr, "session %ld: %s: %s\n", (long)(session - session->bench->sessions), what, iscsi_get_error(session->iscsi));
}

static void submit(struct operation *operation);

static void landed(struct iscsi_context *iscsi, int status, void *data, void *userdata)
{
    struct operation *operation = userdata;
    struct session *session = operation->session;
    uint64_t now_ns = clock_boottime_ns(), took_ns = now_ns - operation->started_ns;
    session->pending--;
    if (status != SCSI_STATUS_GOOD)
        say_error(session, "a command failed");
    else if (now_ns < session->bench->end_ns)
        session->done++;
    if (took_ns > session->slowest_ns)
        session->slowest_ns = took_ns;
    scsi_free_scsi_task(data);
    if (now_ns < session->bench->end_ns && status == SCSI_STATUS_GOOD)
        submit(operation);
}

static void submit(struct operation *operation)
{
    struct session *session = operation->session;
    uint64_t sector = (uint64_t)random() % session->blocks * (IO_SIZE / SECTOR_SIZE);
    struct scsi_task *task;
    operation->started_ns = clock_boottime_ns();
    if (random() & 1)
        task = iscsi_write16_task(session->iscsi, session->url->lun, sector, session->bench->data, IO_SIZE, SECTOR_SIZE, 0, 0, 0, 0, 0,
                                  landed, operation);
    else
        task = iscsi_read16_task(session->iscsi, session->url->lun, sector, IO_SIZE, SECTOR_SIZE, 0, 0, 0, 0, 0, landed, operation);
    if (task)
        session->pending++;
    else
        say_error(session, "a command cannot be sent");
}

/* --- logging in ----------------------------------------------------------------------------------------------------- */

static void capacity_known(struct iscsi_context *iscsi, int status, void *data, void *userdata)
{
    struct session *session = userdata;
    struct scsi_readcapacity16 *capacity = status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(data) : NULL;
    if (capacity) {
        session->blocks = (capacity->returned_lba + 1) * capacity->block_length / IO_SIZE;
        session->ready = true;
        session->bench->ready++;
    } else {
        say_error(session, "READ CAPACITY failed");
    }
    scsi_free_scsi_task(data);
}

/* Takes the unit attention of a new session, too. */
static void connected(struct iscsi_context *iscsi, int status, void *data, void *userdata)
{
    struct session *session = userdata;
    if (status != SCSI_STATUS_GOOD || !iscsi_readcapacity16_task(iscsi, session->url->lun, capacity_known, session))
        say_error(session, "login failed");
}

static bool log_in(struct bench *bench, struct session *session, const char *url)
{
    char name[96];
    snprintf(name, sizeof name, "iqn.2026-01.io.hci:bench.%ld", (long)(session - bench->sessions));
    session->bench = bench;
    session->iscsi = iscsi_create_context(name);
    session->url = session->iscsi ? iscsi_parse_full_url(session->iscsi, url) : NULL;
    if (!session->url)
        return false;
    iscsi_set_targetname(session->iscsi, session->url->target);
    iscsi_set_session_type(session->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_noautoreconnect(session->iscsi, 1);
    if (session->url->user[0])
        iscsi_set_initiator_username_pwd(session->iscsi, session->url->user, session->url->passwd);
    return iscsi_full_connect_async(session->iscsi, session->url->portal, session->url->lun, connected, session) == 0;
}

/* --- the loop --------------------------------------------------------------------------------------------------------- */

static void turn(struct bench *bench)
{
    for (unsigned i = 0; i < bench->count; i++)
        bench->polls[i] = (struct pollfd){.fd = iscsi_get_fd(bench->sessions[i].iscsi),
                                          .events = (short)iscsi_which_events(bench->sessions[i].iscsi)};
    poll(bench->polls, bench->count, 100);
    for (unsigned i = 0; i < bench->count; i++) {
        struct session *session = &bench->sessions[i];
        if (bench->polls[i].revents && iscsi_service(session->iscsi, bench->polls[i].revents) < 0)
            say_error(session, "the connection broke");
    }
}

static unsigned pending(const struct bench *bench)
{
    unsigned count = 0;
    for (unsigned i = 0; i < bench->count; i++)
        count += bench->sessions[i].pending;
    return count;
}

static void run(struct bench *bench, unsigned seconds)
{
    bench->start_ns = clock_boottime_ns();
    bench->end_ns = bench->start_ns + seconds * NSEC_PER_SEC;
    for (unsigned i = 0; i < bench->count * bench->depth; i++) {
        bench->operations[i].session = &bench->sessions[i % bench->count];
        submit(&bench->operations[i]);
    }
    while (pending(bench) && bench->errors == 0 && clock_boottime_ns() < bench->end_ns + 30 * NSEC_PER_SEC)
        turn(bench);
    bench->errors += pending(bench);
}

static int compare(const void *left, const void *right)
{
    uint64_t l = *(const uint64_t *)left, r = *(const uint64_t *)right;
    return l < r ? -1 : l > r;
}

static bool report(const struct bench *bench, unsigned seconds)
{
    static uint64_t done[SESSIONS_MAX];
    uint64_t total = 0, slowest_ns = 0;
    for (unsigned i = 0; i < bench->count; i++) {
        done[i] = bench->sessions[i].done;
        total += done[i];
        if (bench->sessions[i].slowest_ns > slowest_ns)
            slowest_ns = bench->sessions[i].slowest_ns;
    }
    qsort(done, bench->count, sizeof done[0], compare);
    uint64_t median = done[bench->count / 2];
    printf("%u sessions, depth %u: %.0f operations/s; per session least %lu, median %lu, most %lu; longest %.1f ms; %lu errors\n",
           bench->count, bench->depth, (double)total / seconds, done[0], median, done[bench->count - 1], (double)slowest_ns / 1e6,
           bench->errors);
    return bench->errors == 0 && done[0] * 2 >= median && median > 0;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    unsigned seconds = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
    bench.count = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    bench.depth = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    if (argc < 5 || bench.count - 1 >= SESSIONS_MAX || bench.depth - 1 >= DEPTH_MAX || seconds == 0) {
        fprintf(stderr, "usage: %s SESSIONS DEPTH SECONDS URL...  (at most %u sessions, depth %u)\n", argv[0], SESSIONS_MAX, DEPTH_MAX);
        return 2;
    }
    uint64_t deadline_ms = clock_boottime_ms() + LOGIN_MS;
    for (unsigned i = 0; i < bench.count; i++) {
        if (!log_in(&bench, &bench.sessions[i], argv[4 + i % (unsigned)(argc - 4)])) {
            fprintf(stderr, "session %u: '%s' cannot be opened\n", i, argv[4 + i % (unsigned)(argc - 4)]);
            return 1;
        }
    }
    while (bench.ready < bench.count && bench.errors == 0 && clock_boottime_ms() < deadline_ms)
        turn(&bench);
    if (bench.ready < bench.count) {
        fprintf(stderr, "%u of %u sessions are logged in\n", bench.ready, bench.count);
        return 1;
    }
    run(&bench, seconds);
    return report(&bench, seconds) ? 0 : 1;
}
