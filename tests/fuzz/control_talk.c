/* Talks to a control server over its socket. */
#include "tests/fuzz/control_talk.h"

#include <sys/socket.h>

#include "common/control_stream.h"

static void turn(sd_event *event)
{
    while (sd_event_run(event, 0) > 0)
        ;
}

/* Whatever was asked: each line of an answer is a JSON object with a result, an error or an event. */
static void read_answers(struct control_stream *stream)
{
    json_t *answer;
    int r;
    while (control_stream_receive(stream) == 0) {
        while ((r = control_stream_next(stream, &answer)) == 1) {
            check(json_object_get(answer, "result") || json_object_get(answer, "error") ||
                  json_object_get(answer, "event"));
            json_decref(answer);
        }
        check(r == 0);
    }
}

void control_talk(sd_event *event, const char *path, const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    size_t step = fuzz_u8(&input) + 1u, here;
    struct control_stream stream;
    int fd = control_stream_connect(path, 0);
    check(fd >= 0);
    control_stream_init(&stream, fd);
    turn(event);
    while (input.size) {
        const uint8_t *piece = fuzz_take(&input, step, &here);
        if (send(fd, piece, here, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        turn(event);
        read_answers(&stream);
        step = step * 2;
    }
    turn(event);
    read_answers(&stream);
    control_stream_close(&stream);
    turn(event);
}
