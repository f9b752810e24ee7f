/* The local control sockets: newline-delimited JSON between the daemons and hcictl of one host.
 *
 * Request  {"id":7,"method":"volume.create","params":{…}}
 * Reply    {"id":7,"result":{…}}  or  {"id":7,"error":{"code":"exists","message":"volume 'db1': …"}}
 * Event    {"event":"group","data":{…}}  to connections that called "subscribe" (built in; a table may name
 *          "subscribe" to be told: the connection is a subscriber already, the handler sends what a newcomer
 *          must know with control_send_event and then replies)
 *
 * A line is at most CONTROL_LINE_MAX bytes, a server has at most CONTROL_CONNECTIONS_MAX connections and
 * CONTROL_PENDING_MAX unanswered requests on each; beyond that the peer is answered an error or closed.
 * Everything here runs on one sd-event loop (one thread). */
#pragma once

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/err.h"

#define CONTROL_LINE_MAX (256u * 1024)
#define CONTROL_CONNECTIONS_MAX 64u
#define CONTROL_PENDING_MAX 64u

struct control_server;
/* Must be answered exactly once, which frees it; also when its connection, or even the server, is gone by then. */
struct control_request;

/* `params` is borrowed for the call (json_incref to keep); never NULL: an empty object when absent.
 * The handler answers now or later with control_reply or control_fail. */
typedef void control_handler(struct control_request *request, json_t *params, void *userdata);

struct control_method {
    const char *name; /* NULL ends the table */
    control_handler *handle;
};

/* Listens on `path` (an old socket is replaced; mode 0600). */
int control_server_new(sd_event *event, const char *path, const struct control_method *methods, void *userdata,
                       struct control_server **ret, struct err *err);
/* Not from inside a handler. Requests still unanswered may be answered afterwards: that only frees them. */
void control_server_free(struct control_server *server);

/* Steals `result` (NULL means {}). When the connection is gone the answer is dropped. */
void control_reply(struct control_request *request, json_t *result);
void control_fail(struct control_request *request, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void control_fail_err(struct control_request *request, const struct err *err);
/* Sends an event to the connection of a request not yet answered, and to no other; steals `data`. */
void control_send_event(struct control_request *request, const char *event_name, json_t *data);
/* Calls `closed` once, from the loop, when the connection of a request not yet answered has closed (not when the server
 * is freed); one per connection, a later one replaces it. For what lasts as long as its caller. */
typedef void control_closed(void *userdata);
void control_on_close(struct control_request *request, control_closed *closed, void *userdata);
/* Sends to every subscriber; steals `data`. A subscriber that does not read is closed. */
void control_publish(struct control_server *server, const char *event_name, json_t *data);

/* A daemon's lasting connection to another daemon's socket: connects, subscribes, reconnects every 100 ms.
 * Every callback and answer comes from the loop, never from inside a function called here. */
struct control_client;
struct control_client_callbacks {
    void (*connected)(void *userdata);                                    /* may be NULL */
    void (*disconnected)(void *userdata);                                 /* may be NULL; pending calls were failed first */
    void (*event)(const char *name, json_t *data, void *userdata);        /* data borrowed; may be NULL */
};
int control_client_new(sd_event *event, const char *path, const struct control_client_callbacks *callbacks,
                       void *userdata, struct control_client **ret);
/* Calls still pending are dropped: their answer is never called. Allowed inside a callback. */
void control_client_free(struct control_client *client);
bool control_client_is_connected(const struct control_client *client);

/* `error` is NULL on success, else {"code","message"}; both borrowed. Code "disconnected" when the connection broke. */
typedef void control_answer(json_t *result, json_t *error, void *userdata);
/* Steals `params` (NULL means {}). When not connected, `answer` is called with "disconnected" from the loop. */
void control_client_call(struct control_client *client, const char *method, json_t *params, control_answer *answer,
                         void *userdata);

/* One blocking call for hcictl: connects, asks, waits at most `timeout_ms`. *ret_result is the caller's.
 * A daemon's error comes back as -EREMOTEIO with its code and message in err; a socket that nobody
 * listens on as -ECONNREFUSED with "hci-storaged is not running on this node; …". */
int control_call(const char *path, const char *daemon_name, const char *method, json_t *params, int timeout_ms,
                 json_t **ret_result, struct err *err);
