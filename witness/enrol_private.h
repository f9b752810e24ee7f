/* What enrolment's two files share: the connections (enrol.c) and the answers (enrol_answer.c). */
#pragma once

#include <pthread.h>

#include "common/tls.h"
#include "witness/enrol.h"
#include "witness/limit.h"

struct visitor;

/* The one thing that the thread asks of the loop: at most one at a time, and the thread waits for the answer. */
struct errand {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool asked, closed;
    struct store_cluster *cluster;
    const uint8_t *token_hash;
    int (*run)(struct server *server, struct store_cluster *cluster, const uint8_t *token_hash, struct err *err);
    int result;
    struct err *err;
};

struct enrol {
    /* the loop's */
    sd_event_source *asking;
    struct server *server;
    struct store *store;
    struct counters *counters;
    /* both sides' */
    struct errand errand;
    int ask_fd, stop_fd; /* eventfds: thread → loop, loop → thread */
    uint8_t ca_sha256[32];
    /* the thread's, once it runs */
    pthread_t thread;
    bool running;
    sd_event *event;
    sd_event_source *accepting, *stopping;
    int fd;
    struct id witness;
    struct tls_identity *identity;
    struct limit handshakes;
    struct visitor *visitors[ENROL_CONNECTIONS_MAX];
};

/* On the thread: what a request is answered; NULL with `err` filled when it is refused. */
json_t *enrol_answer(struct enrol *enrol, json_t *request, struct err *err);
/* On the loop: does what the thread asks. */
int enrol_on_asked(sd_event_source *source, int fd, uint32_t events, void *userdata);
