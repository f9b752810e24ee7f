/* hci-quorumd: reads the configuration, takes real-time priority, runs the loop. */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "quorum/daemon.h"

#define REALTIME_PRIORITY 50

struct options {
    const char *config;
    bool verbose;
};

static const struct {
    struct option option;
    const char *value, *help;
} option_table[] = {
    {{"config", required_argument, NULL, 'c'}, "FILE", "configuration (default " SITE_CONFIG_PATH "), secrets.conf beside it"},
    {{"verbose", no_argument, NULL, 'v'}, "", "log more"},
    {{"help", no_argument, NULL, 'h'}, "", "show this help"},
    {{"version", no_argument, NULL, 'V'}, "", "show the version"},
};
#define OPTION_COUNT (sizeof option_table / sizeof option_table[0])

static void print_help(void)
{
    puts("Usage: hci-quorumd [OPTION]…\nHeartbeats, leases, witness and watchdog of one node.\n");
    for (size_t i = 0; i < OPTION_COUNT; i++)
        printf("  --%-8s %-5s %s\n", option_table[i].option.name, option_table[i].value, option_table[i].help);
}

/* 0: go on, 1: done, negative: a usage error was told. */
static int parse_options(int argc, char **argv, struct options *ret)
{
    struct option table[OPTION_COUNT + 1] = {0};
    int letter;
    *ret = (struct options){.config = SITE_CONFIG_PATH};
    for (size_t i = 0; i < OPTION_COUNT; i++)
        table[i] = option_table[i].option;
    while ((letter = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (letter == 'c') {
            ret->config = optarg;
        } else if (letter == 'v') {
            ret->verbose = true;
        } else if (letter == 'h') {
            print_help();
            return 1;
        } else if (letter == 'V') {
            puts("hci-quorumd " HCI_VERSION);
            return 1;
        } else {
            fputs("hci-quorumd: see --help\n", stderr);
            return -EINVAL;
        }
    }
    if (optind == argc)
        return 0;
    fprintf(stderr, "hci-quorumd: argument '%s': is not known; see --help\n", argv[optind]);
    return -EINVAL;
}

static int load(const char *path, struct daemon *daemon, struct err *err)
{
    char secrets[512];
    const char *slash = strrchr(path, '/');
    int folder = slash == NULL ? 0 : (int)(slash - path + 1);
    int error = site_load(path, &daemon->site, err);
    if (error == 0)
        error = site_check_pair(path, &daemon->site, "hci-quorumd", err);
    if (error < 0)
        return error;
    if ((size_t)snprintf(secrets, sizeof secrets, "%.*ssecrets.conf", folder, path) >= sizeof secrets)
        return err_set(err, -ENAMETOOLONG, "invalid", "configuration '%s': the path is too long", path);
    error = site_load_secrets(secrets, &daemon->secrets, err);
    return error < 0 ? error : site_check_secrets(secrets, &daemon->site, &daemon->secrets, err);
}

/* Architecture: "it runs locked in memory at real-time priority". Where that is not permitted it runs without: the
 * rules hold at any speed, only false alarms become likelier. */
static void take_priority(void)
{
    struct sched_param parameter = {.sched_priority = REALTIME_PRIORITY};
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameter) < 0)
        log_warning("real-time priority is refused (%s): a busy host may cause false alarms; grant CAP_SYS_NICE",
                    strerror(errno));
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        log_warning("locking memory is refused (%s): memory pressure may cause false alarms; grant CAP_IPC_LOCK",
                    strerror(errno));
}

/* Before any thread starts: they all inherit that the loop takes these. */
static void block_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int run(struct daemon *daemon)
{
    sd_event_add_signal(daemon->event, NULL, SIGTERM, NULL, NULL);
    sd_event_add_signal(daemon->event, NULL, SIGINT, NULL, NULL);
    log_notice("node '%s' of cluster '%s' watches node '%s' on %u links", site_self(&daemon->site)->name, daemon->site.name,
               site_peer(&daemon->site)->name, daemon->heartbeat.link_count);
    sd_notify(0, "READY=1");
    return sd_event_loop(daemon->event);
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = {0};
    int result = parse_options(argc, argv, &options);
    if (result != 0)
        return result > 0 ? EXIT_SUCCESS : 2;
    log_init("hci-quorumd", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_NOTICE);
    block_signals();
    struct daemon *daemon = calloc(1, sizeof *daemon);
    if (daemon == NULL || seal_init() < 0) {
        log_error("hci-quorumd cannot start: no memory, or no source of random numbers");
        return EXIT_FAILURE;
    }
    result = load(options.config, daemon, &err);
    if (result == 0) {
        take_priority();
        result = daemon_start(daemon, &err);
    }
    if (result == 0)
        result = run(daemon);
    else
        log_error("%s", err.text);
    daemon_stop(daemon);
    free(daemon);
    return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
