/* Portals: parsing addresses, listening, accepting. */
#include "storaged/iscsi/iscsi_portal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/list.h"

#define BACKLOG 1024 /* a burst of strangers is not to delay others by a second, TCP's retry */
#define ACCEPTS_PER_TURN 16
#define PAUSE_MS 100
#define BUSY_WAIT_MS 3000
#define BUSY_LOOK_MS 10

static int bad_address(const char *text, struct err *err)
{
    return err_set(err, -EINVAL, "invalid", "portal '%s': not ADDR:PORT or [V6]:PORT; give a numeric address such as 127.0.0.1:3260", text);
}

int iscsi_address_parse(const char *text, struct sockaddr_storage *ret, socklen_t *ret_size, struct err *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN] = "", *end;

    if (!colon || colon[1] < '0' || colon[1] > '9')
        return bad_address(text, err);
    unsigned long port = strtoul(colon + 1, &end, 10);
    bool bracketed = text[0] == '[' && colon > text && colon[-1] == ']';
    const char *start = text + bracketed;
    size_t size = (size_t)(colon - start) - bracketed;
    if (*end || port > 65535 || size == 0 || size >= sizeof(host))
        return bad_address(text, err);
    memcpy(host, start, size);
    memset(ret, 0, sizeof(*ret));
    if (bracketed && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *ret_size = sizeof(*v6);
        return 0;
    }
    if (!bracketed && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *ret_size = sizeof(*v4);
        return 0;
    }
    return bad_address(text, err);
}

const char *iscsi_address_format(const struct sockaddr_storage *address, char ret[static ISCSI_ADDRESS_SIZE])
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    char host[INET6_ADDRSTRLEN] = "";
    if (address->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(ret, ISCSI_ADDRESS_SIZE, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(ret, ISCSI_ADDRESS_SIZE, "%s:%u", host, ntohs(v4->sin_port));
    }
    return ret;
}

bool iscsi_address_is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
}

bool iscsi_address_is_any(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
}

static void resume(struct ring_timer *timer)
{
    struct iscsi_portal *portal = list_entry(timer, struct iscsi_portal, pause);
    ring_watch_change(&portal->watch, POLLIN);
}

static void accept_ready(struct ring_watch *watch, unsigned events)
{
    struct iscsi_portal *portal = list_entry(watch, struct iscsi_portal, watch);
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int one = 1, fd = accept4(portal->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            portal->accepted(portal, fd);
            continue;
        }
        /* Readiness is level-triggered: without descriptors this would spin. */
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            ring_watch_change(&portal->watch, 0);
            ring_timer_start(portal->ring, &portal->pause, PAUSE_MS);
        }
        return;
    }
}

/* The listening socket of a killed process outlives it for a moment, as its ring does: that is waited for. */
static int bind_and_listen(int fd, const struct sockaddr_storage *where, socklen_t size)
{
    bool bound = false;
    for (unsigned waited_ms = 0;; waited_ms += BUSY_LOOK_MS) {
        bound = bound || bind(fd, (const struct sockaddr *)where, size) == 0;
        if (bound && listen(fd, BACKLOG) == 0)
            return 0;
        if (errno != EADDRINUSE || waited_ms >= BUSY_WAIT_MS)
            return -errno;
        usleep(BUSY_LOOK_MS * 1000);
    }
}

int iscsi_portal_open(struct iscsi_portal *portal, struct ring *ring, const char *address, struct err *err)
{
    struct sockaddr_storage where;
    socklen_t size;
    int one = 1, r = iscsi_address_parse(address, &where, &size, err);
    if (r < 0)
        return r;
    int fd = socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, -errno, "unavailable", "portal '%s': no socket: %s", address, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (where.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    r = bind_and_listen(fd, &where, size);
    if (r < 0) {
        close(fd);
        return err_set(err, r, "unavailable", "portal '%s': cannot listen: %s; choose an address of this host and a free port",
                       address, strerror(-r));
    }
    size = sizeof(portal->address);
    getsockname(fd, (struct sockaddr *)&portal->address, &size);
    portal->ring = ring;
    portal->fd = fd;
    portal->pause.expired = resume;
    portal->watch.ready = accept_ready;
    ring_watch_start(ring, &portal->watch, fd, POLLIN);
    return 0;
}

void iscsi_portal_close(struct iscsi_portal *portal)
{
    if (portal->fd < 0)
        return;
    ring_timer_stop(&portal->pause);
    ring_watch_stop(&portal->watch);
    close(portal->fd);
    portal->fd = -1;
}
