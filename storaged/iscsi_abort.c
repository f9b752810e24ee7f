/* ABORT TASK, ABORT and CLEAR TASK SET, LOGICAL UNIT RESET and TARGET WARM RESET. They are answered when every affected
 * command is drained, so that nothing of before can change the disk after (iscsi.md, ghost writes). */
#include "storaged/iscsi_abort.h"

#include "common/bytes.h"
#include "common/check.h"
#include "storaged/iscsi_session.h"
#include "storaged/iscsi_target_internal.h"

enum function { ABORT_TASK = 1, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, LOGICAL_UNIT_RESET, TARGET_WARM_RESET, TARGET_COLD_RESET, TASK_REASSIGN };

enum response { COMPLETE = 0, TASK_UNKNOWN = 1, LUN_UNKNOWN = 2, REASSIGN_UNSUPPORTED = 4, UNSUPPORTED = 5 };

static void answer(struct iscsi_task *task)
{
    struct iscsi_connection *connection = task->session->connection;
    if (!connection || connection->state == ISCSI_CONNECTION_CLOSED || task->send.queued)
        return; /* the session's end releases it */
    iscsi_pdu_begin(task->send.header, ISCSI_TASK_RESPONSE, ISCSI_FINAL, task->task_tag);
    task->send.header[2] = task->response;
    iscsi_task_send_last(task);
}

void iscsi_abort_one_ended(struct iscsi_task *aborter)
{
    check(aborter->aborting > 0);
    if (--aborter->aborting == 0 && aborter->state == ISCSI_TASK_DRAINING)
        answer(aborter);
}

void iscsi_abort_forget(struct iscsi_task *aborter)
{
    list_for_each(session_item, &aborter->session->target->sessions) {
        struct iscsi_session *session = list_entry(session_item, struct iscsi_session, link);
        list_for_each(item, &session->active_tasks) {
            struct iscsi_task *task = list_entry(item, struct iscsi_task, link);
            if (task->aborter == aborter)
                task->aborter = NULL;
        }
    }
    aborter->aborting = 0;
}

static void abort_one(struct iscsi_task *task, uint32_t referenced)
{
    struct iscsi_task *victim = iscsi_task_find(task->session, referenced);
    if (!victim || victim == task)
        task->response = TASK_UNKNOWN; /* answered already, RFC 7143 §11.6.1 */
    else
        iscsi_task_abort(victim, task);
}

/* The commands of one session at its logical unit. Another session's that is answering has had its effect. */
static unsigned abort_session(struct iscsi_task *task, struct iscsi_session *session)
{
    unsigned count = 0;
    list_for_each_safe(item, after, &session->active_tasks) {
        struct iscsi_task *victim = list_entry(item, struct iscsi_task, link);
        if (victim == task || victim->opcode != ISCSI_SCSI_COMMAND)
            continue;
        if (session != task->session && victim->state == ISCSI_TASK_SENDING)
            continue;
        count++;
        iscsi_task_abort(victim, task);
    }
    return count;
}

static void abort_everyone(struct iscsi_task *task, bool reset)
{
    struct iscsi_session *own = task->session;
    list_for_each_safe(item, after, &own->target->sessions) {
        struct iscsi_session *session = list_entry(item, struct iscsi_session, link);
        if (session->lun != own->lun)
            continue;
        unsigned count = abort_session(task, session);
        if (reset)
            scsi_attention_raise(&session->scsi, SCSI_ATTENTION_RESET);
        else if (count && session != own) /* SAM-5 §5.6, TAS 0 */
            scsi_attention_raise(&session->scsi, SCSI_ATTENTION_COMMANDS_CLEARED);
    }
}

static bool lun_is_known(const struct iscsi_pdu *pdu)
{
    uint64_t number = be64_at(pdu->bhs + 8);
    return number == 0 || number == UINT64_C(0x4000) << 48;
}

int iscsi_abort_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    return pdu->data_size ? iscsi_session_reject(session, pdu, ISCSI_REJECT_INVALID_FIELD) : 0;
}

int iscsi_abort_end(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_task *task = session->connection->task;
    unsigned function = pdu->flags & 0x7f;
    bool has_lun = function != TARGET_WARM_RESET && function != TARGET_COLD_RESET;

    task->response = COMPLETE;
    iscsi_task_move(task, ISCSI_TASK_DRAINING);
    if (has_lun && !lun_is_known(pdu))
        task->response = LUN_UNKNOWN;
    else if (function == ABORT_TASK)
        abort_one(task, pdu->transfer_tag); /* header bytes 20–23: the referenced task's tag */
    else if (function == ABORT_TASK_SET)
        abort_session(task, session);
    else if (function == CLEAR_TASK_SET)
        abort_everyone(task, false);
    else if (function == LOGICAL_UNIT_RESET || function == TARGET_WARM_RESET)
        abort_everyone(task, true);
    else
        task->response = function == TASK_REASSIGN ? REASSIGN_UNSUPPORTED : UNSUPPORTED;
    if (task->aborting == 0 && task->state == ISCSI_TASK_DRAINING)
        answer(task);
    return 0;
}
