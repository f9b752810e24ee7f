/* Watching a disk being drained: bytes left, rate, finish time. */
#include "cli/disk_wait.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/size.h"

#define SAMPLES 16       /* seconds that the rate is taken over */
#define AWAY_SECONDS 60  /* a daemon that restarts drains on by itself */
#define PLAIN_SECONDS 10 /* between lines where no terminal overwrites them */

struct progress {
    bool terminal;
    unsigned count; /* seen so far */
    uint64_t left[SAMPLES];
    double at_s[SAMPLES];
    double said_s;
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Bytes a second since the oldest sample; 0: not known yet. */
static double rate_of(const struct progress *progress)
{
    unsigned newest = (progress->count - 1) % SAMPLES;
    unsigned oldest = progress->count > SAMPLES ? progress->count % SAMPLES : 0;
    double seconds = progress->at_s[newest] - progress->at_s[oldest];
    if (seconds < 0.5 || progress->left[oldest] <= progress->left[newest])
        return 0;
    return (double)(progress->left[oldest] - progress->left[newest]) / seconds;
}

static void format_finish(uint64_t left, double rate, char *text, size_t size)
{
    time_t seconds = (time_t)((double)left / rate) + 1, end = time(NULL) + seconds;
    struct tm local;
    char clock[32], each[SIZE_TEXT_MAX];
    strftime(clock, sizeof clock, seconds < 12 * 3600 ? "%H:%M:%S" : "%F %H:%M", localtime_r(&end, &local));
    snprintf(text, size, "%s/s, done at %s", size_format((uint64_t)rate, each), clock);
}

static void show(struct progress *progress, const char *path, uint64_t left)
{
    char size[SIZE_TEXT_MAX], finish[96] = "rate not known yet";
    double now = now_s();
    progress->left[progress->count % SAMPLES] = left;
    progress->at_s[progress->count++ % SAMPLES] = now;
    if (!progress->terminal && progress->count > 1 && now - progress->said_s < PLAIN_SECONDS)
        return;
    progress->said_s = now;
    if (rate_of(progress) > 0)
        format_finish(left, rate_of(progress), finish, sizeof finish);
    printf("%sdraining %s: %s left, %s%s", progress->terminal ? "\r\033[K" : "", path, size_format(left, size), finish,
           progress->terminal ? "" : "\n");
    fflush(stdout);
}

/* Waits a second; true when the person wants to go. The signals are blocked, so none is missed in between. */
static bool is_interrupted(const sigset_t *signals)
{
    const struct timespec second = {.tv_sec = 1};
    return sigtimedwait(signals, NULL, &second) > 0;
}

static int ask(const struct cli *cli, const char *id, json_t **ret_disk, struct err *err)
{
    json_owner json_t *answer = NULL;
    size_t index;
    json_t *disk;
    int result = client_ask(cli, &client_storaged, "disk.list", NULL, CLIENT_QUICK_MS, &answer, err);
    *ret_disk = NULL;
    json_array_foreach(output_find(answer, "disks"), index,
                       disk) if (!strcmp(output_text(disk, "id", ""), id)) *ret_disk = json_incref(disk);
    return result;
}

static int interrupted(const char *path, struct err *err)
{
    return err_set(
        err, -EINTR, "interrupted",
        "disk '%s': it is being drained all the same, without hcictl; `hcictl disk list` shows how far it is", path);
}

static int watch(const struct cli *cli, const char *id, const char *path, struct progress *progress,
                 const sigset_t *signals, struct err *err)
{
    for (unsigned away = 0;;) {
        json_owner json_t *disk = NULL;
        int result = ask(cli, id, &disk, err);
        away = result < 0 ? away + 1 : 0;
        if (away > AWAY_SECONDS || (result == 0 && !disk))
            return result;
        const char *state = output_text(disk, "state", "");
        if (disk && strcmp(state, "draining"))
            return err_set(err, -EIO, "io",
                           "disk '%s': draining it ended early, it is %s now; see the log of hci-storaged", path,
                           state);
        if (disk && !cli->json)
            show(progress, path, (uint64_t)output_number(disk, "drain_left_bytes", 0));
        if (is_interrupted(signals))
            return interrupted(path, err);
    }
}

int disk_wait_removed(const struct cli *cli, const char *id, const char *path, struct err *err)
{
    struct progress progress = {.terminal = isatty(STDOUT_FILENO)};
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, &before);
    int result = watch(cli, id, path, &progress, &signals, err);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (progress.terminal && progress.count)
        putchar('\n');
    return result;
}
