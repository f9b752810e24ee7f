/* Takes alerts somewhere slow: a thread with a bounded queue, that tries each one again with growing pauses. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "common/err.h"
#include "witness/alert.h"
#include "witness/counters.h"

#define COURIER_QUEUE_MAX 64u
#define COURIER_FIRST_PAUSE_S 1u
#define COURIER_PAUSE_MAX_S 60u
#define COURIER_GIVE_UP_S 3600u

struct courier;

/* On the thread. 0, or a negative errno to have it tried again with `err` saying why (never a secret). Returns soon after
 * `*stopping` is set. */
typedef int courier_deliver(const struct alert *alert, const atomic_bool *stopping, void *userdata, struct err *err);

/* `name` goes into log lines ("webhook"). All are borrowed and outlive the courier. */
int courier_new(const char *name, courier_deliver *deliver, void *userdata, struct counters *counters,
                struct courier **ret, struct err *err);
/* What is still queued is not delivered. */
void courier_free(struct courier *courier);
/* Copies; a full queue drops this alert, counts it and says so in the log. */
void courier_send(struct courier *courier, const struct alert *alert);
