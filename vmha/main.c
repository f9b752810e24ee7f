/* hci-vmhad: keeps the guests of this cluster running, each on one node at a time. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "common/files.h"
#include "common/log.h"
#include "common/seal.h"
#include "vmha/daemon.h"

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"debug", no_argument, NULL, 'd'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {0},
};

static const char usage[] = "usage: hci-vmhad [--config FILE] [--debug]\n"
                            "Runs in the foreground, logs to stderr or the journal. --help, --version\n";

struct settings {
    const char *config;
    enum log_level level;
};

/* Returns -1 to go on, else the exit code. */
static int read_options(int argc, char **argv, struct settings *settings)
{
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        switch (c) {
        case 'c': settings->config = optarg; break;
        case 'd': settings->level = LOG_LEVEL_DEBUG; break;
        case 'h': fputs(usage, stdout); return EXIT_SUCCESS;
        case 'v': puts("hci-vmhad " HCI_VERSION); return EXIT_SUCCESS;
        default: fputs(usage, stderr); return 2;
        }
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "hci-vmhad: '%s' is not an option\n%s", argv[optind], usage);
    return 2;
}

static void watch_signals(sd_event *event)
{
    sigset_t set;

    /* Blocked before the threads around libvirt exist, so that they inherit it. */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
    sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
}

static int run(const struct site *site)
{
    sd_event *event;
    struct daemon *daemon;
    struct err err;

    if (sd_event_default(&event) < 0)
        return EXIT_FAILURE;
    watch_signals(event);
    int r = files_make_folder(site->run_folder, 0750, &err);
    if (!r)
        r = daemon_new(event, site, &daemon, &err);
    if (r) {
        log_error("%s", err.text);
        sd_event_unref(event);
        return EXIT_FAILURE;
    }
    log_notice("hci-vmhad " HCI_VERSION " watches the guests of cluster '%s' on node %s", site->name,
               site_self(site)->name);
    sd_notify(0, "READY=1");
    r = sd_event_loop(event);
    sd_notify(0, "STOPPING=1");
    log_notice("hci-vmhad ends; its guests run on");
    daemon_free(daemon);
    sd_event_unref(event);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct settings settings = {SITE_CONFIG_PATH, LOG_LEVEL_INFO};
    struct site site;
    struct err err;

    int code = read_options(argc, argv, &settings);
    if (code >= 0)
        return code;
    log_init("hci-vmhad", settings.level);
    if (site_load(settings.config, &site, &err) || site_check_pair(settings.config, &site, "hci-vmhad", &err) || (seal_init() && err_set(&err, -1, "sodium", "libsodium does not "
                                                                           "start"))) {
        log_error("%s", err.text);
        return EXIT_FAILURE;
    }
    return run(&site);
}
