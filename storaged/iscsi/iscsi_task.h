/* A task: one request of an initiator that takes a place in its session's fixed table, from its PDU to its answer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "storaged/iscsi/iscsi_connection.h"
#include "storaged/iscsi/iscsi_memory.h"
#include "storaged/scsi/scsi_command.h"

struct iscsi_session;

enum iscsi_task_state {
    ISCSI_TASK_FREE,
    ISCSI_TASK_RECEIVING,
    ISCSI_TASK_WAITING,
    ISCSI_TASK_EXECUTING,
    ISCSI_TASK_DRAINING,
    ISCSI_TASK_SENDING,
    ISCSI_TASK_STATE_COUNT,
};

/* A burst that was asked for. */
struct iscsi_r2t {
    uint32_t transfer_tag, end;
};

struct iscsi_task {
    struct list link;     /* in the session's free or active tasks */
    struct list tag_link; /* in its tasks by tag, while active */
    struct iscsi_session *session;
    int state;
    uint8_t opcode;
    bool counted;       /* takes one of the command window's places until its last PDU is queued */
    bool aborted;       /* no answer; released as soon as it can be */
    struct iscsi_task *aborter; /* the task management request that waits for this one */
    uint32_t task_tag;
    struct scsi_command command;
    struct iscsi_send send;

    void *memory; /* from iscsi_memory */
    uint32_t memory_size;
    struct iscsi_memory_claim claim;

    /* SCSI commands */
    uint32_t expected_size; /* EDTL, 0 when the direction flag does not fit the command */
    uint32_t announced_size; /* EDTL as it came */
    bool planned;
    bool planned_end;       /* the plan itself failed: only unsolicited data has to be thrown away */
    uint32_t wanted;        /* write: bytes to be stored */
    uint32_t received;      /* write: bytes that came, in order */
    bool unsolicited;       /* write: Data-Out without R2T is still to come */
    uint32_t asked;         /* write: where the next R2T begins */
    struct iscsi_r2t r2ts[ISCSI_R2TS_MAX]; /* write: those that are out, oldest first: the data comes in this order */
    unsigned r2t_count;
    uint32_t data_sn, r2t_sn;
    uint32_t to_send, sent; /* read */
    uint8_t sense[2 + SCSI_SENSE_MAX];

    /* task management */
    uint8_t response;
    unsigned aborting; /* tasks that still have to end */
    bool closes_all;   /* TARGET COLD RESET: every connection of the unit ends with the answer */
};

/* NULL when the table is used up. `counted`: a non-immediate request. */
struct iscsi_task *iscsi_task_new(struct iscsi_session *session, const struct iscsi_pdu *pdu, bool counted);
struct iscsi_task *iscsi_task_find(struct iscsi_session *session, uint32_t task_tag);
void iscsi_task_move(struct iscsi_task *task, enum iscsi_task_state state);
/* Gives memory and place back, tells its aborter, frees a drained session: do not touch the task or, when its
 * connection is gone, the session afterwards. */
void iscsi_task_release(struct iscsi_task *task);
/* Ends the task without an answer: at once, or as soon as the group or the socket lets it go. One that is answering
 * already goes on (its StatSN is taken) and `aborter`, which may be NULL, waits for that. */
void iscsi_task_abort(struct iscsi_task *task, struct iscsi_task *aborter);
bool iscsi_task_get_memory(struct iscsi_task *task, uint32_t size);
/* For data that is in the socket before other data that has its place already. */
bool iscsi_task_get_memory_beyond_share(struct iscsi_task *task, uint32_t size);
/* Queues the answer's last PDU: the task's place in the window is free from here on. Fills the sequence numbers. */
void iscsi_task_send_last(struct iscsi_task *task);
