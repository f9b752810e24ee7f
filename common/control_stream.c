/* Line framing and buffering of the control sockets. */
#include "common/control_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/control.h"

#define RECEIVE_STEP 16384u
/* A few whole lines may wait for a slow reader; more means that it does not read at all. */
#define OUT_MAX (4u * CONTROL_LINE_MAX)

void control_stream_init(struct control_stream *stream, int fd)
{
    *stream = (struct control_stream){.fd = fd};
}

void control_stream_close(struct control_stream *stream)
{
    if (stream->fd >= 0)
        close(stream->fd);
    free(stream->in);
    free(stream->out);
    control_stream_init(stream, -1);
}

static int reserve(char **data, size_t *capacity, size_t needed)
{
    if (needed <= *capacity)
        return 0;
    size_t enlarged = *capacity * 2 > needed ? *capacity * 2 : needed;
    char *grown = realloc(*data, enlarged);
    if (grown == NULL)
        return -ENOMEM;
    *data = grown;
    *capacity = enlarged;
    return 0;
}

int control_stream_receive(struct control_stream *stream)
{
    size_t left = stream->in_size - stream->in_consumed;
    if (stream->in_consumed > 0) {
        memmove(stream->in, stream->in + stream->in_consumed, left);
        stream->in_consumed = 0;
        stream->in_size = left;
    }

    int result = reserve(&stream->in, &stream->in_capacity, stream->in_size + RECEIVE_STEP);
    if (result < 0)
        return result;
    ssize_t got = recv(stream->fd, stream->in + stream->in_size, RECEIVE_STEP, MSG_DONTWAIT);
    if (got < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    if (got == 0)
        return -EPIPE;
    stream->in_size += (size_t)got;
    return 0;
}

int control_stream_next(struct control_stream *stream, json_t **ret)
{
    size_t left = stream->in_size - stream->in_consumed;
    if (left == 0)
        return 0;

    const char *line = stream->in + stream->in_consumed;
    const char *newline = memchr(line, '\n', left);
    size_t size = newline == NULL ? left : (size_t)(newline - line);

    if (size > CONTROL_LINE_MAX)
        return -EMSGSIZE;
    if (newline == NULL)
        return 0;
    stream->in_consumed += size + 1;

    json_t *message = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(message)) {
        json_decref(message);
        return -EBADMSG;
    }
    *ret = message;
    return 1;
}

int control_stream_send(struct control_stream *stream, const json_t *message)
{
    size_t size = json_dumpb(message, NULL, 0, JSON_COMPACT);
    check(size > 0);
    if (size > CONTROL_LINE_MAX)
        return -EMSGSIZE;
    if (stream->out_size + size + 1 > OUT_MAX)
        return -ENOBUFS;

    int result = reserve(&stream->out, &stream->out_capacity, stream->out_size + size + 1);
    if (result < 0)
        return result;
    check(json_dumpb(message, stream->out + stream->out_size, size, JSON_COMPACT) == size);
    stream->out[stream->out_size + size] = '\n';
    stream->out_size += size + 1;
    return control_stream_flush(stream);
}

int control_stream_flush(struct control_stream *stream)
{
    size_t sent = 0;
    int result = 0;

    while (sent < stream->out_size && result == 0) {
        ssize_t written = send(stream->fd, stream->out + sent, stream->out_size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written >= 0)
            sent += (size_t)written;
        else if (errno != EINTR)
            result = -errno;
    }
    if (sent > 0)
        memmove(stream->out, stream->out + sent, stream->out_size - sent);
    stream->out_size -= sent;
    return result == -EAGAIN ? 0 : result;
}

int control_stream_connect(const char *path, int timeout_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);

    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (timeout_ms == 0 ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0)
        return -errno;
    if (timeout_ms > 0) {
        struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
            return -errno;
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;

    int connected = fd;
    fd = -1;
    return connected;
}
