/* The control thread's life: mail from the engine becomes events, questions to quorumd and answers to people. */
#include "storaged/control/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/check.h"
#include "storaged/control/control_private.h"

/* ---- the engine's port: on the data thread ----------------------------------------------------------------------------- */

static struct notice *notice_new(int kind)
{
    struct notice *notice = calloc(1, sizeof *notice);
    check(notice);
    notice->kind = kind;
    return notice;
}

static void notice_post(struct control *control, struct notice *notice)
{
    pthread_mutex_lock(&control->lock);
    list_append(&control->notices, &notice->link);
    pthread_mutex_unlock(&control->lock);
    check(eventfd_write(control->wake_fd, 1) == 0);
}

static void port_cas(void *userdata, const struct engine_cas *cas)
{
    struct notice *notice = notice_new(NOTICE_CAS);
    notice->cas = *cas;
    notice_post(userdata, notice);
}

static void port_ask_peer_lease(void *userdata, const struct id *group)
{
    struct notice *notice = notice_new(NOTICE_PEER_LEASE);
    notice->group = *group;
    notice_post(userdata, notice);
}

static void port_claim(void *userdata, const struct engine_claim *claim)
{
    struct notice *notice = notice_new(NOTICE_CLAIM);
    notice->claim = *claim;
    notice_post(userdata, notice);
}

static void port_records_applied(void *userdata, uint64_t counter)
{
    struct notice *notice = notice_new(NOTICE_APPLIED);
    notice->counter = counter;
    notice_post(userdata, notice);
}

static void port_group_changed(void *userdata, const struct engine_group_state *state)
{
    struct notice *notice = notice_new(NOTICE_GROUP);
    notice->state = *state;
    notice_post(userdata, notice);
}

static void port_meta_changed(void *userdata, const struct id *group, const char *name, uint64_t version)
{
    struct notice *notice = notice_new(NOTICE_META);
    notice->meta.group = *group;
    notice->meta.version = version;
    snprintf(notice->meta.name, sizeof notice->meta.name, "%s", name);
    notice_post(userdata, notice);
}

static void port_link_changed(void *userdata, bool connected)
{
    struct notice *notice = notice_new(NOTICE_LINK);
    notice->up = connected;
    notice_post(userdata, notice);
}

static void port_resync_changed(void *userdata, const struct engine_resync_state *state)
{
    struct notice *notice = notice_new(NOTICE_RESYNC);
    notice->resync = *state;
    notice_post(userdata, notice);
}

static void port_disk_changed(void *userdata, const struct pool_disk_info *disk, bool gone)
{
    struct notice *notice = notice_new(NOTICE_DISK);
    notice->disk.info = *disk;
    notice->disk.gone = gone;
    notice_post(userdata, notice);
}

void control_post_call(struct control *control, struct engine_call *call)
{
    struct notice *notice = notice_new(NOTICE_CALL);
    notice->call = call;
    notice_post(control, notice);
}

void control_post_work(struct control *control, struct work *work)
{
    struct notice *notice = notice_new(NOTICE_WORK);
    notice->work = work;
    notice_post(control, notice);
}

struct engine_port control_port(struct control *control)
{
    return (struct engine_port){
        .userdata = control,
        .cas = port_cas,
        .ask_peer_lease = port_ask_peer_lease,
        .claim = port_claim,
        .records_applied = port_records_applied,
        .group_changed = port_group_changed,
        .meta_changed = port_meta_changed,
        .link_changed = port_link_changed,
        .resync_changed = port_resync_changed,
        .disk_changed = port_disk_changed,
    };
}

/* ---- on the control thread --------------------------------------------------------------------------------------------------- */

/* Keeps what a new subscriber is told. */
static void remember_state(struct control *control, const struct engine_group_state *state)
{
    unsigned index = 0;
    while (index < control->state_count && !id_equal(&control->states[index].group, &state->group))
        index++;
    if (state->gone) {
        if (index < control->state_count)
            control->states[index] = control->states[--control->state_count];
        return;
    }
    if (index == POOL_GROUPS_MAX)
        return;
    control->states[index] = *state;
    if (index == control->state_count)
        control->state_count++;
}

static void publish_resync(struct control *control, const struct engine_resync_state *state)
{
    static const char *const names[] = {"started", "done", "interrupted"};
    control_publish(control->server, "resync",
                    json_pack("{s:o, s:s, s:s, s:s, s:I, s:f}", "group", json_of_id(&state->group), "name", state->name,
                              "kind", state->reconcile ? "reconcile" : "resync", "state", names[state->state], "bytes_copied", (json_int_t)state->bytes_copied, "seconds", state->seconds));
}

static void notice_handle(struct control *control, struct notice *notice)
{
    switch (notice->kind) {
    case NOTICE_CAS: quorum_ask_cas(control, &notice->cas); break;
    case NOTICE_PEER_LEASE: quorum_ask_peer_lease(control, &notice->group); break;
    case NOTICE_CLAIM:
        control->claim = notice->claim;
        quorum_claim(control);
        break;
    case NOTICE_APPLIED: quorum_applied(control, notice->counter); break;
    case NOTICE_GROUP:
        remember_state(control, &notice->state);
        control_publish(control->server, "group", json_of_group_state(control, &notice->state));
        break;
    case NOTICE_META:
        control_publish(control->server, "meta",
                        json_pack("{s:o, s:s, s:I}", "group", json_of_id(&notice->meta.group), "name", notice->meta.name, "version",
                                  (json_int_t)notice->meta.version));
        break;
    case NOTICE_LINK:
        control->link_up = notice->up;
        control_publish(control->server, "link", json_pack("{s:b}", "connected", notice->up));
        break;
    case NOTICE_RESYNC: publish_resync(control, &notice->resync); break;
    case NOTICE_CALL: pending_answer(control, notice->call); break;
    case NOTICE_DISK: disk_tell(control, &notice->disk.info, notice->disk.gone); break;
    case NOTICE_WORK: work_handle(control, notice->work); break;
    }
}

static int woken(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct control *control = userdata;
    eventfd_t count;
    struct list notices;
    list_init(&notices);
    (void)eventfd_read(fd, &count);
    pthread_mutex_lock(&control->lock);
    while (!list_is_empty(&control->notices)) {
        struct list *item = control->notices.next;
        list_remove(item);
        list_append(&notices, item);
    }
    pthread_mutex_unlock(&control->lock);
    while (!list_is_empty(&notices)) {
        struct notice *notice = list_entry(notices.next, struct notice, link);
        list_remove(&notice->link);
        notice_handle(control, notice);
        free(notice);
    }
    return 0;
}

int control_new(sd_event *event, const struct site *site, struct control **ret, struct err *err)
{
    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return err_set(err, -ENOMEM, "memory", "control thread: no memory");
    control->event = event;
    control->site = site;
    list_init(&control->notices);
    pthread_mutex_init(&control->lock, NULL);
    control->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (control->wake_fd < 0) {
        int error = -errno;
        free(control);
        return err_set(err, error, "io", "control thread: no event descriptor (%s)", strerror(-error));
    }
    *ret = control;
    return 0;
}

int control_start(struct control *control, struct engine *engine, struct err *err)
{
    char path[160];
    control->engine = engine;
    snprintf(path, sizeof path, "%s/storaged.sock", control->site->run_folder);
    int error = control_server_new(control->event, path, control_methods, control, &control->server, err);
    if (error < 0)
        return error;
    error = sd_event_add_io(control->event, &control->wake, control->wake_fd, EPOLLIN, woken, control);
    if (error >= 0 && !control->site->standalone)
        error = quorum_start(control);
    if (error < 0)
        return err_set(err, error, "io", "control thread: cannot start (%s)", strerror(-error));
    return 0;
}

static void drop_notices(struct control *control)
{
    list_for_each_safe(item, after, &control->notices) {
        struct notice *notice = list_entry(item, struct notice, link);
        if (notice->kind == NOTICE_CALL)
            pending_answer(control, notice->call);
        else if (notice->kind == NOTICE_WORK)
            work_handle(control, notice->work);
        free(notice);
    }
}

void control_free(struct control *control)
{
    if (!control)
        return;
    if (control->quorumd)
        control_client_free(control->quorumd);
    if (control->server)
        control_server_free(control->server);
    control->stopping = true;
    if (control->work)
        pthread_join(control->work->thread, NULL); /* its notice is the last that comes */
    drop_notices(control);
    sd_event_source_unref(control->wake);
    close(control->wake_fd);
    pthread_mutex_destroy(&control->lock);
    free(control);
}
