/* A session: an initiator's login at a target (or for discovery), its command window and its tasks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "storaged/iscsi_connection.h"
#include "storaged/iscsi_task.h"
#include "storaged/lun.h"
#include "storaged/scsi_command.h"

#define ISCSI_WINDOW 128u         /* commands an initiator may have under way */
#define ISCSI_IMMEDIATE_TASKS 16u /* places beyond the window for immediate requests */
#define ISCSI_ISID_SIZE 6u

struct iscsi_session {
    struct iscsi_target *target;
    struct list link;                    /* in the target's */
    struct iscsi_connection *connection; /* NULL once it is lost: the session only drains */
    struct lun *lun;                     /* NULL: discovery */
    struct lun_nexus nexus;
    struct scsi_nexus scsi;
    char initiator[224];
    uint8_t isid[ISCSI_ISID_SIZE];
    uint16_t tsih;
    bool dropping;
    uint32_t expected_command_sn;
    uint32_t last_transfer_tag;
    unsigned window_used;
    unsigned discovery_next; /* where a SendTargets answer that did not fit goes on */
    struct list free_tasks, active_tasks;
    struct iscsi_task tasks[ISCSI_WINDOW + ISCSI_IMMEDIATE_TASKS];
};

/* Opens the session of a login that succeeded; its nexus, when it is not for discovery. -ENOMEM. */
int iscsi_session_new(struct iscsi_connection *connection, struct lun *lun, const char *initiator,
                      const uint8_t isid[static ISCSI_ISID_SIZE], uint32_t command_sn, struct iscsi_session **ret);
/* The same nexus (RFC 7143 §4.4.3.1), alive or draining; NULL when there is none. */
struct iscsi_session *iscsi_session_find(struct iscsi_target *target, const struct lun *lun, const char *initiator,
                                         const uint8_t isid[static ISCSI_ISID_SIZE]);
/* Fills StatSN (advanced when `status`), ExpCmdSN and MaxCmdSN. */
void iscsi_session_stamp(struct iscsi_session *session, uint8_t *header, bool status);
/* Its connection is gone: aborts everything and goes away once the group gave all requests back. */
void iscsi_session_lose(struct iscsi_session *session);
void iscsi_session_check_drained(struct iscsi_session *session);
/* Answers a PDU that cannot be served (RFC 7143 §11.17). -EPROTO when the answer to an earlier one is still queued. */
int iscsi_session_reject(struct iscsi_session *session, const struct iscsi_pdu *pdu, enum iscsi_reject reason);
