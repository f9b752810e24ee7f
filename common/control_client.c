/* A daemon's lasting connection to another daemon: subscribes, calls, reconnects. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/control.h"
#include "common/control_stream.h"
#include "common/list.h"
#include "common/log.h"

#define RECONNECT_US (100 * 1000ull)
/* Failed calls that wait for the loop; beyond that the caller ignores what it is told and the call is a defect. */
#define FAILED_MAX 4096u

struct control_client {
    sd_event *event;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    struct control_client_callbacks callbacks;
    void *userdata;
    struct control_stream stream;
    bool connected;
    bool broken;             /* the connection ended inside a call; the loop says so to the owner */
    bool freed;              /* control_client_free was called inside a callback */
    unsigned depth;          /* callbacks running */
    sd_event_source *io;
    sd_event_source *reconnect;
    sd_event_source *later;  /* answers the failed calls and notices a broken connection */
    json_int_t next_id;
    unsigned pending_count, failed_count;
    struct list pending;     /* sent, unanswered */
    struct list failed;      /* to be answered with their code from the loop */
};

struct call {
    struct list item;
    json_int_t id;
    control_answer *answer;
    void *userdata;
    const char *code, *text; /* of a failed call */
};

static void drop_calls(struct list *calls)
{
    list_for_each_safe(item, after, calls) {
        list_remove(item);
        free(list_entry(item, struct call, item));
    }
}

static void client_destroy(struct control_client *client)
{
    drop_calls(&client->pending);
    drop_calls(&client->failed);
    control_stream_close(&client->stream);
    sd_event_unref(client->event);
    free(client);
}

static void client_enter(struct control_client *client) { client->depth++; }

/* False when a callback freed the client: the caller must not touch it any more. */
static bool client_leave(struct control_client *client)
{
    check(client->depth > 0);
    client->depth--;
    if (!client->freed)
        return true;
    if (client->depth == 0)
        client_destroy(client);
    return false;
}

/* A timer and not a deferred source: that one would always come first and, with an owner that calls again from
 * each failed answer, no other source of the loop would ever run. */
static void wake_later(struct control_client *client)
{
    sd_event_source_set_time_relative(client->later, 0);
    sd_event_source_set_enabled(client->later, SD_EVENT_ONESHOT);
}

static void fail_later(struct control_client *client, struct call *call, const char *code, const char *text)
{
    check(client->failed_count < FAILED_MAX);
    call->code = code;
    call->text = text;
    list_append(&client->failed, &call->item);
    client->failed_count++;
    wake_later(client);
}

/* Ends the connection; calls and owner hear of it from the loop. */
static void client_break(struct control_client *client)
{
    if (!client->connected)
        return;
    client->connected = false;
    client->broken = true;
    client->io = sd_event_source_disable_unref(client->io);
    control_stream_close(&client->stream);
    list_for_each_safe(item, after, &client->pending) {
        list_remove(item);
        client->pending_count--;
        fail_later(client, list_entry(item, struct call, item), "disconnected",
                   "the connection to the daemon broke before it answered; it is tried again");
    }
    wake_later(client);
}

static void answer_call(struct call *call, json_t *result, json_t *error)
{
    if (call->answer != NULL)
        call->answer(result, error, call->userdata);
    free(call);
}

/* Frees the first failed call. */
static void answer_failed(struct control_client *client)
{
    struct call *call = list_entry(client->failed.next, struct call, item);
    list_remove(&call->item);
    client->failed_count--;
    json_t *error = json_pack("{s:s, s:s}", "code", call->code, "message", call->text);
    check(error != NULL);
    answer_call(call, NULL, error);
    json_decref(error);
}

static int on_later(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct control_client *client = userdata;

    client_enter(client);
    /* Only what failed so far: an answer may call again and fail again, without end, while disconnected. */
    for (unsigned left = client->failed_count; left > 0 && !client->freed; left--)
        answer_failed(client);
    if (!client->freed && client->failed_count > 0)
        wake_later(client);
    if (!client->freed && client->broken) {
        client->broken = false;
        sd_event_source_set_time_relative(client->reconnect, RECONNECT_US);
        sd_event_source_set_enabled(client->reconnect, SD_EVENT_ONESHOT);
        if (client->callbacks.disconnected != NULL)
            client->callbacks.disconnected(client->userdata);
    }
    client_leave(client);
    return 0;
}

static void handle_answer(struct control_client *client, json_int_t id, json_t *message)
{
    list_for_each(item, &client->pending) {
        struct call *call = list_entry(item, struct call, item);
        if (call->id != id)
            continue;
        list_remove(item);
        client->pending_count--;
        json_t *error = json_object_get(message, "error");
        answer_call(call, error == NULL ? json_object_get(message, "result") : NULL, error);
        return;
    }
}

static void handle_message(struct control_client *client, json_t *message)
{
    const char *event_name = json_string_value(json_object_get(message, "event"));
    json_t *id = json_object_get(message, "id");

    if (event_name != NULL) {
        if (client->callbacks.event != NULL)
            client->callbacks.event(event_name, json_object_get(message, "data"), client->userdata);
    } else if (json_is_integer(id)) {
        handle_answer(client, json_integer_value(id), message);
    }
}

static void handle_lines(struct control_client *client)
{
    while (client->connected && !client->freed) {
        json_t *message = NULL;
        int result = control_stream_next(&client->stream, &message);
        if (result == 0)
            return;
        if (result < 0) {
            log_warning("control socket %s: what arrives is not the control protocol; reconnecting", client->path);
            client_break(client);
            return;
        }
        handle_message(client, message);
        json_decref(message);
    }
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct control_client *client = userdata;
    int result = 0;

    if ((events & EPOLLOUT) != 0) {
        result = control_stream_flush(&client->stream);
        if (result == 0 && !control_stream_wants_write(&client->stream))
            sd_event_source_set_io_events(source, EPOLLIN);
    }
    if (result == 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        result = control_stream_receive(&client->stream);
    if (result < 0 && result != -EAGAIN) {
        client_break(client);
        return 0;
    }
    client_enter(client);
    handle_lines(client);
    client_leave(client);
    return 0;
}

static int send_message(struct control_client *client, json_int_t id, const char *method, json_t *params)
{
    json_t *message = json_pack("{s:I, s:s, s:o}", "id", id, "method", method, "params",
                                params == NULL ? json_object() : params);
    check(message != NULL);
    int result = control_stream_send(&client->stream, message);
    json_decref(message);
    if (result == 0 && control_stream_wants_write(&client->stream))
        sd_event_source_set_io_events(client->io, EPOLLIN | EPOLLOUT);
    return result;
}

static int client_connect(struct control_client *client)
{
    int fd = control_stream_connect(client->path, 0);
    if (fd < 0)
        return fd;
    control_stream_init(&client->stream, fd);
    int result = sd_event_add_io(client->event, &client->io, fd, EPOLLIN, on_io, client);
    if (result >= 0)
        result = send_message(client, client->next_id++, "subscribe", NULL);
    if (result < 0) {
        client->io = sd_event_source_disable_unref(client->io);
        control_stream_close(&client->stream);
        return result;
    }
    client->connected = true;
    return 0;
}

static int on_reconnect(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct control_client *client = userdata;

    if (client_connect(client) < 0) {
        sd_event_source_set_time_relative(source, RECONNECT_US);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
    }
    client_enter(client);
    if (client->callbacks.connected != NULL)
        client->callbacks.connected(client->userdata);
    client_leave(client);
    return 0;
}

static int add_sources(struct control_client *client)
{
    int result = sd_event_add_time_relative(client->event, &client->reconnect, CLOCK_MONOTONIC, 0, 1000, on_reconnect,
                                            client);
    if (result >= 0)
        result = sd_event_add_time_relative(client->event, &client->later, CLOCK_MONOTONIC, 0, 1, on_later, client);
    if (result >= 0)
        result = sd_event_source_set_enabled(client->later, SD_EVENT_OFF);
    return result < 0 ? result : 0;
}

int control_client_new(sd_event *event, const char *path, const struct control_client_callbacks *callbacks,
                       void *userdata, struct control_client **ret)
{
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return -ENAMETOOLONG;
    struct control_client *client = calloc(1, sizeof(*client));
    if (client == NULL)
        return -ENOMEM;
    client->event = sd_event_ref(event);
    client->callbacks = *callbacks;
    client->userdata = userdata;
    client->next_id = 1;
    control_stream_init(&client->stream, -1);
    list_init(&client->pending);
    list_init(&client->failed);
    snprintf(client->path, sizeof(client->path), "%s", path);

    int result = add_sources(client);
    if (result < 0) {
        control_client_free(client);
        return result;
    }
    *ret = client;
    return 0;
}

void control_client_free(struct control_client *client)
{
    if (client == NULL)
        return;
    check(!client->freed);
    client->freed = true;
    client->connected = false;
    client->io = sd_event_source_disable_unref(client->io);
    client->reconnect = sd_event_source_disable_unref(client->reconnect);
    client->later = sd_event_source_disable_unref(client->later);
    if (client->depth == 0)
        client_destroy(client);
}

bool control_client_is_connected(const struct control_client *client)
{
    return client->connected;
}

void control_client_call(struct control_client *client, const char *method, json_t *params, control_answer *answer,
                         void *userdata)
{
    struct call *call = calloc(1, sizeof(*call));
    check(call != NULL);
    list_init(&call->item);
    call->id = client->next_id++;
    call->answer = answer;
    call->userdata = userdata;

    if (client->freed || !client->connected || client->pending_count >= CONTROL_PENDING_MAX) {
        json_decref(params);
        if (client->freed)
            free(call);
        else if (!client->connected)
            fail_later(client, call, "disconnected", "the daemon is not reachable; it is tried again");
        else
            fail_later(client, call, "busy", "too many calls are unanswered; wait for answers before asking more");
        return;
    }
    list_append(&client->pending, &call->item);
    client->pending_count++;
    int result = send_message(client, call->id, method, params);
    if (result == -EMSGSIZE) {
        list_remove(&call->item);
        client->pending_count--;
        fail_later(client, call, "too_large", "the question is larger than a line may be; ask for less at once");
    } else if (result < 0) {
        client_break(client);
    }
}
