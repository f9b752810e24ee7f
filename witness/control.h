/* The witness's control socket: token.new, status. */
#pragma once

#include <systemd/sd-event.h>

#include "common/control.h"
#include "witness/enrol.h"
#include "witness/server.h"

struct witness_control {
    struct server *server;
    struct enrol *enrol;
};

/* `control` is borrowed and outlives the returned server. */
int witness_control_new(sd_event *event, const char *path, struct witness_control *control, struct control_server **ret,
                        struct err *err);
