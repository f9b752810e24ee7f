/* The words of an alert: at three in the morning they must say what happened, since when, what is still safe, what to do. */
#pragma once

#include <time.h>

#include "witness/alert.h"
#include "witness/alert_core.h"

struct alert_names {
    const char *site, *nodes[2];
    struct id site_id;
};

/* `now`: seconds since 1970, at facts->now_ns. */
void alert_describe(const struct alert_change *change, const struct alert_facts *facts, const struct alert_names *names,
                    time_t now, struct alert *ret);
/* About the witness itself; `key` and `kind` are the same word. */
void alert_describe_own(const char *kind, bool raised, time_t since, time_t now, const char *sentence, struct alert *ret);
