/* One blocking question to a daemon, as hcictl asks it. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/control.h"
#include "common/control_stream.h"

static void cleanup_stream(struct control_stream *stream) { control_stream_close(stream); }
static void cleanup_json(json_t **json) { json_decref(*json); }

#define CALL_ID 1

struct call {
    const char *path;
    const char *daemon_name;
    const char *method;
    int timeout_ms;
    uint64_t deadline_ms;
};

static int fail_call(const struct call *call, int result, struct err *err)
{
    switch (result) {
    case -ECONNREFUSED:
    case -ENOENT:
        return err_set(err, -ECONNREFUSED, "not_running",
                       "%s is not running on this node; start it with 'systemctl start %s'", call->daemon_name,
                       call->daemon_name);
    case -EACCES:
    case -EPERM:
        return err_set(err, -EACCES, "denied", "%s: this user may not talk to %s; run the command as root", call->path,
                       call->daemon_name);
    case -ETIMEDOUT:
    case -EAGAIN:
        return err_set(err, -ETIMEDOUT, "timeout",
                       "%s did not answer '%s' within %d ms; see its log with 'journalctl -u %s'", call->daemon_name,
                       call->method, call->timeout_ms, call->daemon_name);
    case -EPIPE:
    case -ECONNRESET:
        return err_set(err, -ECONNRESET, "disconnected",
                       "%s closed the connection before it answered '%s'; see its log with 'journalctl -u %s'",
                       call->daemon_name, call->method, call->daemon_name);
    case -EMSGSIZE:
        return err_set(err, result, "too_large", "%s '%s': more than %u bytes in one line; ask for less at once",
                       call->daemon_name, call->method, CONTROL_LINE_MAX);
    default:
        return err_set(err, result, "io", "%s '%s': %s: %s; see its log with 'journalctl -u %s'", call->daemon_name,
                       call->method, call->path, strerror(-result), call->daemon_name);
    }
}

/* Waits for readiness and moves bytes; events of subscribers never arrive here. */
static int wait_for_answer(const struct call *call, struct control_stream *stream, json_t **ret)
{
    for (;;) {
        int result = control_stream_next(stream, ret);
        if (result != 0)
            return result < 0 ? result : 0;

        uint64_t now_ms = clock_boottime_ms();
        if (now_ms >= call->deadline_ms)
            return -ETIMEDOUT;
        struct pollfd poller = {.fd = stream->fd, .events = POLLIN};
        if (control_stream_wants_write(stream))
            poller.events |= POLLOUT;
        if (poll(&poller, 1, (int)(call->deadline_ms - now_ms)) < 0 && errno != EINTR)
            return -errno;
        if ((poller.revents & POLLOUT) != 0 && (result = control_stream_flush(stream)) < 0)
            return result;
        if ((poller.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            result = control_stream_receive(stream);
            if (result < 0 && result != -EAGAIN)
                return result;
        }
    }
}

static int take_result(const struct call *call, json_t *answer, json_t **ret_result, struct err *err)
{
    json_t *error = json_object_get(answer, "error");
    json_t *result = json_object_get(answer, "result");

    if (error != NULL) {
        const char *code = json_string_value(json_object_get(error, "code"));
        const char *text = json_string_value(json_object_get(error, "message"));
        return err_set(err, -EREMOTEIO, code == NULL ? "failed" : code, "%s",
                       text == NULL ? "the daemon gave no reason; see its log" : text);
    }
    if (result == NULL || json_integer_value(json_object_get(answer, "id")) != CALL_ID)
        return fail_call(call, -EBADMSG, err);
    if (ret_result != NULL)
        *ret_result = json_incref(result);
    return 0;
}

int control_call(const char *path, const char *daemon_name, const char *method, json_t *params, int timeout_ms,
                 json_t **ret_result, struct err *err)
{
    check(timeout_ms > 0);
    const struct call call = {.path = path, .daemon_name = daemon_name, .method = method, .timeout_ms = timeout_ms,
                              .deadline_ms = clock_boottime_ms() + (uint64_t)timeout_ms};
    cleanup(cleanup_json) json_t *request = json_pack("{s:i, s:s, s:o}", "id", CALL_ID, "method", method, "params",
                                                      params == NULL ? json_object() : params);
    cleanup(cleanup_json) json_t *answer = NULL;
    cleanup(cleanup_stream) struct control_stream stream = {.fd = -1};

    if (request == NULL)
        return err_set(err, -EINVAL, "invalid", "%s '%s': the question is not valid text; check its arguments",
                       daemon_name, method);
    int fd = control_stream_connect(path, timeout_ms);
    if (fd < 0)
        return fail_call(&call, fd, err);
    control_stream_init(&stream, fd);

    int result = control_stream_send(&stream, request);
    if (result == 0)
        result = wait_for_answer(&call, &stream, &answer);
    if (result < 0)
        return fail_call(&call, result, err);
    return take_result(&call, answer, ret_result, err);
}
