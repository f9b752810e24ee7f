/* hci-storaged: configuration → engine on its data thread, control on this one. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "common/seal.h"
#include "storaged/control/control.h"
#include "storaged/iscsi/iscsi_target.h"

struct daemon {
    struct site site;
    struct tls_identity *identity;
    sd_event *event;
    struct control *control;
    struct engine *engine;
    pthread_t thread;
    int engine_result;
};

static void *run_engine(void *argument)
{
    struct daemon *daemon = argument;
    daemon->engine_result = engine_run(daemon->engine);
    if (daemon->engine_result < 0)
        log_error("the data thread ended: %s", strerror(-daemon->engine_result));
    kill(getpid(), SIGTERM); /* the control thread's loop ends, too */
    return NULL;
}

static int load(struct daemon *daemon, const char *path, struct err *err)
{
    int error = site_load(path, &daemon->site, err);
    if (error < 0 || daemon->site.standalone)
        return error; /* without a peer nobody has to be convinced of who we are */
    char ca[256], certificate[256], key[256];
    snprintf(ca, sizeof ca, "%s/ca.crt", daemon->site.pki_folder);
    snprintf(certificate, sizeof certificate, "%s/node.crt", daemon->site.pki_folder);
    snprintf(key, sizeof key, "%s/node.key", daemon->site.pki_folder);
    return tls_identity_load(ca, certificate, key, &daemon->identity, err);
}

/* A pool that cannot be opened is told by every verb that needs one; the rest works, so that people can ask. */
static void open_pool(struct daemon *daemon)
{
    struct pool_places places;
    const char *list[POOL_DISKS_MAX];
    struct err err;
    int error = control_load_pool_places(&daemon->site, &places, &err);
    for (unsigned i = 0; i < places.count; i++)
        list[i] = places.paths[i];
    engine_give_up_disks(daemon->engine, places.lost, places.lost_count);
    if (error == 0 && places.count)
        error = engine_open_pool(daemon->engine, list, places.count, &err);
    if (error < 0)
        log_error("%s", err.text);
    else if (places.count == 0)
        log_notice("this node has no pool yet; make one with 'hcictl pool create'");
}

/* Initiators, strangers among them, may be more than the usual 1024 (iscsi_target.h); disks, sockets and files beside. */
static void allow_descriptors(void)
{
    struct rlimit limit;
    rlim_t wanted = ISCSI_CONNECTIONS_MAX + 512;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < wanted)
        log_warning("at most %llu descriptors: many initiators at once may have to wait", (unsigned long long)limit.rlim_cur);
}

static int start(struct daemon *daemon, struct err *err)
{
    int error = sd_event_default(&daemon->event);
    if (error < 0)
        return err_set(err, error, "io", "no event loop (%s)", strerror(-error));
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    sd_event_add_signal(daemon->event, NULL, SIGTERM, NULL, NULL);
    sd_event_add_signal(daemon->event, NULL, SIGINT, NULL, NULL);
    signal(SIGPIPE, SIG_IGN);
    allow_descriptors();
    error = control_new(daemon->event, &daemon->site, &daemon->control, err);
    if (error < 0)
        return error;
    struct engine_options options = {.site = &daemon->site, .identity = daemon->identity, .port = control_port(daemon->control)};
    error = engine_new(&options, &daemon->engine, err);
    if (error < 0)
        return error;
    error = control_start(daemon->control, daemon->engine, err);
    if (error < 0)
        return error;
    open_pool(daemon);
    error = -pthread_create(&daemon->thread, NULL, run_engine, daemon);
    return error < 0 ? err_set(err, error, "io", "no data thread (%s)", strerror(-error)) : 0;
}

static int run(struct daemon *daemon)
{
    sd_notify(0, "READY=1");
    log_notice("node %s of cluster %s: storage runs%s", site_self(&daemon->site)->name, daemon->site.name,
               daemon->site.standalone ? "; it stands alone: nothing is mirrored" : "");
    int result = sd_event_loop(daemon->event);
    engine_stop(daemon->engine);
    pthread_join(daemon->thread, NULL);
    control_free(daemon->control);
    engine_free(daemon->engine);
    tls_identity_free(daemon->identity);
    sd_event_unref(daemon->event);
    return result < 0 || daemon->engine_result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static const struct option options_table[] = {
    {"config", required_argument, NULL, 'c'}, {"debug", no_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'v'}, {0},
};

int main(int argc, char **argv)
{
    const char *config = SITE_CONFIG_PATH;
    enum log_level level = LOG_LEVEL_INFO;
    int option;
    while ((option = getopt_long(argc, argv, "", options_table, NULL)) != -1) {
        switch (option) {
        case 'c': config = optarg; break;
        case 'd': level = LOG_LEVEL_DEBUG; break;
        case 'v': puts("hci-storaged " HCI_VERSION); return EXIT_SUCCESS;
        default:
            fprintf(option == 'h' ? stdout : stderr, "usage: hci-storaged [--config FILE] [--debug] [--version]\n");
            return option == 'h' ? EXIT_SUCCESS : EXIT_FAILURE;
        }
    }
    log_init("hci-storaged", level);
    static struct daemon daemon;
    struct err err;
    if (seal_init() < 0) {
        log_error("libsodium cannot be initialised");
        return EXIT_FAILURE;
    }
    if (load(&daemon, config, &err) < 0 || start(&daemon, &err) < 0) {
        log_error("%s", err.text);
        return EXIT_FAILURE;
    }
    return run(&daemon);
}
