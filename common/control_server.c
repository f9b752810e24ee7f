/* The serving side of a control socket: accepts, parses, dispatches, answers, publishes. */
#include "common/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/control_stream.h"
#include "common/list.h"
#include "common/log.h"

struct control_server {
    sd_event *event;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    int fd;
    sd_event_source *accepting;
    sd_event_source *reaper; /* frees what was marked dead, where no caller still holds it */
    const struct control_method *methods;
    void *userdata;
    unsigned connection_count;
    struct list connections;
};

struct connection {
    struct list item;
    struct control_server *server;
    struct control_stream stream;
    sd_event_source *io;
    bool subscribed;
    bool dead;
    unsigned pending_count;
    struct list requests;
    control_closed *closed; /* NULL: nobody asked */
    void *closed_userdata;
};

struct control_request {
    struct list item;
    struct connection *connection; /* NULL once it is gone: the answer is dropped */
    json_int_t id;
};

static void connection_free(struct connection *connection)
{
    list_for_each_safe(item, after, &connection->requests) {
        struct control_request *request = list_entry(item, struct control_request, item);
        request->connection = NULL;
        list_remove(item);
    }
    list_remove(&connection->item);
    connection->server->connection_count--;
    sd_event_source_disable_unref(connection->io);
    control_stream_close(&connection->stream);
    free(connection);
}

/* Only marks: callers up the stack may still hold the connection. */
static void connection_kill(struct connection *connection)
{
    if (connection->dead)
        return;
    connection->dead = true;
    connection->subscribed = false;
    sd_event_source_set_enabled(connection->io, SD_EVENT_OFF);
    sd_event_source_set_enabled(connection->server->reaper, SD_EVENT_ONESHOT);
}

static int on_reap(sd_event_source *source, void *userdata)
{
    struct control_server *server = userdata;

    list_for_each_safe(item, after, &server->connections) {
        struct connection *connection = list_entry(item, struct connection, item);
        if (!connection->dead)
            continue;
        control_closed *closed = connection->closed;
        void *closed_userdata = connection->closed_userdata;
        connection_free(connection);
        if (closed != NULL)
            closed(closed_userdata);
    }
    return 0;
}

/* Borrows `message`. */
static int connection_send(struct connection *connection, const json_t *message)
{
    if (connection->dead)
        return -EPIPE;
    int result = control_stream_send(&connection->stream, message);
    if (result == -EMSGSIZE)
        return result;
    if (result < 0) {
        if (result == -ENOBUFS)
            log_warning("control socket %s: a connection that does not read its answers is closed",
                        connection->server->path);
        connection_kill(connection);
        return result;
    }
    if (control_stream_wants_write(&connection->stream))
        sd_event_source_set_io_events(connection->io, EPOLLIN | EPOLLOUT);
    return 0;
}

static json_t *error_message(json_t *id, const char *code, const char *text)
{
    /* JSON takes UTF-8 only; a sentence that quotes other bytes is replaced rather than lost with its answer. */
    json_t *sentence = json_string(text);
    if (sentence == NULL)
        sentence = json_string("the reason cannot be shown because it is not valid text; see the daemon's log");
    json_t *message = json_pack("{s:o, s:{s:s, s:o}}", "id", id, "error", "code", code, "message", sentence);
    check(message != NULL);
    return message;
}

static void connection_refuse(struct connection *connection, json_t *id, const char *code, const char *text)
{
    json_t *message = error_message(id, code, text);
    connection_send(connection, message);
    json_decref(message);
}

/* Steals `message`; frees the request. */
static void request_answer(struct control_request *request, json_t *message)
{
    struct connection *connection = request->connection;

    check(message != NULL);
    if (connection != NULL) {
        check(connection->pending_count > 0);
        connection->pending_count--;
        if (connection_send(connection, message) == -EMSGSIZE) {
            log_error("control socket %s: an answer exceeds %u bytes and was replaced by an error",
                      connection->server->path, CONTROL_LINE_MAX);
            connection_refuse(connection, json_integer(request->id), "too_large",
                              "the answer is larger than a line may be; ask for less at once");
        }
    }
    json_decref(message);
    list_remove(&request->item);
    free(request);
}

void control_reply(struct control_request *request, json_t *result)
{
    request_answer(request, json_pack("{s:I, s:o}", "id", request->id, "result",
                                      result == NULL ? json_object() : result));
}

void control_fail(struct control_request *request, const char *code, const char *format, ...)
{
    char text[sizeof(((struct err *)NULL)->text)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    request_answer(request, error_message(json_integer(request->id), code, text));
}

void control_fail_err(struct control_request *request, const struct err *err)
{
    control_fail(request, err->code, "%s", err->text);
}

static json_t *event_message(const char *event_name, json_t *data)
{
    json_t *message = json_pack("{s:s, s:o}", "event", event_name, "data", data == NULL ? json_object() : data);
    check(message != NULL);
    return message;
}

static void connection_send_event(struct connection *connection, const char *event_name, const json_t *message)
{
    if (connection_send(connection, message) == -EMSGSIZE)
        log_error("control socket %s: event '%s' exceeds %u bytes and was not sent", connection->server->path,
                  event_name, CONTROL_LINE_MAX);
}

void control_send_event(struct control_request *request, const char *event_name, json_t *data)
{
    json_t *message = event_message(event_name, data);

    if (request->connection != NULL)
        connection_send_event(request->connection, event_name, message);
    json_decref(message);
}

void control_on_close(struct control_request *request, control_closed *closed, void *userdata)
{
    struct connection *connection = request->connection;

    if (connection == NULL)
        return;
    connection->closed = closed;
    connection->closed_userdata = userdata;
}

void control_publish(struct control_server *server, const char *event_name, json_t *data)
{
    json_t *message = event_message(event_name, data);

    list_for_each(item, &server->connections) {
        struct connection *connection = list_entry(item, struct connection, item);
        if (connection->subscribed)
            connection_send_event(connection, event_name, message);
    }
    json_decref(message);
}

static const struct control_method *find_method(const struct control_server *server, const char *name)
{
    for (const struct control_method *method = server->methods; method->name != NULL; method++)
        if (strcmp(method->name, name) == 0)
            return method;
    return NULL;
}

static struct control_request *request_new(struct connection *connection, json_int_t id)
{
    struct control_request *request = calloc(1, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->connection = connection;
    request->id = id;
    list_append(&connection->requests, &request->item);
    connection->pending_count++;
    return request;
}

static void dispatch(struct connection *connection, json_int_t id, const char *name, json_t *params)
{
    struct control_server *server = connection->server;
    const struct control_method *method = find_method(server, name);
    bool is_subscribe = strcmp(name, "subscribe") == 0;

    if (connection->pending_count >= CONTROL_PENDING_MAX) {
        connection_refuse(connection, json_integer(id), "busy",
                          "too many requests of this connection are unanswered; wait for answers before asking more");
        return;
    }
    struct control_request *request = request_new(connection, id);
    if (request == NULL) {
        connection_kill(connection);
        return;
    }
    if (is_subscribe)
        connection->subscribed = true;
    if (method != NULL)
        method->handle(request, params, server->userdata);
    else if (is_subscribe)
        control_reply(request, NULL);
    else
        control_fail(request, "unknown_method", "method '%.64s': is not known here; check the version of the caller",
                     name);
}

static void connection_handle(struct connection *connection, json_t *message)
{
    json_t *id = json_object_get(message, "id");
    const char *name = json_string_value(json_object_get(message, "method"));
    json_t *params = json_object_get(message, "params");

    if (!json_is_integer(id) || name == NULL || (params != NULL && !json_is_object(params))) {
        connection_refuse(connection, json_is_integer(id) ? json_incref(id) : json_null(), "invalid",
                          "a request is {\"id\":integer,\"method\":text,\"params\":{…}}; correct the caller");
        return;
    }
    json_t *given = params == NULL ? json_object() : json_incref(params);
    check(given != NULL);
    dispatch(connection, json_integer_value(id), name, given);
    json_decref(given);
}

static void connection_handle_lines(struct connection *connection)
{
    int result = 0;

    while (!connection->dead) {
        json_t *message = NULL;
        result = control_stream_next(&connection->stream, &message);
        if (result == -EBADMSG) {
            connection_refuse(connection, json_null(), "invalid", "the line is no JSON object; correct the caller");
            continue;
        }
        if (result <= 0)
            break;
        connection_handle(connection, message);
        json_decref(message);
    }
    if (result == -EMSGSIZE && !connection->dead) {
        connection_refuse(connection, json_null(), "too_large",
                          "the line is longer than a request may be; the connection is closed");
        connection_kill(connection);
    }
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct connection *connection = userdata;

    if ((events & EPOLLOUT) != 0) {
        if (control_stream_flush(&connection->stream) < 0) {
            connection_kill(connection);
            return 0;
        }
        if (!control_stream_wants_write(&connection->stream))
            sd_event_source_set_io_events(source, EPOLLIN);
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        int result = control_stream_receive(&connection->stream);
        if (result == 0)
            connection_handle_lines(connection);
        else if (result != -EAGAIN)
            connection_kill(connection);
    }
    return 0;
}

/* Takes `fd` over. */
static void connection_new(struct control_server *server, int fd)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL ||
        sd_event_add_io(server->event, &connection->io, fd, EPOLLIN, on_connection, connection) < 0) {
        free(connection);
        close(fd);
        return;
    }
    connection->server = server;
    control_stream_init(&connection->stream, fd);
    list_init(&connection->requests);
    list_append(&server->connections, &connection->item);
    server->connection_count++;
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct control_server *server = userdata;
    int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (accepted < 0)
        return 0;
    if (server->connection_count >= CONTROL_CONNECTIONS_MAX) {
        log_warning("control socket %s: a connection beyond the limit of %u was closed; close some", server->path,
                    CONTROL_CONNECTIONS_MAX);
        close(accepted);
        return 0;
    }
    connection_new(server, accepted);
    return 0;
}

static int listen_on(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);

    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    /* The mode set on the socket before bind is the one the file gets: at no moment may others connect. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        chmod(path, 0600) < 0 || listen(fd, 64) < 0)
        return -errno;

    int listening = fd;
    fd = -1;
    return listening;
}

static int add_sources(struct control_server *server)
{
    int result = sd_event_add_io(server->event, &server->accepting, server->fd, EPOLLIN, on_accept, server);
    if (result >= 0)
        result = sd_event_add_defer(server->event, &server->reaper, on_reap, server);
    if (result >= 0)
        result = sd_event_source_set_enabled(server->reaper, SD_EVENT_OFF);
    return result < 0 ? result : 0;
}

int control_server_new(sd_event *event, const char *path, const struct control_method *methods, void *userdata,
                       struct control_server **ret, struct err *err)
{
    struct control_server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return err_set(err, -ENOMEM, "no_memory", "control socket %s: no memory; free some memory", path);
    server->event = sd_event_ref(event);
    server->methods = methods;
    server->userdata = userdata;
    list_init(&server->connections);
    snprintf(server->path, sizeof(server->path), "%s", path);

    server->fd = listen_on(path);
    int result = server->fd < 0 ? server->fd : add_sources(server);
    if (result < 0) {
        control_server_free(server);
        return err_set(err, result, "io", "control socket %s: cannot be opened: %s; check that its folder exists", path,
                       strerror(-result));
    }
    *ret = server;
    return 0;
}

void control_server_free(struct control_server *server)
{
    if (server == NULL)
        return;
    list_for_each_safe(item, after, &server->connections)
        connection_free(list_entry(item, struct connection, item));
    sd_event_source_disable_unref(server->reaper);
    sd_event_source_disable_unref(server->accepting);
    if (server->fd >= 0) {
        close(server->fd);
        unlink(server->path);
    }
    sd_event_unref(server->event);
    free(server);
}
