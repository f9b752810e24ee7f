/* What the server's files share. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "witness/server.h"

#define BATCH_MAX 256u /* datagrams of one turn of the loop: one commit for all of them */

/* A cluster's records before a change whose durability is not known yet. */
struct undo {
    struct served *served;
    struct record_cluster records;
    struct record_group groups[RECORD_GROUPS_MAX]; /* records.group_count of them */
    struct id incarnation;
};
struct outgoing {
    struct sockaddr_in to;
    uint8_t data[SEAL_DATAGRAM_MAX];
    size_t size;
};
struct incoming {
    struct sockaddr_in from;
    uint8_t data[SEAL_DATAGRAM_MAX + 1]; /* one more, to notice what is too long */
};

struct server {
    sd_event *event;
    sd_event_source *io, *probe;
    int fd;
    struct store *store;
    struct counters *counters;
    struct id boot;
    struct served_table table;
    struct limit strangers;
    /* the batch */
    bool changing;   /* a transaction is open */
    int change_error; /* it failed */
    bool full;       /* the disk takes no changes until a probe succeeds */
    bool failed;     /* what is on disk is not known: nothing more is answered */
    struct undo undo[BATCH_MAX];
    unsigned undo_count;
    struct incoming incoming[BATCH_MAX];
    struct outgoing outgoing[BATCH_MAX];
    unsigned outgoing_count;
};

/* Judges one admitted request and fills the reply's body. False: it must not be answered. */
bool server_answer(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                   struct wire_message *reply);
/* Puts the records back as they were: the room that was made meanwhile stays. */
void server_undo(const struct undo *undo);
/* Durable, then answered; or undone and not answered. */
void server_finish_batch(struct server *server);
