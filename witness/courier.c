/* The thread behind a webhook or a hook: in the order of the queue, one at a time. */
#include "witness/courier.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"

struct courier {
    const char *name;
    courier_deliver *deliver;
    void *userdata;
    struct counters *counters;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_bool stopping;
    struct alert queue[COURIER_QUEUE_MAX];
    unsigned first, count;
    bool dropping; /* said once per jam */
};

static bool next(struct courier *courier, struct alert *ret)
{
    pthread_mutex_lock(&courier->lock);
    while (courier->count == 0 && !courier->stopping)
        pthread_cond_wait(&courier->changed, &courier->lock);
    bool found = !courier->stopping;
    if (found) {
        *ret = courier->queue[courier->first];
        courier->first = (courier->first + 1) % COURIER_QUEUE_MAX;
        courier->count--;
        courier->dropping = false;
    }
    pthread_mutex_unlock(&courier->lock);
    return found;
}

static void pause_for(struct courier *courier, unsigned seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&courier->lock);
    while (!courier->stopping && pthread_cond_timedwait(&courier->changed, &courier->lock, &until) != ETIMEDOUT)
        ; /* a new alert waits for its turn */
    pthread_mutex_unlock(&courier->lock);
}

static void deliver(struct courier *courier, const struct alert *alert)
{
    unsigned pause_s = COURIER_FIRST_PAUSE_S;
    uint64_t start_ns = clock_boottime_ns();
    while (!courier->stopping) {
        struct err err = {0};
        if (courier->deliver(alert, &courier->stopping, courier->userdata, &err) == 0) {
            count_add(courier->counters, COUNT_DELIVERIES);
            return;
        }
        count_add(courier->counters, COUNT_DELIVERIES_FAILED);
        if (courier->stopping)
            return;
        if (clock_boottime_ns() - start_ns > COURIER_GIVE_UP_S * NSEC_PER_SEC) {
            count_add(courier->counters, COUNT_ALERTS_DROPPED);
            log_error("%s: the alert '%s' was given up after an hour of trying: %s", courier->name, alert->key, err.text);
            return;
        }
        log_warning("%s: the alert '%s' was not delivered: %s; trying again in %u s", courier->name, alert->key, err.text,
                    pause_s);
        pause_for(courier, pause_s);
        pause_s = 2 * pause_s < COURIER_PAUSE_MAX_S ? 2 * pause_s : COURIER_PAUSE_MAX_S;
    }
}

static void *run(void *userdata)
{
    struct courier *courier = userdata;
    struct alert alert;
    while (next(courier, &alert))
        deliver(courier, &alert);
    return NULL;
}

int courier_new(const char *name, courier_deliver *deliver_one, void *userdata, struct counters *counters,
                struct courier **ret, struct err *err)
{
    struct courier *courier = calloc(1, sizeof *courier);
    if (courier == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    *courier = (struct courier){.name = name, .deliver = deliver_one, .userdata = userdata, .counters = counters};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&courier->lock, NULL);
    pthread_cond_init(&courier->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int error = pthread_create(&courier->thread, NULL, run, courier);
    if (error != 0) {
        pthread_cond_destroy(&courier->changed);
        pthread_mutex_destroy(&courier->lock);
        free(courier);
        return err_set(err, -error, "io", "%s: its thread cannot be started (%s)", name, strerror(error));
    }
    *ret = courier;
    return 0;
}

void courier_free(struct courier *courier)
{
    if (courier == NULL)
        return;
    pthread_mutex_lock(&courier->lock);
    courier->stopping = true;
    pthread_cond_signal(&courier->changed);
    pthread_mutex_unlock(&courier->lock);
    pthread_join(courier->thread, NULL);
    pthread_cond_destroy(&courier->changed);
    pthread_mutex_destroy(&courier->lock);
    free(courier);
}

void courier_send(struct courier *courier, const struct alert *alert)
{
    bool full, say = false;
    pthread_mutex_lock(&courier->lock);
    full = courier->count == COURIER_QUEUE_MAX;
    if (full) {
        say = !courier->dropping;
        courier->dropping = true;
    } else {
        courier->queue[(courier->first + courier->count++) % COURIER_QUEUE_MAX] = *alert;
        pthread_cond_signal(&courier->changed);
    }
    pthread_mutex_unlock(&courier->lock);
    if (full)
        count_add(courier->counters, COUNT_ALERTS_DROPPED);
    if (say)
        log_error("%s: %u alerts wait to be delivered; later ones are dropped until it works again", courier->name,
                  COURIER_QUEUE_MAX);
}
