/* JSON lines over TLS with a deadline. */
#include "cli/enrol_line.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/json_owner.h"
#include "common/clock.h"
#include "common/seal.h"

static int remaining_ms(const struct enrol_line *line)
{
    uint64_t now = clock_boottime_ms();
    return now >= line->deadline_ms ? 0 : (int)(line->deadline_ms - now);
}

/* 0 when ready, -ETIMEDOUT when the connection's time is over. */
static int wait_ready(const struct enrol_line *line, short events)
{
    struct pollfd descriptor = {.fd = line->fd, .events = events};
    for (;;) {
        int ready = poll(&descriptor, 1, remaining_ms(line));
        if (ready > 0)
            return 0;
        if (ready == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

static int wait_tls(const struct enrol_line *line)
{
    return wait_ready(line, tls_wants_write(line->tls) ? POLLOUT : POLLIN);
}

static int fail_timeout(const struct enrol_line *line, struct err *err)
{
    return err_set(err, -ETIMEDOUT, "timeout",
                   "%s did not answer within %u s; check the address and that nothing between the "
                   "hosts drops the packets",
                   line->other, ENROL_CONNECTION_MS / 1000);
}

static int fail_broken(const struct enrol_line *line, int result, struct err *err)
{
    if (result == -ETIMEDOUT)
        return fail_timeout(line, err);
    return err_set(err, -ECONNRESET, "disconnected", "%s closed the connection (%s); see what it says and try again",
                   line->other, strerror(-result));
}

static int start(struct enrol_line *line, int fd, const char *other, struct err *err)
{
    *line = (struct enrol_line){.fd = fd, .deadline_ms = clock_boottime_ms() + ENROL_CONNECTION_MS};
    snprintf(line->other, sizeof line->other, "%s", other);
    line->buffer = malloc(ENROL_LINE_MAX);
    if (!line->buffer)
        return err_set(err, -ENOMEM, "no_memory", "out of memory while talking to %s; try again", other);
    return 0;
}

static int connect_socket(const struct enrol_line *line, const struct address *address)
{
    if (connect(line->fd, (const struct sockaddr *)&address->socket, address->socket_size) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    int result = wait_ready(line, POLLOUT);
    if (result < 0)
        return result;
    int failure = 0;
    socklen_t size = sizeof failure;
    if (getsockopt(line->fd, SOL_SOCKET, SO_ERROR, &failure, &size) < 0)
        return -errno;
    return -failure;
}

static int handshake(struct enrol_line *line)
{
    for (;;) {
        int result = tls_handshake(line->tls);
        if (result != -EAGAIN)
            return result;
        result = wait_tls(line);
        if (result < 0)
            return result;
    }
}

/* Whoever broke the line off is not the one that the token does not name. */
static bool is_line_failure(int result)
{
    return result == -ETIMEDOUT || result == -ECONNRESET || result == -EPIPE || result == -ENOTCONN;
}

static int shake_hands(struct enrol_line *line, struct err *err)
{
    int result = handshake(line);
    if (result == 0)
        return 0;
    if (is_line_failure(result))
        return fail_broken(line, result, err);
    return err_set(err, -EBADE, "wrong_fingerprint",
                   "%s is not the host that made this token (%s); check the address and the token", line->other,
                   tls_reason(line->tls));
}

int enrol_line_connect(const struct address *address, const uint8_t ca_sha256[static 32], struct enrol_line *ret,
                       unsigned *ret_round_trip_ms, struct err *err)
{
    char other[sizeof ret->other];
    address_format(address, other, sizeof other);
    int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "io", "cannot make a socket: %m");
    int result = start(ret, fd, other, err);
    if (result < 0)
        goto failed;
    uint64_t began_ms = clock_boottime_ms();
    result = connect_socket(ret, address);
    if (result == -ETIMEDOUT) {
        fail_timeout(ret, err);
        goto failed;
    }
    if (result < 0) {
        err_set(err, result, "unreachable",
                "%s cannot be reached: %s; check the address and that the other side is waiting", other,
                strerror(-result));
        goto failed;
    }
    if (ret_round_trip_ms)
        *ret_round_trip_ms = (unsigned)(clock_boottime_ms() - began_ms);
    result = tls_new_enrol_client(fd, ca_sha256, &ret->tls);
    if (result < 0)
        err_set(err, result, "io", "cannot begin TLS with %s: %s", other, strerror(-result));
    else
        result = shake_hands(ret, err);
    if (result == 0)
        return 0;
failed:
    enrol_line_close(ret);
    return result;
}

int enrol_line_accept(int fd, const struct tls_identity *identity, const char *other, struct enrol_line *ret,
                      struct err *err)
{
    int result = start(ret, fd, other, err);
    if (result == 0) {
        result = tls_new_enrol_server(identity, fd, &ret->tls);
        if (result == 0)
            result = handshake(ret);
        if (result < 0)
            err_set(err, result, "protocol", "%s: %s", other, ret->tls ? tls_reason(ret->tls) : strerror(-result));
    }
    if (result < 0)
        enrol_line_close(ret);
    return result;
}

void enrol_line_close(struct enrol_line *line)
{
    tls_free(line->tls);
    if (line->fd >= 0)
        close(line->fd);
    if (line->buffer) {
        seal_wipe(line->buffer, ENROL_LINE_MAX); /* keys travelled through it */
        free(line->buffer);
    }
    *line = (struct enrol_line){.fd = -1};
}

static int send_all(struct enrol_line *line, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = tls_write(line->tls, data, size);
        if (sent == -EAGAIN)
            sent = wait_tls(line);
        if (sent < 0)
            return (int)sent;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

int enrol_line_send(struct enrol_line *line, const json_t *message, struct err *err)
{
    char *text = json_dumps(message, JSON_COMPACT);
    if (!text)
        return err_set(err, -ENOMEM, "no_memory", "out of memory while talking to %s; try again", line->other);
    size_t size = strlen(text);
    text[size] = '\n'; /* in place of the terminating NUL: the line goes out in one record */
    int result = send_all(line, text, size + 1);
    seal_wipe(text, size + 1);
    free(text);
    return result < 0 ? fail_broken(line, result, err) : 0;
}

/* Takes the first line out of the buffer; 0 when there is none yet. */
static int take_line(struct enrol_line *line, json_t **ret)
{
    char *end = memchr(line->buffer, '\n', line->used);
    if (!end)
        return line->used == ENROL_LINE_MAX ? -EPROTO : 0;
    json_t *message = json_loadb(line->buffer, (size_t)(end - line->buffer), JSON_REJECT_DUPLICATES, NULL);
    line->used -= (size_t)(end + 1 - line->buffer);
    memmove(line->buffer, end + 1, line->used);
    if (!json_is_object(message)) {
        json_decref(message);
        return -EPROTO;
    }
    *ret = message;
    return 1;
}

int enrol_line_receive(struct enrol_line *line, json_t **ret, struct err *err)
{
    for (;;) {
        int taken = take_line(line, ret);
        if (taken < 0)
            return err_set(err, taken, "protocol", "%s does not speak this protocol; check the address", line->other);
        if (taken > 0)
            return 0;
        ssize_t got = tls_read(line->tls, line->buffer + line->used, ENROL_LINE_MAX - line->used);
        if (got == -EAGAIN)
            got = wait_tls(line);
        else if (got == 0)
            got = -ECONNRESET;
        else if (got > 0)
            line->used += (size_t)got;
        if (got < 0)
            return fail_broken(line, (int)got, err);
        /* A peer that drips bytes must not outlive its time. */
        if (remaining_ms(line) == 0)
            return fail_timeout(line, err);
    }
}

int enrol_line_ask(struct enrol_line *line, const json_t *request, json_t **ret_result, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = enrol_line_send(line, request, err);
    if (result == 0)
        result = enrol_line_receive(line, &answer, err);
    if (result < 0)
        return result;
    const json_t *error = json_object_get(answer, "error");
    if (error) {
        const char *code = json_string_value(json_object_get(error, "code"));
        const char *message = json_string_value(json_object_get(error, "message"));
        return err_set(err, -EREMOTEIO, code ? code : "refused", "%s refused: %s", line->other,
                       message ? message : "it gives no reason");
    }
    json_t *found = json_object_get(answer, "result");
    if (!json_is_object(found))
        return err_set(err, -EPROTO, "protocol",
                       "%s gave no answer that this hcictl understands; use the same version on both", line->other);
    *ret_result = json_incref(found);
    return 0;
}
