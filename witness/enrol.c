/* Enrolment at the witness: a few short-lived TLS connections, each with one request, on a thread of their own. A
 * handshake costs milliseconds of signing, and whoever reaches the port may ask for one: no lease may wait for that. */
#include "witness/enrol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/seal.h"
#include "common/tls.h"
#include "witness/enrol_pki.h"
#include "witness/enrol_private.h"

enum stage { HANDSHAKE, READING, WRITING };

struct visitor {
    struct enrol *enrol;
    int fd;
    uint32_t address;
    sd_event_source *io, *timeout;
    struct tls *tls;
    enum stage stage;
    char *line;  /* the request, then the reply */
    size_t size, done;
};

static void visitor_free(struct visitor *visitor)
{
    struct enrol *enrol = visitor->enrol;
    for (unsigned i = 0; i < ENROL_CONNECTIONS_MAX; i++)
        if (enrol->visitors[i] == visitor)
            enrol->visitors[i] = NULL;
    sd_event_source_disable_unref(visitor->io);
    sd_event_source_disable_unref(visitor->timeout);
    if (visitor->tls != NULL)
        tls_free(visitor->tls);
    close(visitor->fd);
    if (visitor->line != NULL)
        seal_wipe(visitor->line, ENROL_LINE_MAX);
    free(visitor->line);
    free(visitor);
}

/* The buffer that held the request takes the reply. */
static bool make_reply(struct visitor *visitor)
{
    struct err err = {0};
    json_t *request = json_loadb(visitor->line, visitor->size, JSON_REJECT_DUPLICATES, NULL);
    json_t *reply = enrol_answer(visitor->enrol, request, &err);
    if (reply == NULL) {
        log_warning("enrolment refused: %s", err.text);
        reply = json_pack("{s:{s:s, s:s}}", "error", "code", err.code, "message", err.text);
    }
    json_decref(request);
    size_t size = reply == NULL ? ENROL_LINE_MAX : json_dumpb(reply, visitor->line, ENROL_LINE_MAX - 1, JSON_COMPACT);
    json_decref(reply);
    if (size >= ENROL_LINE_MAX)
        return false;
    visitor->line[size] = '\n';
    visitor->size = size + 1;
    visitor->done = 0;
    visitor->stage = WRITING;
    return true;
}

/* Each step: bytes or 0 to go on, -EAGAIN to wait, anything else ends the visit. */
static ssize_t read_some(struct visitor *visitor)
{
    ssize_t size = tls_read(visitor->tls, visitor->line + visitor->size, ENROL_LINE_MAX - visitor->size);
    if (size <= 0)
        return size == 0 ? -ECONNRESET : size;
    const char *end = memchr(visitor->line + visitor->size, '\n', (size_t)size);
    visitor->size += (size_t)size;
    if (end != NULL) {
        visitor->size = (size_t)(end - visitor->line);
        return make_reply(visitor) ? size : -EPROTO;
    }
    return visitor->size == ENROL_LINE_MAX ? -EMSGSIZE : size;
}

static ssize_t write_some(struct visitor *visitor)
{
    ssize_t size = tls_write(visitor->tls, visitor->line + visitor->done, visitor->size - visitor->done);
    if (size < 0)
        return size;
    visitor->done += (size_t)size;
    return visitor->done == visitor->size ? -ESHUTDOWN : size;
}

static ssize_t step(struct visitor *visitor)
{
    if (visitor->stage == READING)
        return read_some(visitor);
    if (visitor->stage == WRITING)
        return write_some(visitor);
    int error = tls_handshake(visitor->tls);
    if (error == 0)
        visitor->stage = READING;
    return error;
}

static int on_visitor(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct visitor *visitor = userdata;
    ssize_t result;
    do
        result = step(visitor);
    while (result >= 0);
    if (result == -EAGAIN)
        sd_event_source_set_io_events(source, tls_wants_write(visitor->tls) ? EPOLLOUT : EPOLLIN);
    else
        visitor_free(visitor);
    return 0;
}

static int on_timeout(sd_event_source *source, uint64_t now, void *userdata)
{
    visitor_free(userdata);
    return 0;
}

static bool may_visit(struct enrol *enrol, uint32_t address)
{
    unsigned same = 0;
    for (unsigned i = 0; i < ENROL_CONNECTIONS_MAX; i++)
        same += enrol->visitors[i] != NULL && enrol->visitors[i]->address == address;
    return same < ENROL_PER_ADDRESS_MAX &&
           limit_take(&enrol->handshakes, ENROL_HANDSHAKE_RATE, ENROL_CONNECTIONS_MAX, clock_boottime_ns());
}

static void visitor_new(struct enrol *enrol, int fd, uint32_t address)
{
    unsigned slot = 0;
    while (slot < ENROL_CONNECTIONS_MAX && enrol->visitors[slot] != NULL)
        slot++;
    bool admitted = slot < ENROL_CONNECTIONS_MAX && may_visit(enrol, address);
    struct visitor *visitor = admitted ? calloc(1, sizeof *visitor) : NULL;
    if (visitor == NULL) {
        close(fd);
        return;
    }
    visitor->enrol = enrol;
    visitor->fd = fd;
    visitor->address = address;
    visitor->line = malloc(ENROL_LINE_MAX);
    enrol->visitors[slot] = visitor;
    if (visitor->line == NULL || tls_new_enrol_server(enrol->identity, fd, &visitor->tls) < 0 ||
        sd_event_add_io(enrol->event, &visitor->io, fd, EPOLLIN, on_visitor, visitor) < 0 ||
        sd_event_add_time_relative(enrol->event, &visitor->timeout, CLOCK_MONOTONIC, ENROL_TIMEOUT_S * UINT64_C(1000000),
                                   0, on_timeout, visitor) < 0)
        visitor_free(visitor);
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct sockaddr_in from = {0};
    socklen_t size = sizeof from;
    int visitor = accept4(fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (visitor >= 0)
        visitor_new(userdata, visitor, from.sin_addr.s_addr);
    return 0;
}

static int on_stop(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct enrol *enrol = userdata;
    return sd_event_exit(enrol->event, 0);
}

static void *serve(void *userdata)
{
    struct enrol *enrol = userdata;
    /* On a host of one core a handshake yields to the loop; refused by a stricter unit it is only less polite. */
    setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
    int error = sd_event_loop(enrol->event);
    if (error < 0)
        log_error("enrolment ends: its loop failed (%s); restart hci-witnessd when a cluster must be enrolled",
                  strerror(-error));
    return NULL;
}

static int listen_socket(struct enrol *enrol, const char *address, uint16_t port, struct err *err)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    check(inet_pton(AF_INET, address, &local.sin_addr) == 1); /* the datagram socket was bound to it before */
    enrol->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (enrol->fd < 0 || setsockopt(enrol->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(enrol->fd, (const struct sockaddr *)&local, sizeof local) < 0 || listen(enrol->fd, 16) < 0)
        return err_set(err, -errno, "io", "enrolment on '%s:%u': cannot listen (%s); choose another address or port",
                       address, port, strerror(errno));
    return 0;
}

static int wire(struct enrol *enrol, sd_event *loop, struct err *err)
{
    enrol->ask_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enrol->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = enrol->ask_fd < 0 || enrol->stop_fd < 0 ? -errno : sd_event_new(&enrol->event);
    if (error >= 0)
        error = sd_event_add_io(loop, &enrol->asking, enrol->ask_fd, EPOLLIN, enrol_on_asked, enrol);
    if (error >= 0)
        error = sd_event_add_io(enrol->event, &enrol->stopping, enrol->stop_fd, EPOLLIN, on_stop, enrol);
    if (error >= 0)
        error = sd_event_add_io(enrol->event, &enrol->accepting, enrol->fd, EPOLLIN, on_accept, enrol);
    if (error >= 0)
        error = -pthread_create(&enrol->thread, NULL, serve, enrol);
    enrol->running = error >= 0;
    return error < 0 ? err_set(err, error, "io", "enrolment: cannot be started (%s)", strerror(-error)) : 0;
}

int enrol_new(sd_event *event, struct server *server, struct store *store, struct counters *counters, const char *folder,
              const char *address, uint16_t port, struct enrol **ret, struct err *err)
{
    struct enrol *enrol = calloc(1, sizeof *enrol);
    if (enrol == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    enrol->server = server;
    enrol->store = store;
    enrol->counters = counters;
    enrol->fd = enrol->ask_fd = enrol->stop_fd = -1;
    enrol->witness = store_witness_id(store);
    pthread_mutex_init(&enrol->errand.lock, NULL);
    pthread_cond_init(&enrol->errand.answered, NULL);
    int error = enrol_load_identity(folder, &enrol->witness, &enrol->identity, enrol->ca_sha256, err);
    if (error == 0)
        error = listen_socket(enrol, address, port, err);
    if (error == 0)
        error = wire(enrol, event, err);
    if (error < 0) {
        enrol_free(enrol);
        return error;
    }
    *ret = enrol;
    return 0;
}

static void stop_thread(struct enrol *enrol)
{
    pthread_mutex_lock(&enrol->errand.lock);
    enrol->errand.closed = true;
    pthread_cond_signal(&enrol->errand.answered);
    pthread_mutex_unlock(&enrol->errand.lock);
    eventfd_write(enrol->stop_fd, 1);
    pthread_join(enrol->thread, NULL);
}

void enrol_free(struct enrol *enrol)
{
    if (enrol == NULL)
        return;
    if (enrol->running)
        stop_thread(enrol);
    for (unsigned i = 0; i < ENROL_CONNECTIONS_MAX; i++)
        if (enrol->visitors[i] != NULL)
            visitor_free(enrol->visitors[i]);
    sd_event_source_disable_unref(enrol->asking);
    sd_event_source_disable_unref(enrol->accepting);
    sd_event_source_disable_unref(enrol->stopping);
    sd_event_unref(enrol->event);
    for (unsigned i = 0; i < 3; i++) {
        int fd = (const int[]){enrol->fd, enrol->ask_fd, enrol->stop_fd}[i];
        if (fd >= 0)
            close(fd);
    }
    if (enrol->identity != NULL)
        tls_identity_free(enrol->identity);
    pthread_cond_destroy(&enrol->errand.answered);
    pthread_mutex_destroy(&enrol->errand.lock);
    free(enrol);
}

int enrol_new_token(struct enrol *enrol, char ret_text[static TOKEN_TEXT_SIZE], struct err *err)
{
    struct token token;
    uint8_t hash[16];
    token_new(&token, enrol->ca_sha256);
    seal_hash128(token.secret, sizeof token.secret, hash);
    int64_t now = (int64_t)time(NULL);
    int error = store_begin(enrol->store, err);
    if (error == 0)
        error = store_add_token(enrol->store, hash, now, now + ENROL_TOKEN_LIFE_S, err);
    if (error == 0)
        error = store_commit(enrol->store, err);
    if (error < 0)
        store_rollback(enrol->store);
    else
        token_format(&token, ret_text);
    seal_wipe(&token, sizeof token);
    return error;
}
