/* A session: an initiator's login at a target (or for discovery), its command window and its tasks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "storaged/iscsi/iscsi_chap.h"
#include "storaged/iscsi/iscsi_connection.h"
#include "storaged/iscsi/iscsi_task.h"
#include "storaged/lun.h"
#include "storaged/scsi/scsi_command.h"

#define ISCSI_WINDOW 128u         /* commands an initiator may have under way */
#define ISCSI_IMMEDIATE_TASKS 16u /* places beyond the window for immediate requests */
#define ISCSI_TAG_BUCKETS 64u
#define ISCSI_ISID_SIZE 6u

/* What an initiator calls its session (RFC 7143 §4.4.3): the I_T nexus with its own name and the target's is ISID. */
struct iscsi_session_name {
    uint8_t isid[ISCSI_ISID_SIZE];
    uint16_t tsih; /* 0: a new session */
    uint16_t connection_id;
};

struct iscsi_session {
    struct iscsi_target *target;
    struct list link;                    /* in the target's */
    struct iscsi_connection *connection; /* NULL once it is lost: the session only drains */
    struct lun *lun;                     /* NULL: discovery */
    struct lun_nexus nexus;
    struct scsi_nexus scsi;
    char initiator[224];
    struct iscsi_session_name name;
    struct iscsi_credential credential; /* discovery */
    bool dropping;
    bool logging_out; /* nothing is answered after Logout's answer */
    uint32_t expected_command_sn;
    uint64_t aborted_ahead[ISCSI_WINDOW / 64]; /* bit CmdSN % ISCSI_WINDOW: aborted before it came, counts as received */
    uint32_t last_transfer_tag;
    unsigned window_used;
    unsigned discovery_next; /* where a SendTargets answer that did not fit goes on */
    struct iscsi_memory_account memory;
    struct list free_tasks, active_tasks;
    struct list tags[ISCSI_TAG_BUCKETS]; /* the active ones by task tag: every request looks for its own */
    struct iscsi_task tasks[ISCSI_WINDOW + ISCSI_IMMEDIATE_TASKS];
};

/* Opens the session of a login that succeeded; its nexus, when it is not for discovery. The name's TSIH is taken when it
 * is not 0: the session before it is gone. -ENOMEM. */
int iscsi_session_new(struct iscsi_connection *connection, struct lun *lun, const char *initiator,
                      const struct iscsi_session_name *name, uint32_t command_sn, struct iscsi_session **ret);
/* The same nexus (RFC 7143 §4.4.3.1), alive or draining; NULL when there is none. */
struct iscsi_session *iscsi_session_find(struct iscsi_target *target, const struct lun *lun, const char *initiator,
                                         const uint8_t isid[static ISCSI_ISID_SIZE]);
void iscsi_session_close_oldest_discovery(struct iscsi_target *target);
/* The command with this number was aborted before it came (RFC 7143 §11.6.1): true when it is still to come. */
bool iscsi_session_abort_ahead(struct iscsi_session *session, uint32_t command_sn);
/* RFC 7143 §4.2.2.1. 1: take it, 0: outside the window or aborted, ignore it silently, -EPROTO: a gap. */
int iscsi_session_accept_number(struct iscsi_session *session, const struct iscsi_pdu *pdu);
/* Fills StatSN (advanced when `status`), ExpCmdSN and MaxCmdSN. */
void iscsi_session_stamp(struct iscsi_session *session, uint8_t *header, bool status);
/* Its connection is gone: aborts everything and goes away once the group gave all requests back. */
void iscsi_session_lose(struct iscsi_session *session);
void iscsi_session_check_drained(struct iscsi_session *session);
/* Answers a PDU that cannot be served (RFC 7143 §11.17). -EPROTO when the answer to an earlier one is still queued. */
int iscsi_session_reject(struct iscsi_session *session, const struct iscsi_pdu *pdu, enum iscsi_reject reason);
