/* The mirror link: finding the other node over any link, one connection at a time, its beat. */
#include "storaged/mirror/mirror_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/mirror/mirror_connection.h"

#define CANDIDATES_MAX 4     /* connections that have not yet said HELLO; strangers may open some, too */
#define POSTS_MAX MIRROR_QUEUE_MAX
#define COMPLAIN_OTHER_MS 200u /* another one says more than the first: at once, within reason */
#define COMPLAIN_MS 30000u   /* the same trouble is logged once in so long */

struct listener {
    struct mirror_link *link;
    int fd; /* -1: not listening */
    struct ring_watch watch;
};

/* A small message that the link keeps itself. */
struct post {
    struct mirror_send send;
    struct mirror_link *link;
    void *data;
    struct post *next;
};

struct mirror_link {
    struct mirror_link_options options;
    struct listener listeners[SITE_LINKS_MAX];
    unsigned next_link; /* to try when connecting */
    struct mirror_connection *candidates[CANDIDATES_MAX];
    struct mirror_connection *ready;   /* greeted, but the engine still drains the old one */
    struct mirror_connection *current;
    bool draining; /* `closed` was called, mirror_link_release was not */
    bool allowed;
    struct ring_timer retry, ping;
    struct post *posts;
    unsigned post_count;
    uint64_t complained_ms;
    char complained[160]; /* the reason */
    uint64_t opened;
    struct mirror_link_stats past; /* of closed connections */
};

static const struct connection_callbacks connection_callbacks;

/* Once in a while, not five times a second. */
static void complain(struct mirror_link *link, const char *address, const char *reason)
{
    uint64_t now_ms = ring_now_ms(link->options.ring);
    bool same = strncmp(link->complained, reason, sizeof link->complained - 1) == 0;
    if (link->complained_ms && now_ms < link->complained_ms + (same ? COMPLAIN_MS : COMPLAIN_OTHER_MS))
        return;
    snprintf(link->complained, sizeof link->complained, "%s", reason);
    link->complained_ms = now_ms ? now_ms : 1;
    log_warning("mirror link: no connection with node %s at %s: %s; trying again", site_peer(link->options.site)->name, address, reason);
}

/* ---- addresses --------------------------------------------------------------------------------------------------------- */

static int address_make(const char *text, uint16_t port, struct sockaddr_storage *ret, socklen_t *ret_size)
{
    memset(ret, 0, sizeof *ret);
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *ret_size = sizeof *v4;
        return 0;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *ret_size = sizeof *v6;
        return 0;
    }
    return -EINVAL;
}

static void socket_tune(int fd)
{
    int on = 1;
    unsigned timeout_ms = MIRROR_SILENCE_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

/* ---- connecting and accepting ---------------------------------------------------------------------------------------------- */

static struct mirror_connection **free_candidate(struct mirror_link *link)
{
    for (unsigned i = 0; i < CANDIDATES_MAX; i++)
        if (!link->candidates[i])
            return &link->candidates[i];
    return NULL;
}

static bool has_candidate(const struct mirror_link *link)
{
    for (unsigned i = 0; i < CANDIDATES_MAX; i++)
        if (link->candidates[i])
            return true;
    return false;
}

static void add_candidate(struct mirror_link *link, int fd, bool is_server, const char *address)
{
    struct mirror_connection **slot = free_candidate(link);
    if (!slot) {
        close(fd);
        return;
    }
    socket_tune(fd);
    *slot = connection_new(&link->options, fd, is_server, address, &connection_callbacks, link);
}

static int connect_begin(const char *from, const char *to, uint16_t port, int *ret_fd)
{
    struct sockaddr_storage own, other;
    socklen_t own_size, other_size;
    if (address_make(from, 0, &own, &own_size) < 0 || address_make(to, port, &other, &other_size) < 0)
        return -EINVAL;
    int fd = socket(other.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&own, own_size) < 0 ||
        (connect(fd, (struct sockaddr *)&other, other_size) < 0 && errno != EINPROGRESS)) {
        int error = -errno;
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

static void retry_expired(struct ring_timer *timer)
{
    struct mirror_link *link = list_entry(timer, struct mirror_link, retry);
    ring_timer_start(link->options.ring, &link->retry, MIRROR_RETRY_MS);
    if (!link->allowed || link->current || link->ready || has_candidate(link))
        return;
    const struct site_node *self = site_self(link->options.site), *peer = site_peer(link->options.site);
    unsigned count = self->link_count < peer->link_count ? self->link_count : peer->link_count;
    if (count == 0)
        return;
    unsigned index = link->next_link++ % count;
    int fd, error = connect_begin(self->links[index], peer->links[index], link->options.site->mirror_port, &fd);
    if (error < 0)
        complain(link, peer->links[index], strerror(-error));
    else
        add_candidate(link, fd, false, peer->links[index]);
}

/* The other node connects from its link addresses; strangers get no place in the small table of candidates. */
static bool is_peer_address(const struct mirror_link *link, const char *address)
{
    const struct site_node *peer = site_peer(link->options.site);
    for (unsigned i = 0; i < peer->link_count; i++)
        if (strcmp(peer->links[i], address) == 0)
            return true;
    return false;
}

static void listener_ready(struct ring_watch *watch, unsigned events)
{
    struct listener *listener = list_entry(watch, struct listener, watch);
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    int fd = accept4(listener->fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (!listener->link->allowed) {
        close(fd);
        return;
    }
    char address[SITE_ADDRESS_MAX] = "?";
    const void *raw = from.ss_family == AF_INET6 ? (const void *)&((struct sockaddr_in6 *)&from)->sin6_addr
                                                 : (const void *)&((struct sockaddr_in *)&from)->sin_addr;
    inet_ntop(from.ss_family, raw, address, sizeof address);
    if (!is_peer_address(listener->link, address)) {
        complain(listener->link, address, "it is none of the other node's link addresses");
        close(fd);
        return;
    }
    add_candidate(listener->link, fd, true, address);
}

static int listen_on(struct listener *listener, const char *text, uint16_t port, struct err *err)
{
    struct sockaddr_storage address;
    socklen_t size;
    if (address_make(text, port, &address, &size) < 0)
        return err_set(err, -EINVAL, "invalid", "link address '%s': not an IP address; correct it in the configuration", text);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, -errno, "io", "link address '%s': no socket (%s)", text, strerror(errno));
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on); /* a link may come up later than we */
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 16) < 0) {
        int error = -errno;
        close(fd);
        return err_set(err, error, "io", "link address '%s' port %u: cannot listen (%s); is another hci-storaged running?", text, port,
                       strerror(-error));
    }
    listener->fd = fd;
    return 0;
}

/* ---- from a candidate to the connection ---------------------------------------------------------------------------------- */

static void promote(struct mirror_link *link)
{
    if (link->draining || link->current || !link->ready)
        return;
    struct mirror_connection *connection = link->ready;
    link->ready = NULL;
    link->current = connection;
    link->opened++;
    link->complained_ms = 0;
    connection->heard_ms = ring_now_ms(link->options.ring);
    log_notice("mirror link: connected with node %s at %s", site_peer(link->options.site)->name, connection->address);
    link->options.callbacks.opened(link->options.userdata);
    connection_pause(connection, false);
}

static void post_hello(struct mirror_connection *connection);

static void established(struct mirror_connection *connection)
{
    struct mirror_link *link = connection->owner;
    struct id peer;
    if (tls_peer_id(connection->tls, &peer) < 0) {
        connection_break(connection, "its certificate names no node");
        return;
    }
    if (!id_equal(&peer, &site_peer(link->options.site)->id)) {
        char text[ID_TEXT_SIZE];
        connection_break(connection, "its certificate names node %s, which is not the configured peer", id_format(&peer, text));
        return;
    }
    post_hello(connection);
}

static const char *on_hello(struct mirror_link *link, struct mirror_connection *connection, const struct mirror_message *message)
{
    const struct site *site = link->options.site;
    if (message->protocol != MIRROR_VERSION)
        return "it speaks another version of the mirror protocol; install the same release on both nodes";
    if (!id_equal(&message->cluster, &site->id))
        return "it belongs to another cluster";
    if (!id_equal(&message->node, &site_peer(site)->id))
        return "it says it is another node than its certificate does";
    connection->state = CONNECTION_READY;
    ring_timer_stop(&connection->deadline);
    connection_pause(connection, true); /* until everything of the old connection is drained */
    for (unsigned i = 0; i < CANDIDATES_MAX; i++)
        if (link->candidates[i] == connection)
            link->candidates[i] = NULL;
    if (link->ready)
        connection_break(link->ready, "replaced by a newer connection");
    link->ready = connection;
    if (link->current)
        connection_break(link->current, "replaced by a new connection from %s", connection->address);
    promote(link);
    return NULL;
}

static const char *message_received(struct mirror_connection *connection, const struct mirror_message *message, uint8_t *data)
{
    struct mirror_link *link = connection->owner;
    if (connection->state == CONNECTION_GREETING) {
        if (data)
            iobuf_put(link->options.receive, data);
        return message->kind == MIRROR_HELLO ? on_hello(link, connection, message) : "it did not greet first";
    }
    if (message->kind == MIRROR_PING)
        return NULL;
    if (message->kind == MIRROR_HELLO)
        return "it greeted twice";
    return link->options.callbacks.message(link->options.userdata, message, data);
}

static void add_to_past(struct mirror_link *link, const struct mirror_connection *connection)
{
    link->past.messages_sent += connection->messages_sent;
    link->past.messages_received += connection->messages_received;
    link->past.bytes_sent += connection->bytes_sent;
    link->past.bytes_received += connection->bytes_received;
}

static void connection_broken(struct mirror_connection *connection)
{
    struct mirror_link *link = connection->owner;
    char reason[sizeof connection->reason];
    snprintf(reason, sizeof reason, "%s", connection->reason);
    add_to_past(link, connection);
    for (unsigned i = 0; i < CANDIDATES_MAX; i++) {
        if (link->candidates[i] != connection)
            continue;
        link->candidates[i] = NULL;
        complain(link, connection->address, reason);
    }
    if (link->ready == connection)
        link->ready = NULL;
    bool was_current = link->current == connection;
    if (was_current)
        link->current = NULL;
    connection_free(connection);
    if (was_current) {
        log_warning("mirror link: connection with node %s lost: %s", site_peer(link->options.site)->name, reason);
        link->draining = true;
        link->options.callbacks.closed(link->options.userdata, reason);
    }
}

static const struct connection_callbacks connection_callbacks = {established, message_received, connection_broken};

void mirror_link_release(struct mirror_link *link)
{
    link->draining = false;
    promote(link);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------- */

static void post_done(struct mirror_send *send)
{
    struct post *post = list_entry(send, struct post, send);
    free(post->data);
    post->data = NULL;
    post->next = post->link->posts;
    post->link->posts = post;
}

static struct post *post_get(struct mirror_link *link)
{
    struct post *post = link->posts;
    if (post) {
        link->posts = post->next;
        return post;
    }
    if (link->post_count == POSTS_MAX)
        return NULL;
    post = calloc(1, sizeof *post); /* kept from now on: the pool grows to what is needed once */
    if (!post)
        return NULL;
    link->post_count++;
    post->link = link;
    post->send.done = post_done;
    return post;
}

static void connection_post(struct mirror_link *link, struct mirror_connection *connection, const struct mirror_message *message,
                            const void *data)
{
    struct post *post = post_get(link);
    if (post && message->data_size) {
        post->data = malloc(message->data_size);
        if (post->data)
            memcpy(post->data, data, message->data_size);
    }
    if (!post || (message->data_size && !post->data)) {
        connection_break(connection, "too many messages wait to be sent");
        if (post)
            post_done(&post->send);
        return;
    }
    connection_send(connection, &post->send, message, post->data);
}

static void post_hello(struct mirror_connection *connection)
{
    struct mirror_link *link = connection->owner;
    struct mirror_message hello = {
        .kind = MIRROR_HELLO,
        .protocol = MIRROR_VERSION,
        .cluster = link->options.site->id,
        .node = site_self(link->options.site)->id,
        .boot = link->options.boot,
    };
    connection_post(link, connection, &hello, NULL);
}

bool mirror_link_is_open(const struct mirror_link *link)
{
    return link->current && link->current->state == CONNECTION_READY;
}

bool mirror_link_send(struct mirror_link *link, struct mirror_send *send, const struct mirror_message *message, const void *data)
{
    if (!mirror_link_is_open(link))
        return false;
    connection_send(link->current, send, message, data);
    return true;
}

bool mirror_link_cancel(struct mirror_link *link, struct mirror_send *send)
{
    return link->current && connection_cancel(link->current, send);
}

void mirror_link_post(struct mirror_link *link, const struct mirror_message *message, const void *data)
{
    if (mirror_link_is_open(link))
        connection_post(link, link->current, message, data);
}

/* ---- the beat, and life ----------------------------------------------------------------------------------------------------- */

static void ping_expired(struct ring_timer *timer)
{
    struct mirror_link *link = list_entry(timer, struct mirror_link, ping);
    ring_timer_start(link->options.ring, &link->ping, MIRROR_PING_MS);
    struct mirror_message ping = {.kind = MIRROR_PING};
    if (link->ready && link->ready->state == CONNECTION_READY)
        connection_post(link, link->ready, &ping, NULL);
    if (!mirror_link_is_open(link))
        return;
    uint64_t silent_ms = ring_now_ms(link->options.ring) - link->current->heard_ms;
    /* While we cannot read for want of memory the other node's silence proves nothing. */
    if (silent_ms > MIRROR_SILENCE_MS && !link->current->waiting)
        connection_break(link->current, "nothing was heard for %llu ms", (unsigned long long)silent_ms);
    else
        connection_post(link, link->current, &ping, NULL);
}

static void break_all(struct mirror_link *link, const char *reason)
{
    for (unsigned i = 0; i < CANDIDATES_MAX; i++)
        if (link->candidates[i])
            connection_break(link->candidates[i], "%s", reason);
    if (link->ready)
        connection_break(link->ready, "%s", reason);
    if (link->current)
        connection_break(link->current, "%s", reason);
}

void mirror_link_allow(struct mirror_link *link, bool allowed, const char *reason)
{
    if (link->allowed == allowed)
        return;
    link->allowed = allowed;
    if (!allowed)
        break_all(link, reason);
}

void mirror_link_close(struct mirror_link *link, const char *reason)
{
    if (link->current)
        connection_break(link->current, "%s", reason);
}

int mirror_link_new(const struct mirror_link_options *options, struct mirror_link **ret, struct err *err)
{
    struct mirror_link *link = calloc(1, sizeof *link);
    if (!link)
        return err_set(err, -ENOMEM, "memory", "mirror link: no memory");
    link->options = *options;
    link->allowed = true;
    link->retry.expired = retry_expired;
    link->ping.expired = ping_expired;
    const struct site_node *self = site_self(options->site);
    bool listens = options->site->self == 0 && !options->site->standalone;
    for (unsigned i = 0; i < SITE_LINKS_MAX; i++) {
        link->listeners[i].link = link;
        link->listeners[i].fd = -1;
        link->listeners[i].watch.ready = listener_ready;
    }
    for (unsigned i = 0; listens && i < self->link_count; i++) {
        int error = listen_on(&link->listeners[i], self->links[i], options->site->mirror_port, err);
        if (error < 0) {
            mirror_link_free(link);
            return error;
        }
        ring_watch_start(options->ring, &link->listeners[i].watch, link->listeners[i].fd, POLLIN);
    }
    if (!listens && !options->site->standalone)
        ring_timer_start(options->ring, &link->retry, 0);
    if (!options->site->standalone)
        ring_timer_start(options->ring, &link->ping, MIRROR_PING_MS);
    *ret = link;
    return 0;
}

void mirror_link_free(struct mirror_link *link)
{
    if (!link)
        return;
    ring_timer_stop(&link->retry);
    ring_timer_stop(&link->ping);
    for (unsigned i = 0; i < SITE_LINKS_MAX; i++) {
        ring_watch_stop(&link->listeners[i].watch);
        if (link->listeners[i].fd >= 0)
            close(link->listeners[i].fd);
    }
    for (unsigned i = 0; i < CANDIDATES_MAX; i++)
        if (link->candidates[i])
            connection_free(link->candidates[i]);
    if (link->ready)
        connection_free(link->ready);
    if (link->current)
        connection_free(link->current);
    while (link->posts) {
        struct post *post = link->posts;
        link->posts = post->next;
        free(post);
    }
    free(link);
}

void mirror_link_get_stats(const struct mirror_link *link, struct mirror_link_stats *ret)
{
    *ret = link->past;
    ret->opened = link->opened;
    if (!link->current)
        return;
    ret->messages_sent += link->current->messages_sent;
    ret->messages_received += link->current->messages_received;
    ret->bytes_sent += link->current->bytes_sent;
    ret->bytes_received += link->current->bytes_received;
    ret->queued = link->current->queued;
    snprintf(ret->address, sizeof ret->address, "%s", link->current->address);
}
