/* The heartbeat sockets: each link has its own, so that a dead path says nothing about another. */
#include "quorum/links.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/seal.h"

#define RECEIVE_BATCH 32u

struct link {
    struct links *links;
    unsigned index;
    int fd;
    sd_event_source *io;
    struct sockaddr_in peer;
};
struct links {
    unsigned count;
    struct link items[SITE_LINKS_MAX];
    links_received *received;
    void *userdata;
};

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct link *link = userdata;
    for (unsigned i = 0; i < RECEIVE_BATCH; i++) {
        uint8_t data[SEAL_DATAGRAM_MAX + 1]; /* one more, to notice what is too long */
        ssize_t size = recv(fd, data, sizeof data, 0);
        if (size < 0)
            break; /* nothing left, or an ICMP error of an earlier send */
        link->links->received(link->index, data, (size_t)size, link->links->userdata);
    }
    return 0;
}

static int parse_address(const char *text, uint16_t port, struct sockaddr_in *ret, struct err *err)
{
    *ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, text, &ret->sin_addr) == 1)
        return 0;
    return err_set(err, -EINVAL, "invalid", "link '%s': is no IPv4 address; correct the node's links in hci.conf", text);
}

static int open_link(struct link *link, sd_event *event, const char *own, const char *peer, uint16_t port, struct err *err)
{
    struct sockaddr_in local;
    int error = parse_address(own, port, &local, err);
    if (error == 0)
        error = parse_address(peer, port, &link->peer, err);
    if (error < 0)
        return error;
    int one = 1, priority = IPTOS_LOWDELAY;
    link->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* FREEBIND: a link whose address is not up when we start must not keep us from starting. */
    if (link->fd < 0 || setsockopt(link->fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof one) < 0 ||
        bind(link->fd, (const struct sockaddr *)&local, sizeof local) < 0)
        return err_set(err, -errno, "io", "link '%s': port %u cannot be bound (%s); check that no other hci-quorumd runs",
                       own, port, strerror(errno));
    setsockopt(link->fd, IPPROTO_IP, IP_TOS, &priority, sizeof priority); /* a wish: works without */
    error = sd_event_add_io(event, &link->io, link->fd, EPOLLIN, on_readable, link);
    return error < 0 ? err_set(err, error, "io", "link '%s': %s", own, strerror(-error)) : 0;
}

int links_new(sd_event *event, const struct site *site, links_received *received, void *userdata, struct links **ret,
              struct err *err)
{
    struct links *links = calloc(1, sizeof *links);
    if (links == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-quorumd: out of memory");
    const struct site_node *own = site_self(site), *peer = site_peer(site);
    links->count = own->link_count < peer->link_count ? own->link_count : peer->link_count;
    links->received = received;
    links->userdata = userdata;
    int error = 0;
    for (unsigned i = 0; i < SITE_LINKS_MAX; i++)
        links->items[i] = (struct link){.links = links, .index = i, .fd = -1};
    for (unsigned i = 0; i < links->count && error == 0; i++)
        error = open_link(&links->items[i], event, own->links[i], peer->links[i], site->quorum_port, err);
    if (error < 0) {
        links_free(links);
        return error;
    }
    *ret = links;
    return 0;
}

void links_free(struct links *links)
{
    if (links == NULL)
        return;
    for (unsigned i = 0; i < SITE_LINKS_MAX; i++) {
        sd_event_source_disable_unref(links->items[i].io);
        if (links->items[i].fd >= 0)
            close(links->items[i].fd);
    }
    free(links);
}

int links_send(struct links *links, unsigned link, const uint8_t *data, size_t size)
{
    check(link < links->count);
    const struct link *item = &links->items[link];
    ssize_t sent = sendto(item->fd, data, size, 0, (const struct sockaddr *)&item->peer, sizeof item->peer);
    return sent < 0 ? -errno : 0;
}
