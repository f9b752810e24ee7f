/* Looks at every cluster once a second, a slice at a time, and tells what people must know. */
#pragma once

#include <systemd/sd-event.h>

#include "witness/alerts.h"
#include "witness/config.h"
#include "witness/counters.h"
#include "witness/server.h"
#include "witness/store.h"

struct watch;

/* All are borrowed. */
int watch_new(sd_event *event, struct server *server, struct store *store, const struct config *config,
              struct alerts *alerts, struct counters *counters, struct watch **ret, struct err *err);
void watch_free(struct watch *watch);
