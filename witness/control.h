/* The witness's control socket: token.new, status, alert.test, backup, cluster.forget. */
#pragma once

#include <systemd/sd-event.h>

#include "common/control.h"
#include "witness/alerts.h"
#include "witness/enrol.h"
#include "witness/server.h"

struct witness_control {
    sd_event *event;
    struct server *server;
    struct enrol *enrol;
    struct store *store;
    struct alerts *alerts;
    const char *state_folder;
    /* a backup under way */
    sd_event_source *backing_up;
    struct control_request *asked;
    char copy[256];
};

/* `control` is borrowed and outlives the returned server; witness_control_end before it goes. */
int witness_control_new(sd_event *event, const char *path, struct witness_control *control, struct control_server **ret,
                        struct err *err);
void witness_control_end(struct witness_control *control);
