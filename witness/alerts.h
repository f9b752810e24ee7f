/* Where every alert goes: into the journal at once; to the webhook and the hook at a bounded rate, the rest summed up. */
#pragma once

#include <systemd/sd-event.h>

#include "common/err.h"
#include "witness/alert.h"
#include "witness/config.h"
#include "witness/counters.h"

#define ALERTS_BURST 20u    /* delivered one by one … */
#define ALERTS_EACH_S 6u    /* … and then one in so many seconds; what exceeds it is one alert "many" a minute */

struct alerts;

/* `config` and `counters` are borrowed. */
int alerts_new(sd_event *event, struct config *config, struct counters *counters, struct alerts **ret, struct err *err);
void alerts_free(struct alerts *alerts);
void alerts_tell(struct alerts *alerts, const struct alert *alert);
/* An alert "test" to everybody; gives the sentence that says where it went. */
void alerts_test(struct alerts *alerts, char *ret_sentence, size_t size);
