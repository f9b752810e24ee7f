/* SCSI commands over iSCSI: SCSI Command, R2T, Data-Out, Data-In, SCSI Response (RFC 7143 §11.3–11.8). */
#pragma once

#include <stdbool.h>

#include "storaged/iscsi/iscsi_pdu.h"
#include "storaged/iscsi/iscsi_task.h"

struct iscsi_session;

void iscsi_command_init_task(struct iscsi_task *task);
int iscsi_command_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu);
int iscsi_command_end(struct iscsi_session *session, const struct iscsi_pdu *pdu);
int iscsi_data_out_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu);
int iscsi_data_out_end(struct iscsi_session *session, const struct iscsi_pdu *pdu);
/* The next step of a command whose PDU or data came, or that got its buffer. */
void iscsi_command_advance(struct iscsi_task *task);
/* Queues the answer of a finished command: Data-In with or without status, or a response. */
void iscsi_command_answer(struct iscsi_task *task);
/* A PDU of the answer is in the socket, or what was left of an aborted task there. */
void iscsi_command_sent(struct iscsi_task *task);
