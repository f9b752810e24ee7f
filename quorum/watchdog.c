/* The watchdog: armed on the first feed, fed while allowed, disarmed only on a clean stop. */
#include "quorum/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "quorum/wire.h"

#define RETRY_NS NSEC_PER_SEC

struct watchdog {
    char device[sizeof ((struct site *)NULL)->watchdog_device];
    char socket[sizeof ((struct sockaddr_un *)NULL)->sun_path];
    uint32_t period_ms, reset_ms;
    int fd;
    bool armed;
    uint64_t fed_ns, tried_ns;
    char sentence[256];
};

int watchdog_new(const struct site *site, struct watchdog **ret)
{
    struct watchdog *watchdog = calloc(1, sizeof *watchdog);
    if (watchdog == NULL)
        return -ENOMEM;
    snprintf(watchdog->device, sizeof watchdog->device, "%s", site->watchdog_device);
    snprintf(watchdog->socket, sizeof watchdog->socket, "%s", site->watchdog_socket);
    watchdog->period_ms = site->watchdog_ms;
    watchdog->reset_ms = site->watchdog_reset_ms;
    watchdog->fd = -1;
    if (watchdog->device[0] == '\0' && watchdog->socket[0] == '\0')
        snprintf(watchdog->sentence, sizeof watchdog->sentence,
                 "no watchdog: only a fence confirmation lets the other node restart this node's guests");
    else
        snprintf(watchdog->sentence, sizeof watchdog->sentence, "watchdog not armed yet");
    *ret = watchdog;
    return 0;
}

static void lose(struct watchdog *watchdog, const char *what)
{
    int error = errno;
    snprintf(watchdog->sentence, sizeof watchdog->sentence, "watchdog not armed: %s failed (%s); trying again", what,
             strerror(error));
    if (watchdog->armed || watchdog->fd >= 0)
        log_error("%s", watchdog->sentence);
    if (watchdog->fd >= 0)
        close(watchdog->fd);
    watchdog->fd = -1;
    watchdog->armed = false;
}

void watchdog_free(struct watchdog *watchdog)
{
    if (watchdog == NULL)
        return;
    if (watchdog->fd >= 0)
        close(watchdog->fd);
    free(watchdog);
}

static void arm_device(struct watchdog *watchdog)
{
    watchdog->fd = open(watchdog->device, O_WRONLY | O_CLOEXEC);
    if (watchdog->fd < 0) {
        lose(watchdog, "opening the device");
        return;
    }
    int seconds = (int)((watchdog->period_ms + 999) / 1000);
    if (ioctl(watchdog->fd, WDIOC_SETTIMEOUT, &seconds) < 0) {
        lose(watchdog, "setting its period");
        return;
    }
    /* The driver may have rounded: T_kill follows what it really does. */
    watchdog->period_ms = (uint32_t)seconds * 1000;
    watchdog->armed = true;
}

static bool say(struct watchdog *watchdog, const char *line)
{
    size_t size = strlen(line);
    return send(watchdog->fd, line, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static int connect_socket(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static void arm_socket(struct watchdog *watchdog)
{
    char line[32];
    watchdog->fd = connect_socket(watchdog->socket, SOCK_SEQPACKET);
    if (watchdog->fd < 0 && errno == EPROTOTYPE)
        watchdog->fd = connect_socket(watchdog->socket, SOCK_STREAM);
    if (watchdog->fd < 0) {
        lose(watchdog, "connecting to its socket");
        return;
    }
    snprintf(line, sizeof line, "arm %u\n", watchdog->period_ms);
    if (say(watchdog, line))
        watchdog->armed = true;
    else
        lose(watchdog, "arming");
}

static void arm(struct watchdog *watchdog, uint64_t now_ns)
{
    if (watchdog->tried_ns != 0 && now_ns < watchdog->tried_ns + RETRY_NS)
        return;
    watchdog->tried_ns = now_ns;
    if (watchdog->device[0] != '\0')
        arm_device(watchdog);
    else if (watchdog->socket[0] != '\0')
        arm_socket(watchdog);
    if (!watchdog->armed)
        return;
    snprintf(watchdog->sentence, sizeof watchdog->sentence, "watchdog armed: resets this node %u ms after its last feed",
             watchdog->period_ms);
    log_notice("%s", watchdog->sentence);
}

void watchdog_feed(struct watchdog *watchdog, uint64_t now_ns)
{
    if (!watchdog->armed)
        arm(watchdog, now_ns);
    else if (now_ns < watchdog->fed_ns + watchdog->period_ms * NSEC_PER_MSEC / 10)
        return;
    if (!watchdog->armed)
        return;
    bool fed = watchdog->device[0] != '\0' ? ioctl(watchdog->fd, WDIOC_KEEPALIVE, 0) == 0 : say(watchdog, "feed\n");
    /* A full socket of a lab that is busy: the next feed will do. */
    if (!fed && errno != EAGAIN)
        lose(watchdog, "feeding");
    watchdog->fed_ns = now_ns;
}

void watchdog_disarm(struct watchdog *watchdog)
{
    if (!watchdog->armed)
        return;
    /* "Magic close": a driver that gets a V before the close stops counting. */
    bool disarmed = watchdog->device[0] != '\0' ? write(watchdog->fd, "V", 1) == 1 : say(watchdog, "disarm\n");
    if (!disarmed)
        log_error("the watchdog could not be disarmed (%s); this node will be reset", strerror(errno));
    close(watchdog->fd);
    watchdog->fd = -1;
    watchdog->armed = false;
}

uint32_t watchdog_t_kill_ms(const struct watchdog *watchdog)
{
    return watchdog->armed ? watchdog->period_ms + watchdog->reset_ms : WIRE_T_KILL_NONE;
}

const char *watchdog_sentence(const struct watchdog *watchdog)
{
    return watchdog->sentence;
}
