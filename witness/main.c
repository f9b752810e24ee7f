/* hci-witnessd: wires the store, the datagram server, enrolment and the control socket onto one loop. */
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
#include "witness/control.h"
#include "witness/enrol.h"
#include "witness/server.h"
#include "witness/store.h"

struct options {
    const char *state, *run;
    char address[64];
    uint16_t port;
    bool verbose;
};

struct witnessd {
    sd_event *event;
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
    {{"verbose", no_argument, NULL, 'v'}, "", "log every judgement's inputs"},
    {{"help", no_argument, NULL, 'h'}, "", "show this help"},
    {{"version", no_argument, NULL, 'V'}, "", "show the version"},
};
#define OPTION_COUNT (sizeof option_table / sizeof option_table[0])

static void print_help(void)
{
    puts("Usage: hci-witnessd [OPTION]…\nThe third vote of many two-node clusters: keeps who may serve what, durably.\n");
    for (size_t i = 0; i < OPTION_COUNT; i++)
        printf("  --%-8s %-10s %s\n", option_table[i].option.name, option_table[i].value, option_table[i].help);
}

static int parse_listen(const char *text, struct options *ret)
{
    const char *colon = strrchr(text, ':');
    char *end;
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    if (colon == NULL || *end != '\0' || port == 0 || port > UINT16_MAX || (size_t)(colon - text) >= sizeof ret->address)
        return -EINVAL;
    memcpy(ret->address, text, (size_t)(colon - text));
    ret->address[colon - text] = '\0';
    ret->port = (uint16_t)port;
    return 0;
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
    case 'v':
        ret->verbose = true;
        return 0;
    case 'l':
        if (parse_listen(value, ret) == 0)
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

static int wire(struct witnessd *daemon, const struct options *options, struct err *err)
{
    char socket_path[256];
    int error = sd_event_default(&daemon->event);
    if (error < 0)
        return err_set(err, error, "io", "event loop: %s", strerror(-error));
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    sd_event_add_signal(daemon->event, NULL, SIGTERM, NULL, NULL);
    sd_event_add_signal(daemon->event, NULL, SIGINT, NULL, NULL);
    error = store_open(options->state, &daemon->store, err);
    if (error == 0)
        error = server_new(daemon->event, daemon->store, options->address, options->port, &daemon->server, err);
    if (error == 0)
        error = enrol_new(daemon->event, daemon->server, daemon->store, options->state, options->address, options->port,
                          &daemon->enrol, err);
    if (error == 0)
        error = files_make_folder(options->run, 0755, err);
    if (error < 0)
        return error;
    daemon->control = (struct witness_control){.server = daemon->server, .enrol = daemon->enrol};
    if ((size_t)snprintf(socket_path, sizeof socket_path, "%s/witnessd.sock", options->run) >= sizeof socket_path)
        return err_set(err, -ENAMETOOLONG, "invalid", "run folder '%s': the path is too long", options->run);
    return witness_control_new(daemon->event, socket_path, &daemon->control, &daemon->control_server, err);
}

static void unwire(struct witnessd *daemon)
{
    control_server_free(daemon->control_server);
    enrol_free(daemon->enrol);
    server_free(daemon->server);
    store_close(daemon->store);
    sd_event_unref(daemon->event);
}

int main(int argc, char **argv)
{
    struct options options;
    struct witnessd daemon = {0};
    struct err err = {0};
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
    result = wire(&daemon, &options, &err);
    if (result == 0) {
        sd_notify(0, "READY=1");
        result = sd_event_loop(daemon.event);
    } else {
        log_error("%s", err.text);
    }
    unwire(&daemon);
    return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
