/* Lines of JSON over one non-blocking socket, buffered both ways within limits; what the control
 * server, the lasting client and the single call have in common. Private to common/control_*.c. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct control_stream {
    int fd;                             /* owned */
    char *in;                           /* what arrived and is not consumed yet */
    size_t in_consumed, in_size, in_capacity;
    char *out;                          /* what the socket did not take yet */
    size_t out_size, out_capacity;
};

/* Takes `fd` over. */
void control_stream_init(struct control_stream *stream, int fd);
void control_stream_close(struct control_stream *stream);

/* Reads once. 0 when something arrived, -EAGAIN when nothing is there, -EPIPE at the end of the stream, or
 * another negative errno. Call control_stream_next until it has nothing more before receiving again. */
int control_stream_receive(struct control_stream *stream);
/* The next whole line as *ret (owned by the caller): 1, or 0 when no line is complete. -EMSGSIZE when the line
 * exceeds CONTROL_LINE_MAX: the stream is of no use any more. -EBADMSG when it is no JSON object: it is skipped. */
int control_stream_next(struct control_stream *stream, json_t **ret);

/* Appends `message` as a line and writes what the socket takes. -EMSGSIZE when the line would exceed
 * CONTROL_LINE_MAX (nothing was sent); -ENOBUFS when the other side does not read; or a negative errno. */
int control_stream_send(struct control_stream *stream, const json_t *message);
/* Writes what the socket takes now. */
int control_stream_flush(struct control_stream *stream);
static inline bool control_stream_wants_write(const struct control_stream *stream) { return stream->out_size > 0; }

/* A connected socket, or a negative errno. A blocking connect (full backlog) ends after `timeout_ms`;
 * 0 means that it never waits. */
int control_stream_connect(const char *path, int timeout_ms);
