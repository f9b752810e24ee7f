/* The watchdog that ends this node when nobody feeds it: /dev/watchdog, or the lab's socket. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/site.h"

struct watchdog;

/* Opens nothing yet: opening a watchdog device feeds it, and a node whose last hci-quorumd died with guests running
 * must not be fed by the next one before rule R11 allows it. */
int watchdog_new(const struct site *site, struct watchdog **ret);
/* Closes without disarming: the countdown goes on. */
void watchdog_free(struct watchdog *watchdog);
/* Arms it when it is not, then feeds it, at most once each period/10. Never blocks. */
void watchdog_feed(struct watchdog *watchdog, uint64_t now_ns);
/* A clean stop: nothing runs here that the watchdog would have to end. */
void watchdog_disarm(struct watchdog *watchdog);
/* R11: armed period + reset time, or WIRE_T_KILL_NONE while none is armed. */
uint32_t watchdog_t_kill_ms(const struct watchdog *watchdog);
/* What a person must know about it: one sentence, borrowed. */
const char *watchdog_sentence(const struct watchdog *watchdog);
