/* A connection's life: made, fed by readiness, closed, freed; and its send queue. */
#include "storaged/iscsi/iscsi_connection.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/iscsi/iscsi_input.h"
#include "storaged/iscsi/iscsi_strangers.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define SENDS_PER_CALL 32
#define SEND_CALLS_PER_TURN 8

static void post(struct iscsi_connection *connection)
{
    if (connection->mail_posted)
        return;
    connection->mail_posted = true;
    ring_defer(connection->target->ring, &connection->mail);
}

static void update_events(struct iscsi_connection *connection)
{
    unsigned events = (connection->paused ? 0 : POLLIN) | (list_is_empty(&connection->send_queue) ? 0 : POLLOUT);
    if (connection->state == ISCSI_CONNECTION_CLOSED || events == connection->events)
        return;
    connection->events = events;
    ring_watch_change(&connection->watch, events);
}

/* Fills vectors with what is queued, less what is in the socket already. */
static int gather(struct iscsi_connection *connection, struct iovec vectors[static 3 * SENDS_PER_CALL])
{
    size_t skip = connection->send_offset;
    int sends = 0, count = 0;
    list_for_each(item, &connection->send_queue) {
        struct iscsi_send *send = list_entry(item, struct iscsi_send, link);
        struct iovec parts[3] = {{send->header, send->header_size},
                                 {(void *)send->data, send->data_size},
                                 {send->trailer, send->trailer_size}};
        for (int i = 0; i < 3; i++) {
            size_t skipped = skip < parts[i].iov_len ? skip : parts[i].iov_len;
            skip -= skipped;
            if (parts[i].iov_len > skipped)
                vectors[count++] = (struct iovec){(uint8_t *)parts[i].iov_base + skipped, parts[i].iov_len - skipped};
        }
        if (++sends == SENDS_PER_CALL)
            break;
    }
    return count;
}

static void take_sent(struct iscsi_connection *connection, size_t sent)
{
    connection->send_offset += sent;
    while (connection->state != ISCSI_CONNECTION_CLOSED && !list_is_empty(&connection->send_queue)) {
        struct iscsi_send *send = list_entry(connection->send_queue.next, struct iscsi_send, link);
        size_t size = (size_t)send->header_size + send->data_size + send->trailer_size;
        if (connection->send_offset < size)
            return;
        connection->send_offset -= size;
        list_remove(&send->link);
        send->queued = false;
        send->sent(send);
    }
}

static void flush(struct iscsi_connection *connection)
{
    for (int calls = 0; calls < SEND_CALLS_PER_TURN; calls++) {
        struct iovec vectors[3 * SENDS_PER_CALL];
        if (connection->state == ISCSI_CONNECTION_CLOSED || list_is_empty(&connection->send_queue))
            break;
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)gather(connection, vectors)};
        ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (sent < 0) {
            iscsi_connection_close(connection, strerror(errno));
            return;
        }
        connection->moved_ms = ring_now_ms(connection->target->ring);
        take_sent(connection, (size_t)sent);
    }
    update_events(connection);
}

static void seal_send(const struct iscsi_parameters *parameters, struct iscsi_send *send, bool digests)
{
    uint32_t padding = iscsi_padding(send->data_size);
    send->header_size = ISCSI_BHS_SIZE;
    send->trailer_size = (uint8_t)padding;
    memset(send->trailer, 0, sizeof(send->trailer));
    send->header[5] = (uint8_t)(send->data_size >> 16);
    send->header[6] = (uint8_t)(send->data_size >> 8);
    send->header[7] = (uint8_t)send->data_size;
    if (digests && parameters->header_digest) {
        iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), send->header, ISCSI_BHS_SIZE), send->header + ISCSI_BHS_SIZE);
        send->header_size += ISCSI_DIGEST_SIZE;
    }
    if (digests && parameters->data_digest && send->data_size) {
        uint32_t digest = iscsi_digest_add(iscsi_digest_begin(), send->data, send->data_size);
        iscsi_digest_end(iscsi_digest_add(digest, send->trailer, padding), send->trailer + padding);
        send->trailer_size += ISCSI_DIGEST_SIZE;
    }
}

void iscsi_connection_send(struct iscsi_connection *connection, struct iscsi_send *send)
{
    check(!send->queued && connection->state != ISCSI_CONNECTION_CLOSED);
    seal_send(&connection->parameters, send, connection->state == ISCSI_CONNECTION_FULL);
    send->queued = true;
    list_append(&connection->send_queue, &send->link);
    post(connection); /* what this batch produces goes out in one call */
}

bool iscsi_connection_unsend(struct iscsi_connection *connection, struct iscsi_send *send)
{
    if (!send->queued)
        return true;
    if (connection->send_queue.next == &send->link && connection->send_offset > 0)
        return false;
    list_remove(&send->link);
    send->queued = false;
    return true;
}

static void free_connection(struct iscsi_connection *connection)
{
    iscsi_receive_lost(connection);
    list_remove(&connection->link);
    connection->target->connection_count--;
    free(connection->input); /* and the text buffers behind it */
    free(connection);
}

static void run_mail(struct ring_mail *mail)
{
    struct iscsi_connection *connection = list_entry(mail, struct iscsi_connection, mail);
    connection->mail_posted = false;
    if (connection->state == ISCSI_CONNECTION_CLOSED) {
        free_connection(connection);
        return;
    }
    flush(connection);
    if (connection->state != ISCSI_CONNECTION_CLOSED)
        iscsi_input_run(connection, false);
    update_events(connection);
}

/* Silent strangers, thousands of them, are to cost little. */
static bool has_buffers(struct iscsi_connection *connection)
{
    if (connection->input)
        return true;
    connection->input = malloc(ISCSI_RECEIVE_BUFFER + ISCSI_TEXT_MAX + ISCSI_LOGIN_SEGMENT_MAX);
    if (!connection->input) {
        iscsi_connection_close(connection, "no memory");
        return false;
    }
    connection->text_in = (char *)connection->input + ISCSI_RECEIVE_BUFFER;
    connection->text_out = connection->text_in + ISCSI_TEXT_MAX;
    return true;
}

static void socket_ready(struct ring_watch *watch, unsigned events)
{
    struct iscsi_connection *connection = list_entry(watch, struct iscsi_connection, watch);
    if (events & (POLLERR | POLLHUP) && !(events & POLLIN)) {
        iscsi_connection_close(connection, "the initiator closed the connection");
        return;
    }
    if (events & POLLOUT)
        flush(connection);
    if (connection->state != ISCSI_CONNECTION_CLOSED && events & POLLIN && !connection->paused && has_buffers(connection))
        iscsi_input_run(connection, true);
    update_events(connection);
}

void iscsi_connection_close(struct iscsi_connection *connection, const char *reason)
{
    if (connection->state == ISCSI_CONNECTION_CLOSED)
        return;
    log_write(connection->state == ISCSI_CONNECTION_FULL ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "iscsi: connection of %s closed: %s",
              connection->peer, reason);
    if (connection->state == ISCSI_CONNECTION_LOGIN)
        iscsi_strangers_remove(connection);
    connection->state = ISCSI_CONNECTION_CLOSED;
    ring_timer_stop(&connection->timer);
    ring_watch_stop(&connection->watch);
    close(connection->fd);
    connection->fd = -1;
    post(connection);
}

void iscsi_connection_resume(struct iscsi_connection *connection)
{
    if (connection->state == ISCSI_CONNECTION_CLOSED)
        return;
    connection->paused = false;
    post(connection);
}

void iscsi_connection_forget_task(struct iscsi_connection *connection, struct iscsi_task *task)
{
    if (connection->text_task == task)
        connection->text_task = NULL;
    if (connection->task != task)
        return;
    connection->task = NULL;
    connection->sink = NULL;
    connection->sink_size = 0;
    if (connection->paused)
        iscsi_connection_resume(connection);
}

int iscsi_connection_new(struct iscsi_target *target, int fd, struct iscsi_connection **ret)
{
    struct iscsi_connection *connection = calloc(1, sizeof(*connection));
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof(peer);
    if (!connection) {
        close(fd);
        return -ENOMEM;
    }
    connection->target = target;
    connection->fd = fd;
    connection->mail.run = run_mail;
    connection->stage_size = ISCSI_BHS_SIZE;
    connection->stat_sn = 1;
    connection->moved_ms = ring_now_ms(target->ring);
    list_init(&connection->send_queue);
    iscsi_parameters_init(&connection->parameters);
    getpeername(fd, (struct sockaddr *)&peer, &size);
    iscsi_address_format(&peer, connection->peer);
    list_append(&target->connections, &connection->link);
    target->connection_count++;
    iscsi_strangers_add(connection, &peer);
    connection->watch.ready = socket_ready;
    connection->events = POLLIN;
    ring_watch_start(target->ring, &connection->watch, fd, POLLIN);
    *ret = connection;
    return 0;
}
