/* Task management (RFC 7143 §11.5): aborting tasks, and answering once they are drained. */
#pragma once

#include "storaged/iscsi/iscsi_pdu.h"
#include "storaged/iscsi/iscsi_task.h"

struct iscsi_session;

int iscsi_abort_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu);
int iscsi_abort_end(struct iscsi_session *session, const struct iscsi_pdu *pdu);
/* One of the tasks that `aborter` waits for has ended. */
void iscsi_abort_one_ended(struct iscsi_task *aborter);
/* The answer to a TARGET COLD RESET is in the socket. */
void iscsi_abort_close_all(struct iscsi_task *task);
/* The aborter is gone: nobody may tell it anything. */
void iscsi_abort_forget(struct iscsi_task *aborter);
