/* This node's guests: carries out what the freeze core decides, and remembers the list across a restart. */
#include "quorum/guests.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/log.h"
#include "quorum/daemon.h"
#include "quorum/freezer.h"

#define START_GRACE_MS 1000u
#define LIST_SIZE_MAX (128u * 1024)

static void note_result(struct guests *guests, unsigned index)
{
    struct freeze_event event = {.kind = FREEZE_EV_RESULT, .index = index};
    struct freeze_guest *guest = &guests->freeze.guests[index];
    enum freeze_state before = guest->state;
    event.result = freezer_read(guest->cgroup);
    guests_step(guests, &event);
    if (before != FREEZE_FROZEN && guest->state == FREEZE_FROZEN)
        log_notice("guest '%s' is frozen (it lives on: %s)", guest->name,
                   freeze_basis_name(freeze_basis_of(&guests->freeze, guest)));
}

static void carry_out(struct guests *guests, const struct freeze_actions *actions)
{
    for (unsigned i = 0; i < guests->freeze.guest_count; i++) {
        const struct freeze_guest *guest = &guests->freeze.guests[i];
        if (actions->freeze & UINT64_C(1) << i) {
            int error = freezer_order(guest->cgroup, true);
            if (error < 0 && error != -ENOENT)
                log_error("guest '%s': cannot be frozen (%s); the watchdog is not fed", guest->name, strerror(-error));
        }
        if ((actions->freeze | actions->verify) & UINT64_C(1) << i)
            note_result(guests, i);
    }
    if (actions->thaw >= 0) {
        const struct freeze_guest *guest = &guests->freeze.guests[actions->thaw];
        int error = freezer_order(guest->cgroup, false);
        if (error < 0)
            log_error("guest '%s': cannot be thawed (%s)", guest->name, strerror(-error));
        else
            log_notice("guest '%s' is thawed", guest->name);
    }
}

struct freeze_actions guests_step(struct guests *guests, struct freeze_event *event)
{
    struct freeze_actions actions;
    struct daemon *daemon = guests->daemon;
    event->now_ns = clock_boottime_ns();
    event->peer_valid = daemon->lease.until_ns[LEASE_FROM_PEER] > event->now_ns;
    freeze_step(&guests->freeze, event, &actions);
    if (event->kind == FREEZE_EV_RESULT) {
        if (actions.frozen_changed)
            control_publish(daemon->control, "guests", guests_event(guests));
        return actions;
    }
    carry_out(guests, &actions);
    if (actions.frozen_changed && event->kind != FREEZE_EV_GUESTS)
        control_publish(daemon->control, "guests", guests_event(guests));
    /* R11: asked again, because freezing has just been verified or not. */
    if (freeze_may_feed(&guests->freeze))
        watchdog_feed(daemon->watchdog, event->now_ns);
    return actions;
}

static int take_guest(const char *root, json_t *entry, struct freeze_guest *ret, struct err *err)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *group = json_string_value(json_object_get(entry, "group"));
    const char *cgroup = json_string_value(json_object_get(entry, "cgroup"));
    json_int_t incarnation = json_integer_value(json_object_get(entry, "incarnation"));
    size_t root_length = strlen(root);
    memset(ret, 0, sizeof *ret);
    if (name == NULL || name[0] == '\0' || strlen(name) >= FREEZE_NAME_SIZE)
        return err_set(err, -EINVAL, "invalid", "guests.set: each guest needs a name of 1 to %u bytes", FREEZE_NAME_SIZE - 1);
    if (group == NULL || id_parse(group, &ret->group) < 0 || incarnation < 0)
        return err_set(err, -EINVAL, "invalid", "guest '%s': needs its group's id and its incarnation", name);
    /* Whoever may write a cgroup here freezes it: nothing outside the guests' own root. */
    if (cgroup == NULL || strlen(cgroup) >= FREEZE_PATH_SIZE || strncmp(cgroup, root, root_length) != 0 ||
        cgroup[root_length] != '/' || strstr(cgroup, "..") != NULL)
        return err_set(err, -EINVAL, "invalid", "guest '%s': its cgroup '%s' must be a folder below %s", name,
                       cgroup == NULL ? "" : cgroup, root);
    strcpy(ret->name, name);
    strcpy(ret->cgroup, cgroup);
    ret->incarnation = (uint64_t)incarnation;
    return 0;
}

static int take_list(struct guests *guests, json_t *list, struct err *err)
{
    struct freeze_guest items[FREEZE_GUESTS_MAX];
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > FREEZE_GUESTS_MAX)
        return err_set(err, -EINVAL, "invalid", "guests.set: needs a list of at most %u guests", FREEZE_GUESTS_MAX);
    for (size_t i = 0; i < count; i++) {
        int error = take_guest(guests->daemon->site.cgroup_root, json_array_get(list, i), &items[i], err);
        if (error < 0)
            return error;
        for (size_t j = 0; j < i; j++)
            if (strcmp(items[j].name, items[i].name) == 0)
                return err_set(err, -EINVAL, "invalid", "guests.set: guest '%s' is named twice", items[i].name);
    }
    struct freeze_event event = {.kind = FREEZE_EV_GUESTS, .guests = items, .count = (unsigned)count};
    guests_step(guests, &event);
    return 0;
}

int guests_set(struct guests *guests, json_t *list, struct err *err)
{
    int error = take_list(guests, list, err);
    if (error < 0)
        return error;
    cleanup_free char *text = json_dumps(list, JSON_COMPACT);
    if (text == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-quorumd: out of memory");
    return files_replace(guests->path, text, strlen(text), 0600, err);
}

void guests_start(struct guests *guests, struct daemon *daemon)
{
    cleanup_free char *text = NULL;
    size_t size;
    struct err err = {0};
    struct freeze_config config = {.start_grace_ms = START_GRACE_MS, .sole_grace_ms = daemon->site.watchdog_ms / 2};
    guests->daemon = daemon;
    freeze_init(&guests->freeze, &config, clock_boottime_ns());
    snprintf(guests->path, sizeof guests->path, "%s/quorumd-guests.json", daemon->site.run_folder);
    if (files_read(guests->path, LIST_SIZE_MAX, &text, &size, &err) < 0)
        return;
    json_t *list = json_loadb(text, size, 0, NULL);
    if (take_list(guests, list, &err) < 0)
        log_error("file '%s': %s", guests->path, err.text);
    json_decref(list);
}

json_t *guests_event(const struct guests *guests)
{
    json_t *frozen = json_array();
    for (unsigned i = 0; i < guests->freeze.guest_count; i++)
        if (guests->freeze.guests[i].state == FREEZE_FROZEN)
            json_array_append_new(frozen, json_string(guests->freeze.guests[i].name));
    return json_pack("{s:o}", "frozen", frozen);
}
