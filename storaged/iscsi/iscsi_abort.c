/* ABORT TASK, ABORT and CLEAR TASK SET, LOGICAL UNIT RESET, TARGET WARM and COLD RESET. They are answered when every
 * affected command is drained, so that nothing of before can change the disk after (iscsi.md, ghost writes). */
#include "storaged/iscsi/iscsi_abort.h"

#include "common/bytes.h"
#include "common/check.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

enum function { ABORT_TASK = 1, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, LOGICAL_UNIT_RESET, TARGET_WARM_RESET, TARGET_COLD_RESET, TASK_REASSIGN };

enum response { COMPLETE = 0, TASK_UNKNOWN = 1, LUN_UNKNOWN = 2, REASSIGN_UNSUPPORTED = 4, UNSUPPORTED = 5 };

static void answer(struct iscsi_task *task)
{
    struct iscsi_connection *connection = task->session->connection;
    if (!connection || connection->state == ISCSI_CONNECTION_CLOSED || task->send.queued || task->session->logging_out)
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

/* RFC 7143 §11.6.1: a task that was answered already is unknown; one that is still to come counts as received, and is
 * ignored when it comes. */
static void abort_one(struct iscsi_task *task, const struct iscsi_pdu *pdu)
{
    uint32_t referenced = pdu->transfer_tag, command_sn = be32_at(pdu->bhs + 32); /* header bytes 20–23 and 32–35 */
    struct iscsi_task *victim = iscsi_task_find(task->session, referenced);
    bool is_before = (int32_t)(pdu->command_sn - command_sn) > 0;
    if (!victim || victim == task)
        task->response = is_before && iscsi_session_abort_ahead(task->session, command_sn) ? COMPLETE : TASK_UNKNOWN;
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
        if (count && session != own && !reset) /* SAM-5 §5.6, TAS 0 */
            scsi_attention_raise(&session->scsi, SCSI_ATTENTION_COMMANDS_CLEARED);
    }
}

/* SAM-5 §6.3.3, §6.3.6. */
static void reset_unit(struct iscsi_task *task, enum scsi_attention attention)
{
    abort_everyone(task, true);
    if (task->session->lun)
        scsi_unit_reset(&task->session->scsi, attention);
}

static bool lun_is_known(const struct iscsi_pdu *pdu)
{
    uint64_t number = be64_at(pdu->bhs + 8);
    return number == 0 || number == UINT64_C(0x4000) << 48;
}

/* RFC 7143 §11.5.1: a cold reset ends the sessions, too. A target here is its one logical unit. */
void iscsi_abort_close_all(struct iscsi_task *task)
{
    list_for_each(item, &task->session->target->sessions) {
        struct iscsi_session *session = list_entry(item, struct iscsi_session, link);
        if (session->lun == task->session->lun && session->connection)
            iscsi_connection_close(session->connection, "an initiator reset the target");
    }
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
    task->aborting = 1; /* our own: the first that ends at once must not answer for the others */
    if (has_lun && !lun_is_known(pdu))
        task->response = LUN_UNKNOWN;
    else if (function == ABORT_TASK)
        abort_one(task, pdu);
    else if (function == ABORT_TASK_SET)
        abort_session(task, session);
    else if (function == CLEAR_TASK_SET)
        abort_everyone(task, false);
    else if (function == LOGICAL_UNIT_RESET || function == TARGET_WARM_RESET || function == TARGET_COLD_RESET)
        reset_unit(task, function == LOGICAL_UNIT_RESET ? SCSI_ATTENTION_RESET : SCSI_ATTENTION_TARGET_RESET);
    else
        task->response = function == TASK_REASSIGN ? REASSIGN_UNSUPPORTED : UNSUPPORTED;
    task->closes_all = function == TARGET_COLD_RESET;
    iscsi_abort_one_ended(task);
    return 0;
}
