/* One connection of the mirror link: bytes through TLS, frames out of bytes, a queue of frames into bytes. */
#include "storaged/mirror/mirror_connection.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"

#define MESSAGES_PER_TURN 256 /* then the rest of the thread has its turn */

static void watch_ready(struct ring_watch *watch, unsigned events);
static void flush(struct mirror_connection *connection);
static void receive(struct mirror_connection *connection);

void connection_break(struct mirror_connection *connection, const char *format, ...)
{
    if (connection->state == CONNECTION_BROKEN)
        return;
    connection->state = CONNECTION_BROKEN;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(connection->reason, sizeof connection->reason, format, arguments);
    va_end(arguments);
    ring_watch_stop(&connection->watch);
    ring_timer_stop(&connection->deadline);
    connection->close_deferred = true;
    ring_defer(connection->ring, &connection->closing);
}

static void update_watch(struct mirror_connection *connection)
{
    if (connection->state == CONNECTION_BROKEN)
        return;
    unsigned events = 0;
    if (connection->state == CONNECTION_CONNECTING) {
        events = POLLOUT;
    } else if (connection->state == CONNECTION_SHAKING) {
        events = tls_wants_write(connection->tls) ? POLLOUT : POLLIN;
    } else {
        if (!connection->paused && !connection->waiting)
            events |= POLLIN;
        if (connection->stage_offset < connection->stage_size || !list_is_empty(&connection->queue))
            events |= POLLOUT;
    }
    ring_watch_change(&connection->watch, events);
}

/* ---- out ----------------------------------------------------------------------------------------------------------- */

static size_t copy_part(struct mirror_connection *connection, const uint8_t *from, size_t size)
{
    size_t room = CONNECTION_STAGE_SIZE - connection->stage_size;
    size_t part = size < room ? size : room;
    memcpy(connection->stage + connection->stage_size, from, part);
    connection->stage_size += part;
    return part;
}

/* Many small messages become one TLS record: the stage is filled from the queue as far as both reach. */
static void fill_stage(struct mirror_connection *connection)
{
    connection->stage_size = connection->stage_offset = 0;
    while (!list_is_empty(&connection->queue) && connection->stage_size < CONNECTION_STAGE_SIZE) {
        struct mirror_send *send = list_entry(connection->queue.next, struct mirror_send, link);
        if (send->copied < send->frame_size)
            send->copied += copy_part(connection, send->frame + send->copied, send->frame_size - send->copied);
        if (send->data_size && send->copied >= send->frame_size) {
            size_t offset = send->copied - send->frame_size;
            send->copied += copy_part(connection, send->data + offset, send->data_size - offset);
        }
        if (send->copied < send->frame_size + send->data_size)
            return;
        list_remove(&send->link);
        send->queued = false;
        connection->queued--;
        connection->messages_sent++;
        send->done(send);
    }
}

static void flush(struct mirror_connection *connection)
{
    while (connection->state == CONNECTION_GREETING || connection->state == CONNECTION_READY) {
        if (connection->stage_offset == connection->stage_size)
            fill_stage(connection);
        if (connection->stage_size == 0)
            break;
        ssize_t written = tls_write(connection->tls, connection->stage + connection->stage_offset,
                                    connection->stage_size - connection->stage_offset);
        if (written == -EAGAIN)
            break;
        if (written <= 0) {
            connection_break(connection, "sending failed: %s", tls_reason(connection->tls));
            return;
        }
        connection->stage_offset += (size_t)written;
        connection->bytes_sent += (size_t)written;
    }
    update_watch(connection);
}

static void flush_run(struct ring_mail *mail)
{
    struct mirror_connection *connection = list_entry(mail, struct mirror_connection, flushing);
    connection->flush_deferred = false;
    if (!connection->tls) /* closed meanwhile */
        connection_free(connection);
    else
        flush(connection);
}

static void flush_later(struct mirror_connection *connection)
{
    if (connection->flush_deferred)
        return;
    connection->flush_deferred = true;
    ring_defer(connection->ring, &connection->flushing);
}

void connection_send(struct mirror_connection *connection, struct mirror_send *send, const struct mirror_message *message, const void *data)
{
    check(!send->queued && send->done);
    send->frame_size = mirror_wire_encode(message, data, send->frame);
    send->data = data;
    send->data_size = message->data_size;
    send->copied = 0;
    send->queued = true;
    list_append(&connection->queue, &send->link);
    if (++connection->queued > MIRROR_QUEUE_MAX)
        connection_break(connection, "%u messages wait to be sent: the other node does not read", connection->queued);
    flush_later(connection);
}

bool connection_cancel(struct mirror_connection *connection, struct mirror_send *send)
{
    if (!send->queued || send->copied > 0)
        return false;
    list_remove(&send->link);
    send->queued = false;
    connection->queued--;
    return true;
}

/* ---- in ------------------------------------------------------------------------------------------------------------ */

static void memory_came_back(struct iobuf_waiter *waiter)
{
    struct mirror_connection *connection = list_entry(waiter, struct mirror_connection, waiter);
    connection->waiting = false;
    receive(connection);
}

/* False: no memory now; goes on when there is. */
static bool begin_data(struct mirror_connection *connection)
{
    connection->data = iobuf_get(connection->receive, connection->head.data_size);
    if (connection->data)
        return true;
    connection->waiting = true;
    connection->waiter.retry = memory_came_back;
    iobuf_wait(connection->receive, &connection->waiter);
    return false;
}

static void deliver(struct mirror_connection *connection)
{
    uint8_t *data = connection->data;
    connection->data = NULL;
    connection->phase = RECEIVE_HEAD;
    connection->got = 0;
    connection->messages_received++;
    if (data && mirror_wire_check_data(&connection->head, data) < 0) {
        iobuf_put(connection->receive, data);
        connection_break(connection, "a %s message came with a wrong data checksum", mirror_wire_kind_name(connection->head.kind));
        return;
    }
    const char *refused = connection->callbacks->message(connection, &connection->message, data);
    if (refused)
        connection_break(connection, "a %s message was refused: %s", mirror_wire_kind_name(connection->head.kind), refused);
}

/* The bytes of the present phase are all there: on to the next one. */
static void phase_done(struct mirror_connection *connection)
{
    const char *reason = NULL;
    connection->got = 0;
    if (connection->phase == RECEIVE_HEAD) {
        if (mirror_wire_decode_head(connection->bytes, &connection->head, &reason) < 0)
            connection_break(connection, "%s", reason);
        connection->phase = RECEIVE_BODY;
    } else if (connection->phase == RECEIVE_BODY) {
        if (mirror_wire_decode_body(&connection->head, connection->bytes, &connection->message, &reason) < 0)
            connection_break(connection, "%s (%s)", reason, mirror_wire_kind_name(connection->head.kind));
        else if (connection->head.data_size == 0)
            deliver(connection);
        else
            connection->phase = RECEIVE_DATA;
    } else {
        deliver(connection);
    }
}

/* Where the next bytes belong; 0 when memory must be waited for. */
static size_t wanted(struct mirror_connection *connection, uint8_t **ret_at)
{
    if (connection->phase == RECEIVE_DATA) {
        if (!connection->data && !begin_data(connection))
            return 0;
        *ret_at = connection->data + connection->got;
        return connection->head.data_size - connection->got;
    }
    size_t size = connection->phase == RECEIVE_HEAD ? MIRROR_HEAD_SIZE : connection->head.body_size;
    *ret_at = connection->bytes + connection->got;
    return size - connection->got;
}

static bool is_open(const struct mirror_connection *connection)
{
    return connection->state == CONNECTION_GREETING || connection->state == CONNECTION_READY;
}

static void resume_later(struct mirror_connection *connection)
{
    if (connection->resume_deferred)
        return;
    connection->resume_deferred = true;
    ring_defer(connection->ring, &connection->resuming);
}

static void resume_run(struct ring_mail *mail)
{
    struct mirror_connection *connection = list_entry(mail, struct mirror_connection, resuming);
    connection->resume_deferred = false;
    if (!connection->tls)
        connection_free(connection);
    else
        receive(connection);
}

static void receive(struct mirror_connection *connection)
{
    uint64_t before = connection->messages_received;
    while (is_open(connection) && !connection->paused && !connection->waiting) {
        if (connection->messages_received - before >= MESSAGES_PER_TURN) {
            resume_later(connection); /* what TLS holds decrypted no poll announces */
            break;
        }
        if (connection->phase == RECEIVE_BODY && connection->head.body_size == 0) {
            phase_done(connection);
            continue;
        }
        uint8_t *at = NULL;
        size_t size = wanted(connection, &at);
        if (size == 0)
            break;
        ssize_t got = tls_read(connection->tls, at, size);
        if (got == -EAGAIN)
            break;
        if (got <= 0) {
            connection_break(connection, got == 0 ? "the other node closed it" : "receiving failed: %s", tls_reason(connection->tls));
            return;
        }
        connection->heard_ms = ring_now_ms(connection->ring);
        connection->bytes_received += (size_t)got;
        connection->got += (size_t)got;
        if ((size_t)got == size)
            phase_done(connection);
    }
    update_watch(connection);
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static void shake(struct mirror_connection *connection)
{
    int result = tls_handshake(connection->tls);
    if (result == -EAGAIN) {
        update_watch(connection);
        return;
    }
    if (result < 0) {
        connection_break(connection, "TLS failed: %s", tls_reason(connection->tls));
        return;
    }
    connection->state = CONNECTION_GREETING;
    connection->callbacks->established(connection);
    update_watch(connection);
    resume_later(connection); /* data may have come with the last handshake message */
}

static void tcp_connected(struct mirror_connection *connection)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    if (error) {
        connection_break(connection, "cannot connect: %s", strerror(error));
        return;
    }
    connection->state = CONNECTION_SHAKING;
    shake(connection);
}

static void watch_ready(struct ring_watch *watch, unsigned events)
{
    struct mirror_connection *connection = list_entry(watch, struct mirror_connection, watch);
    if (connection->state == CONNECTION_CONNECTING) {
        tcp_connected(connection);
    } else if (connection->state == CONNECTION_SHAKING) {
        shake(connection);
    } else {
        if (events & POLLOUT)
            flush(connection);
        if (events & (POLLIN | POLLERR | POLLHUP))
            receive(connection);
    }
}

static void deadline_passed(struct ring_timer *timer)
{
    struct mirror_connection *connection = list_entry(timer, struct mirror_connection, deadline);
    if (connection->state != CONNECTION_READY)
        connection_break(connection, "no connection with TLS and greeting within %u ms", MIRROR_OPENING_MS);
}

static void close_run(struct ring_mail *mail)
{
    struct mirror_connection *connection = list_entry(mail, struct mirror_connection, closing);
    connection->close_deferred = false;
    if (!connection->tls)
        connection_free(connection);
    else
        connection->callbacks->broken(connection);
}

struct mirror_connection *connection_new(const struct mirror_link_options *options, int fd, bool is_server, const char *address,
                                         const struct connection_callbacks *callbacks, void *owner)
{
    struct mirror_connection *connection = calloc(1, sizeof *connection);
    if (!connection || tls_new(options->identity, fd, is_server, &connection->tls) < 0) {
        free(connection);
        close(fd);
        return NULL;
    }
    connection->owner = owner;
    connection->callbacks = callbacks;
    connection->ring = options->ring;
    connection->receive = options->receive;
    connection->fd = fd;
    connection->is_server = is_server;
    connection->state = is_server ? CONNECTION_SHAKING : CONNECTION_CONNECTING;
    snprintf(connection->address, sizeof connection->address, "%s", address);
    connection->watch.ready = watch_ready;
    connection->deadline.expired = deadline_passed;
    connection->closing.run = close_run;
    connection->flushing.run = flush_run;
    connection->resuming.run = resume_run;
    list_init(&connection->queue);
    ring_watch_start(connection->ring, &connection->watch, fd, is_server ? POLLIN : POLLOUT);
    ring_timer_start(connection->ring, &connection->deadline, MIRROR_OPENING_MS);
    return connection;
}

void connection_pause(struct mirror_connection *connection, bool paused)
{
    connection->paused = paused;
    if (!paused)
        resume_later(connection);
    update_watch(connection);
}

static void give_back_sends(struct mirror_connection *connection)
{
    while (!list_is_empty(&connection->queue)) {
        struct mirror_send *send = list_entry(connection->queue.next, struct mirror_send, link);
        list_remove(&send->link);
        send->queued = false;
        send->done(send);
    }
    connection->queued = 0;
}

void connection_free(struct mirror_connection *connection)
{
    connection->state = CONNECTION_BROKEN;
    ring_watch_stop(&connection->watch);
    ring_timer_stop(&connection->deadline);
    if (connection->waiting)
        iobuf_wait_cancel(connection->receive, &connection->waiter);
    connection->waiting = false;
    if (connection->data)
        iobuf_put(connection->receive, connection->data);
    connection->data = NULL;
    give_back_sends(connection);
    if (connection->tls) {
        tls_free(connection->tls);
        connection->tls = NULL;
        close(connection->fd);
    }
    /* Mail that is still under way holds the memory; the last of it comes here again. */
    if (!connection->flush_deferred && !connection->resume_deferred && !connection->close_deferred)
        free(connection);
}
