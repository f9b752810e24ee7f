/* One TCP connection: assembles PDUs from the socket, sends PDUs from a queue. Knows nothing of what they mean: login
 * and session are told through iscsi_receiver. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "storaged/iscsi/iscsi_keys.h"
#include "storaged/iscsi/iscsi_memory.h"
#include "storaged/iscsi/iscsi_pdu.h"
#include "storaged/iscsi/iscsi_portal.h"
#include "storaged/ring.h"

#define ISCSI_RECEIVE_BUFFER 16384u

struct iscsi_target;
struct iscsi_session;
struct iscsi_login;
struct iscsi_task;

/* A PDU on its way out; embedded in whatever owns it, used for one PDU at a time. */
struct iscsi_send {
    struct list link;
    uint8_t header[ISCSI_BHS_SIZE + ISCSI_DIGEST_SIZE];
    uint8_t trailer[3 + ISCSI_DIGEST_SIZE]; /* padding and data digest */
    uint8_t header_size, trailer_size;
    bool queued;
    const uint8_t *data; /* the owner keeps it until `sent` */
    uint32_t data_size;
    void (*sent)(struct iscsi_send *send); /* may queue it again; not called when the connection is lost */
};

enum iscsi_connection_state {
    ISCSI_CONNECTION_LOGIN,
    ISCSI_CONNECTION_FULL,
    ISCSI_CONNECTION_CLOSED, /* socket closed; the memory goes in the next turn of the ring */
};

enum iscsi_receive_stage { ISCSI_RECEIVE_HEADER, ISCSI_RECEIVE_REST, ISCSI_RECEIVE_BEGIN, ISCSI_RECEIVE_DATA, ISCSI_RECEIVE_TRAILER };

struct iscsi_connection {
    struct iscsi_target *target;
    struct list link;          /* in the target's */
    struct list stranger_link; /* and in its strangers, until login */
    uint8_t bucket;            /* hash of the address */
    int state;
    int fd;
    struct ring_watch watch;
    unsigned events;
    struct ring_timer timer; /* login's deadline, afterwards the ping */
    struct ring_mail mail;
    bool mail_posted;
    char peer[ISCSI_ADDRESS_SIZE];

    /* receiving */
    uint8_t *input; /* ISCSI_RECEIVE_BUFFER; with the text buffers made when the first byte is there */
    size_t input_start, input_end;
    uint8_t header[ISCSI_BHS_SIZE + ISCSI_AHS_MAX + ISCSI_DIGEST_SIZE];
    uint8_t trailer[3 + ISCSI_DIGEST_SIZE];
    enum iscsi_receive_stage stage;
    size_t stage_size, stage_got; /* of header or trailer */
    struct iscsi_pdu pdu;
    uint8_t *sink;                /* where data goes: sink_size bytes, what is more is thrown away */
    uint32_t sink_size, data_got;
    uint32_t data_digest;
    struct iscsi_task *task;      /* the task that the current PDU belongs to, if any */
    bool deferred;                /* iscsi_receive_begin answered -EAGAIN for the current PDU */
    bool paused;                  /* reads nothing: waits for memory, or for the end of login */
    bool processing;
    bool heard;                   /* something came since the last ping tick */
    unsigned silent_ticks;
    uint64_t moved_ms;            /* when a byte came or went last */

    /* sending */
    struct list send_queue;
    size_t send_offset; /* of the first PDU, already in the socket */
    struct iscsi_send ping, reject, async;
    uint8_t rejected[ISCSI_BHS_SIZE];
    uint32_t stat_sn;

    struct iscsi_parameters parameters;
    struct iscsi_login *login;     /* until full feature phase */
    struct iscsi_session *session; /* in full feature phase */
    char *text_in;  /* ISCSI_TEXT_MAX */
    size_t text_in_size;
    char *text_out; /* ISCSI_LOGIN_SEGMENT_MAX */
    struct iscsi_send text_send;
    struct iscsi_task *text_task; /* whose answer is in text_out */
};

/* Takes the socket. -ENOMEM: it is closed. */
int iscsi_connection_new(struct iscsi_target *target, int fd, struct iscsi_connection **ret);
/* Ends it now: no more bytes either way. Safe from anywhere; the memory stays until the next turn. */
void iscsi_connection_close(struct iscsi_connection *connection, const char *reason);
/* The header's sequence numbers are filled in already. Digests are added as negotiated. */
void iscsi_connection_send(struct iscsi_connection *connection, struct iscsi_send *send);
/* True when the send is out of the queue; false when part of it is in the socket and the rest must follow. */
bool iscsi_connection_unsend(struct iscsi_connection *connection, struct iscsi_send *send);
void iscsi_connection_resume(struct iscsi_connection *connection);
/* The task is gone: what still comes of the current PDU is thrown away. */
void iscsi_connection_forget_task(struct iscsi_connection *connection, struct iscsi_task *task);

/* --- what the connection calls (iscsi_request.c) ------------------------------------------------------------------ */

/* The header is complete. Sets sink and sink_size. -EAGAIN: pause, and call again after iscsi_connection_resume;
 * another error closes the connection. */
int iscsi_receive_begin(struct iscsi_connection *connection, const struct iscsi_pdu *pdu);
/* The data is complete and its digest right. */
int iscsi_receive_end(struct iscsi_connection *connection, const struct iscsi_pdu *pdu);
/* Most data that a PDU may bring now. */
uint32_t iscsi_receive_data_max(const struct iscsi_connection *connection);
/* The connection is closed and out of the stack: let go of login and session. */
void iscsi_receive_lost(struct iscsi_connection *connection);
