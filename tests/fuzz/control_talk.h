/* One connection to a control socket in this process: the input's lines go in, what comes back is checked for form. */
#pragma once

#include <systemd/sd-event.h>

#include "tests/fuzz/fuzz.h"

/* The first byte says in pieces of what size the rest is sent. Runs `event` meanwhile, until nothing is left to do. */
void control_talk(sd_event *event, const char *path, const uint8_t *data, size_t size);
