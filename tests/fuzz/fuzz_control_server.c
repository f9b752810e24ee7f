/* The control socket's framing and dispatch: lines of anything, in pieces of any size; the server answers or closes. */
#include <stdio.h>
#include <unistd.h>

#include "common/control.h"
#include "tests/fuzz/control_talk.h"

#define DEFERRED_MAX 4u

struct bench {
    sd_event *event;
    struct control_server *server;
    char path[64];
    struct control_request *deferred[DEFERRED_MAX]; /* answered after the connection is gone */
    unsigned deferred_count, handled;
};

static void echo(struct control_request *request, json_t *params, void *userdata)
{
    struct bench *bench = userdata;
    check(json_is_object(params));
    bench->handled++;
    fuzz_planted(json_is_string(json_object_get(params, "name")));
    control_reply(request, json_incref(params));
}

static void refuse(struct control_request *request, json_t *params, void *userdata)
{
    const char *name = json_string_value(json_object_get(params, "name"));
    control_fail(request, "exists", "volume '%s': it exists", name ? name : "");
}

static void later(struct control_request *request, json_t *params, void *userdata)
{
    struct bench *bench = userdata;
    control_publish(bench->server, "group", json_object());
    if (bench->deferred_count < DEFERRED_MAX)
        bench->deferred[bench->deferred_count++] = request;
    else
        control_reply(request, NULL);
}

static const struct control_method methods[] = {{"echo", echo}, {"fail", refuse}, {"later", later}, {NULL, NULL}};

static struct bench *bench_of_process(void)
{
    static struct bench bench;
    struct err err;
    if (bench.server)
        return &bench;
    check(sd_event_new(&bench.event) >= 0);
    snprintf(bench.path, sizeof(bench.path), "%s/control-%d", fuzz_folder(), (int)getpid());
    check(control_server_new(bench.event, bench.path, methods, &bench, &bench.server, &err) == 0);
    return &bench;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *bench = bench_of_process();
    control_talk(bench->event, bench->path, data, size);
    control_publish(bench->server, "group", json_object()); /* to connections that are gone */
    while (bench->deferred_count)
        control_reply(bench->deferred[--bench->deferred_count], NULL);
    return 0;
}
