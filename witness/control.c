/* The witness's control socket: what an operator on this host may ask. */
#include "witness/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/seal.h"

#define BACKUP_PAUSE_US 2000u

static void handle_token(struct control_request *request, json_t *params, void *userdata)
{
    struct witness_control *control = userdata;
    char text[TOKEN_TEXT_SIZE];
    struct err err = {0};
    if (enrol_new_token(control->enrol, text, &err) < 0) {
        control_fail_err(request, &err);
        return;
    }
    log_notice("a token for one enrolment was made, valid for %d minutes", ENROL_TOKEN_LIFE_S / 60);
    control_reply(request, json_pack("{s:s, s:i}", "token", text, "seconds", ENROL_TOKEN_LIFE_S));
    seal_wipe(text, sizeof text);
}

static void handle_status(struct control_request *request, json_t *params, void *userdata)
{
    struct witness_control *control = userdata;
    json_t *status = server_status(control->server);
    if (status != NULL)
        json_object_set_new(status, "version", json_string(HCI_VERSION));
    control_reply(request, status);
}

static void handle_alert_test(struct control_request *request, json_t *params, void *userdata)
{
    struct witness_control *control = userdata;
    char sentence[256];
    alerts_test(control->alerts, sentence, sizeof sentence);
    control_reply(request, json_pack("{s:s}", "text", sentence));
}

static void handle_forget(struct control_request *request, json_t *params, void *userdata)
{
    struct witness_control *control = userdata;
    struct err err = {0};
    const char *name = json_string_value(json_object_get(params, "cluster"));
    if (name == NULL)
        control_fail(request, "invalid", "cluster.forget: \"cluster\" must be the name or the id of a cluster");
    else if (server_forget(control->server, name, &err) < 0)
        control_fail_err(request, &err);
    else
        control_reply(request, NULL);
}

static void end_backup(struct witness_control *control, const struct err *err)
{
    struct control_request *request = control->asked;
    control->asked = NULL;
    control->backing_up = sd_event_source_disable_unref(control->backing_up);
    if (err != NULL) {
        unlink(control->copy);
        log_warning("%s", err->text);
        control_fail_err(request, err);
        return;
    }
    log_notice("a backup of the store was made");
    control_reply(request, json_pack("{s:s}", "path", control->copy));
}

/* A few pages between two turns of the loop: nobody's lease waits for a backup. */
static int on_backup_step(sd_event_source *source, uint64_t now, void *userdata)
{
    struct witness_control *control = userdata;
    struct err err = {0};
    int more = store_backup_step(control->store, &err);
    if (more <= 0) {
        end_backup(control, more < 0 ? &err : NULL);
        return 0;
    }
    sd_event_source_set_time_relative(source, BACKUP_PAUSE_US);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void handle_backup(struct control_request *request, json_t *params, void *userdata)
{
    struct witness_control *control = userdata;
    struct err err = {0};
    if (control->asked != NULL) {
        control_fail(request, "busy", "backup: one is being made; wait until it has ended");
        return;
    }
    if ((size_t)snprintf(control->copy, sizeof control->copy, "%s/backup.db", control->state_folder) >= sizeof control->copy) {
        control_fail(request, "invalid", "state folder '%s': the path is too long", control->state_folder);
        return;
    }
    int error = store_backup_begin(control->store, control->copy, &err);
    if (error >= 0)
        error = sd_event_add_time_relative(control->event, &control->backing_up, CLOCK_MONOTONIC, 0, 0, on_backup_step,
                                           control);
    if (error < 0) {
        store_backup_end(control->store);
        control_fail(request, "io", "%s", err.text[0] != '\0' ? err.text : strerror(-error));
        return;
    }
    control->asked = request;
}

int witness_control_new(sd_event *event, const char *path, struct witness_control *control, struct control_server **ret,
                        struct err *err)
{
    static const struct control_method methods[] = {
        {"token.new", handle_token},
        {"status", handle_status},
        {"alert.test", handle_alert_test},
        {"backup", handle_backup},
        {"cluster.forget", handle_forget},
        {NULL, NULL},
    };
    return control_server_new(event, path, methods, control, ret, err);
}

void witness_control_end(struct witness_control *control)
{
    control->backing_up = sd_event_source_disable_unref(control->backing_up);
    if (control->asked != NULL)
        control_fail(control->asked, "unavailable", "backup: hci-witnessd is being stopped; ask again when it runs");
    control->asked = NULL;
}
