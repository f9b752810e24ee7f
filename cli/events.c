/* `hcictl events`: what the daemons of this node say, one line each, as it happens. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json_owner.h"
#include "common/control.h"

#define SETTLE_MS 500 /* without --follow: the present state is told right after subscribing */

struct source {
    const struct cli *cli;
    const struct client_daemon *daemon;
    struct control_client *client;
};

static void print_event(const char *name, json_t *data, void *userdata)
{
    const struct source *source = userdata;
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%FT%TZ", gmtime_r(&now, &utc));
    if (source->cli->json) {
        json_owner json_t *line = json_pack("{s:s, s:s, s:s, s:O}", "time", when, "daemon", source->daemon->name,
                                            "event", name, "data", data);
        json_dumpf(line, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        char *text = json_dumps(data, JSON_COMPACT);
        printf("%s %s %s %s\n", when, source->daemon->name, name, text ? text : "");
        free(text);
    }
    fflush(stdout);
}

static void say_connection(const struct source *source, const char *what)
{
    fprintf(stderr, "hcictl: %s: %s\n", source->daemon->name, what);
}

static void say_disconnected(void *userdata) { say_connection(userdata, "the connection broke; trying again"); }

static int stop_loop(sd_event_source *timer, uint64_t usec, void *userdata) { return sd_event_exit(userdata, 0); }

static int run_loop(struct cli *cli, sd_event *loop, struct source *sources, unsigned count, struct err *err)
{
    static const struct control_client_callbacks callbacks = {.disconnected = say_disconnected, .event = print_event};
    int result = 0;
    for (unsigned i = 0; i < count && result == 0; i++) {
        char path[CLI_PATH_MAX];
        result = client_socket_path(cli, sources[i].daemon, path, err);
        if (result == 0 && control_client_new(loop, path, &callbacks, &sources[i], &sources[i].client) < 0)
            result = err_set(err, -ENOMEM, "no_memory", "cannot watch %s; try again", path);
    }
    if (result == 0 && !cli_option_count(cli, "follow") &&
        sd_event_add_time_relative(loop, NULL, CLOCK_BOOTTIME, SETTLE_MS * 1000, 0, stop_loop, loop) < 0)
        result = err_set(err, -ENOMEM, "no_memory", "cannot set a timer; try again");
    if (result == 0)
        result = sd_event_loop(loop);
    return result;
}

int events_run(struct cli *cli, struct err *err)
{
    struct source sources[] = {{cli, &client_quorumd, NULL}, {cli, &client_storaged, NULL}, {cli, &client_vmhad, NULL}};
    unsigned count = sizeof sources / sizeof sources[0];
    if (cli_stands_alone(cli)) { /* the others do not run there */
        sources[0] = sources[1];
        count = 1;
    }
    sd_event *loop = NULL;
    if (sd_event_new(&loop) < 0)
        return err_set(err, -ENOMEM, "no_memory", "cannot make an event loop; try again");
    int result = run_loop(cli, loop, sources, count, err);
    for (unsigned i = 0; i < count; i++)
        if (sources[i].client)
            control_client_free(sources[i].client);
    sd_event_unref(loop);
    return result;
}
