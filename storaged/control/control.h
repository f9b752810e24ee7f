/* The control thread: storaged's control socket, its connection to quorumd, and the mail to and from the engine. */
#pragma once

#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/site.h"
#include "storaged/engine/engine.h"

struct control;

/* Before the engine: its port needs an address. Callbacks of the port may come as soon as the engine runs. */
int control_new(sd_event *event, const struct site *site, struct control **ret, struct err *err);
struct engine_port control_port(struct control *control);
/* Opens the socket and connects to quorumd. */
int control_start(struct control *control, struct engine *engine, struct err *err);
/* After the engine's thread has ended. */
void control_free(struct control *control);

/* What state_folder/pool.json remembers; 0 with a count of 0 when there is no pool yet. */
struct pool_places {
    unsigned count, lost_count;
    char paths[POOL_DISKS_MAX][256];
    struct id lost[POOL_DISKS_MAX]; /* given up by a person, not yet struck from the pool */
};
int control_load_pool_places(const struct site *site, struct pool_places *ret, struct err *err);
