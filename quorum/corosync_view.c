/* Corosync's own view, kept by a helper thread that may block as long as it likes. */
#include "quorum/corosync_view.h"

#include <corosync/cmap.h>
#include <corosync/cpg.h>
#include <corosync/votequorum.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define REFRESH_MS 2000
#define LINKS_MAX 16u
#define KEY_SIZE 96u
#define OWN_NODE 0 /* votequorum: 0 is the node itself */
#define STACK_SIZE (512u * 1024)

struct snapshot {
    bool running, quorate;
    unsigned nodes, cpg_members;
    unsigned link_count;
    struct {
        char key[KEY_SIZE];
        bool connected;
    } links[LINKS_MAX];
};
struct corosync_view {
    pthread_t thread;
    pthread_mutex_t mutex; /* priority inheritance: the real-time loop reads under it */
    struct snapshot shown; /* under mutex */
    int stop_fd;
    /* the thread's own */
    struct snapshot next;
    cpg_handle_t cpg;
    cmap_handle_t cmap;
    votequorum_handle_t votequorum;
    bool connected;
};

static void on_members(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members,
                       size_t member_count, const struct cpg_address *left, size_t left_count,
                       const struct cpg_address *joined, size_t joined_count)
{
    void *context = NULL;
    if (cpg_context_get(handle, &context) == CS_OK && context != NULL)
        ((struct corosync_view *)context)->next.cpg_members = (unsigned)member_count;
}

static void disconnect(struct corosync_view *view)
{
    if (view->cpg != 0)
        cpg_finalize(view->cpg);
    if (view->cmap != 0)
        cmap_finalize(view->cmap);
    if (view->votequorum != 0)
        votequorum_finalize(view->votequorum);
    view->cpg = 0;
    view->cmap = 0;
    view->votequorum = 0;
    view->connected = false;
    memset(&view->next, 0, sizeof view->next);
}

static bool connect_all(struct corosync_view *view)
{
    static const cpg_callbacks_t callbacks = {.cpg_confchg_fn = on_members};
    struct cpg_name group = {.length = 7, .value = "hci-qrm"};
    if (cpg_initialize(&view->cpg, (cpg_callbacks_t *)&callbacks) != CS_OK) {
        view->cpg = 0;
        return false;
    }
    if (cpg_context_set(view->cpg, view) != CS_OK || cpg_join(view->cpg, &group) != CS_OK)
        return false;
    if (cmap_initialize_map(&view->cmap, CMAP_MAP_STATS) != CS_OK) {
        view->cmap = 0;
        return false;
    }
    if (votequorum_initialize(&view->votequorum, NULL) != CS_OK) {
        view->votequorum = 0;
        return false;
    }
    return true;
}

/* Keys like stats.knet.node2.link0.connected. */
static bool read_links(struct corosync_view *view)
{
    cmap_iter_handle_t iterator;
    char key[CMAP_KEYNAME_MAXLEN + 1];
    size_t size;
    cmap_value_types_t type;
    view->next.link_count = 0;
    if (cmap_iter_init(view->cmap, "stats.knet.node", &iterator) != CS_OK)
        return false;
    while (view->next.link_count < LINKS_MAX && cmap_iter_next(view->cmap, iterator, key, &size, &type) == CS_OK) {
        uint8_t connected;
        const char *tail = strrchr(key, '.');
        if (tail == NULL || strcmp(tail, ".connected") != 0 || strlen(key) >= KEY_SIZE ||
            cmap_get_uint8(view->cmap, key, &connected) != CS_OK)
            continue;
        strcpy(view->next.links[view->next.link_count].key, key);
        view->next.links[view->next.link_count++].connected = connected != 0;
    }
    cmap_iter_finalize(view->cmap, iterator);
    return true;
}

static void refresh(struct corosync_view *view)
{
    struct votequorum_info info;
    if (!view->connected)
        view->connected = connect_all(view);
    bool fine = view->connected && cpg_dispatch(view->cpg, CS_DISPATCH_ALL) == CS_OK &&
                votequorum_getinfo(view->votequorum, OWN_NODE, &info) == CS_OK &&
                read_links(view);
    if (fine) {
        view->next.running = true;
        view->next.quorate = (info.flags & VOTEQUORUM_INFO_QUORATE) != 0;
        view->next.nodes = info.total_votes;
    } else {
        disconnect(view);
    }
    pthread_mutex_lock(&view->mutex);
    view->shown = view->next;
    pthread_mutex_unlock(&view->mutex);
}

static void *run(void *argument)
{
    struct corosync_view *view = argument;
    for (;;) {
        refresh(view);
        int cpg_fd = -1;
        if (view->connected && cpg_fd_get(view->cpg, &cpg_fd) != CS_OK)
            cpg_fd = -1;
        struct pollfd fds[] = {{.fd = view->stop_fd, .events = POLLIN}, {.fd = cpg_fd, .events = POLLIN}};
        if (poll(fds, 2, REFRESH_MS) > 0 && fds[0].revents != 0)
            break;
    }
    disconnect(view);
    return NULL;
}

static int start_thread(struct corosync_view *view)
{
    pthread_attr_t attributes;
    struct sched_param ordinary = {0};
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    /* Explicit: by default it would inherit the loop's real-time priority. */
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
    pthread_attr_setschedparam(&attributes, &ordinary);
    int error = pthread_create(&view->thread, &attributes, run, view);
    pthread_attr_destroy(&attributes);
    return -error;
}

int corosync_view_new(struct corosync_view **ret)
{
    struct corosync_view *view = calloc(1, sizeof *view);
    if (view == NULL)
        return -ENOMEM;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&view->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    view->stop_fd = eventfd(0, EFD_CLOEXEC);
    int error = view->stop_fd < 0 ? -errno : start_thread(view);
    if (error < 0) {
        if (view->stop_fd >= 0)
            close(view->stop_fd);
        pthread_mutex_destroy(&view->mutex);
        free(view);
        return error;
    }
    *ret = view;
    return 0;
}

void corosync_view_free(struct corosync_view *view)
{
    if (view == NULL)
        return;
    uint64_t one = 1;
    if (write(view->stop_fd, &one, sizeof one) == sizeof one)
        pthread_join(view->thread, NULL);
    close(view->stop_fd);
    pthread_mutex_destroy(&view->mutex);
    free(view);
}

json_t *corosync_view_status(struct corosync_view *view)
{
    pthread_mutex_lock(&view->mutex);
    struct snapshot snapshot = view->shown;
    pthread_mutex_unlock(&view->mutex);
    if (!snapshot.running)
        return json_pack("{s:s}", "state", "not running");
    json_t *links = json_object();
    for (unsigned i = 0; i < snapshot.link_count; i++)
        json_object_set_new(links, snapshot.links[i].key, json_boolean(snapshot.links[i].connected));
    return json_pack("{s:s, s:b, s:i, s:i, s:o}", "state", "running", "quorate", snapshot.quorate, "votes",
                     (int)snapshot.nodes, "cpg_members", (int)snapshot.cpg_members, "links", links);
}
