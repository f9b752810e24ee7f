/* hci-witnessd: wires the store, the datagram server, enrolment, alerts, figures and the control socket onto one loop. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/log.h"
#include "common/seal.h"
#include "witness/config.h"
#include "witness/control.h"
#include "witness/enrol.h"
#include "witness/errands.h"
#include "witness/metrics.h"
#include "witness/server.h"
#include "witness/store.h"
#include "witness/watch.h"

struct options {
    const char *state, *run, *config;
    const char *backup, *restore, *forget;
    bool alert_test;
    char address[64];
    uint16_t port;
    bool verbose;
};

struct witnessd {
    sd_event *event;
    struct config config;
    struct counters counters;
    struct alerts *alerts;
    struct watch *watch;
    struct metrics *metrics;
    struct store *store;
    struct server *server;
    struct enrol *enrol;
    struct witness_control control;
    struct control_server *control_server;
};

static const struct {
    struct option option;
    const char *value, *help;
} option_table[] = {
    {{"state", required_argument, NULL, 's'}, "DIR", "durable state (default /var/lib/hci-witness)"},
    {{"listen", required_argument, NULL, 'l'}, "ADDR:PORT", "UDP for the nodes, TCP for enrolment (default 0.0.0.0:7203)"},
    {{"run", required_argument, NULL, 'r'}, "DIR", "control socket witnessd.sock (default /run/hci)"},
    {{"config", required_argument, NULL, 'c'}, "FILE", "alerts and figures (default " CONFIG_PATH ", if it is there)"},
    {{"alert-test", no_argument, NULL, 'a'}, "", "have the running daemon send a test alert, and end"},
    {{"backup", required_argument, NULL, 'b'}, "FILE", "have the running daemon copy its store, and end"},
    {{"restore", required_argument, NULL, 'R'}, "FILE", "put a backup back while no daemon runs, and end"},
    {{"forget", required_argument, NULL, 'f'}, "CLUSTER", "have the running daemon remove a cluster, and end"},
    {{"verbose", no_argument, NULL, 'v'}, "", "log every judgement's inputs"},
    {{"help", no_argument, NULL, 'h'}, "", "show this help"},
    {{"version", no_argument, NULL, 'V'}, "", "show the version"},
};
#define OPTION_COUNT (sizeof option_table / sizeof option_table[0])

static void print_help(void)
{
    puts("Usage: hci-witnessd [OPTION]…\nThe third vote of many two-node clusters: keeps who may serve what, durably.\n");
    for (size_t i = 0; i < OPTION_COUNT; i++)
        printf("  --%-10s %-10s %s\n", option_table[i].option.name, option_table[i].value, option_table[i].help);
}

/* 0: go on, 1: done, negative: a usage error was told. */
static int take_option(int letter, const char *value, struct options *ret)
{
    switch (letter) {
    case 's':
        ret->state = value;
        return 0;
    case 'r':
        ret->run = value;
        return 0;
    case 'c':
        ret->config = value;
        return 0;
    case 'b':
        ret->backup = value;
        return 0;
    case 'R':
        ret->restore = value;
        return 0;
    case 'f':
        ret->forget = value;
        return 0;
    case 'a':
        ret->alert_test = true;
        return 0;
    case 'v':
        ret->verbose = true;
        return 0;
    case 'l':
        if (config_parse_address(value, ret->address, &ret->port) == 0)
            return 0;
        fprintf(stderr, "hci-witnessd: --listen '%s': must be ADDRESS:PORT, for example 10.13.0.3:7203\n", value);
        return -EINVAL;
    case 'h':
        print_help();
        return 1;
    case 'V':
        puts("hci-witnessd " HCI_VERSION);
        return 1;
    default:
        fputs("hci-witnessd: see --help\n", stderr);
        return -EINVAL;
    }
}

static int parse_options(int argc, char **argv, struct options *ret)
{
    struct option table[OPTION_COUNT + 1] = {0};
    int letter, result = 0;
    *ret = (struct options){.state = "/var/lib/hci-witness", .run = "/run/hci", .address = "0.0.0.0", .port = 7203};
    for (size_t i = 0; i < OPTION_COUNT; i++)
        table[i] = option_table[i].option;
    while (result == 0 && (letter = getopt_long(argc, argv, "", table, NULL)) != -1)
        result = take_option(letter, optarg, ret);
    if (result == 0 && optind < argc) {
        fprintf(stderr, "hci-witnessd: argument '%s': is not known; see --help\n", argv[optind]);
        return -EINVAL;
    }
    return result;
}

static int make_loop(struct witnessd *daemon, struct err *err)
{
    sigset_t signals;
    int error = sd_event_default(&daemon->event);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    /* Before any thread, so that the loop alone takes them. */
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (error >= 0)
        error = sd_event_add_signal(daemon->event, NULL, SIGTERM, NULL, NULL);
    if (error >= 0)
        error = sd_event_add_signal(daemon->event, NULL, SIGINT, NULL, NULL);
    return error < 0 ? err_set(err, error, "io", "event loop: %s", strerror(-error)) : 0;
}

static int wire_control(struct witnessd *daemon, const struct options *options, struct err *err)
{
    char socket_path[256];
    int error = files_make_folder(options->run, 0755, err);
    if (error < 0)
        return error;
    daemon->control = (struct witness_control){
        .event = daemon->event, .server = daemon->server, .enrol = daemon->enrol, .store = daemon->store,
        .alerts = daemon->alerts, .state_folder = options->state,
    };
    if ((size_t)snprintf(socket_path, sizeof socket_path, "%s/witnessd.sock", options->run) >= sizeof socket_path)
        return err_set(err, -ENAMETOOLONG, "invalid", "run folder '%s': the path is too long", options->run);
    return witness_control_new(daemon->event, socket_path, &daemon->control, &daemon->control_server, err);
}

static int wire(struct witnessd *daemon, const struct options *options, struct err *err)
{
    struct config *config = &daemon->config;
    int error = config_load(options->config == NULL ? CONFIG_PATH : options->config, options->config != NULL, config, err);
    if (error == 0)
        error = make_loop(daemon, err);
    if (error == 0)
        error = store_open(options->state, &daemon->store, err);
    if (error == 0)
        error = server_new(daemon->event, daemon->store, &daemon->counters, options->address, options->port,
                           &daemon->server, err);
    if (error == 0)
        error = alerts_new(daemon->event, config, &daemon->counters, &daemon->alerts, err);
    if (error == 0)
        error = watch_new(daemon->event, daemon->server, daemon->store, config, daemon->alerts, &daemon->counters,
                          &daemon->watch, err);
    if (error == 0)
        error = enrol_new(daemon->event, daemon->server, daemon->store, &daemon->counters, options->state, options->address,
                          options->port, &daemon->enrol, err);
    if (error == 0 && config->metrics_address[0] != '\0')
        error = metrics_new(config->metrics_address, config->metrics_port, &daemon->counters, &daemon->metrics, err);
    return error < 0 ? error : wire_control(daemon, options, err);
}

static void unwire(struct witnessd *daemon)
{
    witness_control_end(&daemon->control);
    control_server_free(daemon->control_server);
    metrics_free(daemon->metrics);
    enrol_free(daemon->enrol);
    watch_free(daemon->watch);
    alerts_free(daemon->alerts);
    server_free(daemon->server);
    store_close(daemon->store);
    seal_wipe(&daemon->config, sizeof daemon->config);
    sd_event_unref(daemon->event);
}

static bool is_errand(const struct options *options)
{
    return options->alert_test || options->backup != NULL || options->restore != NULL || options->forget != NULL;
}

static int run_errand(const struct options *options)
{
    struct err err = {0};
    int error = options->alert_test        ? errand_alert_test(options->run, &err)
              : options->backup != NULL  ? errand_backup(options->run, options->backup, &err)
              : options->restore != NULL ? errand_restore(options->state, options->restore, &err)
                                         : errand_forget(options->run, options->forget, &err);
    if (error < 0)
        fprintf(stderr, "hci-witnessd: %s\n", err.text);
    return error < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int serve(const struct options *options)
{
    struct witnessd daemon = {0};
    struct err err = {0};
    int result = wire(&daemon, options, &err);
    if (result == 0) {
        sd_notify(0, "READY=1");
        result = sd_event_loop(daemon.event);
    } else {
        log_error("%s", err.text);
    }
    unwire(&daemon);
    return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options options;
    int result = parse_options(argc, argv, &options);
    if (result != 0)
        return result > 0 ? EXIT_SUCCESS : 2;
    log_init("hci-witnessd", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_NOTICE);
    signal(SIGPIPE, SIG_IGN);
    umask(077);
    if (seal_init() < 0) {
        log_error("libsodium could not be initialised; check the system's source of random numbers");
        return EXIT_FAILURE;
    }
    return is_errand(&options) ? run_errand(&options) : serve(&options);
}
