/* A SCSI command's way in: its PDU, its buffer, its data, its execution. */
#include "storaged/iscsi/iscsi_command.h"

#include <errno.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "storaged/iscsi/iscsi_abort.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_stall.h"
#include "storaged/iscsi/iscsi_target_internal.h"

static void send_r2t(struct iscsi_task *task)
{
    struct iscsi_session *session = task->session;
    uint32_t left = task->wanted - task->asked, most = session->connection->parameters.burst_max;
    uint32_t size = left < most ? left : most;
    struct iscsi_r2t *r2t = &task->r2ts[task->r2t_count++];
    uint8_t *header = task->send.header;

    if (++session->last_transfer_tag == ISCSI_TAG_NONE)
        session->last_transfer_tag = 0;
    *r2t = (struct iscsi_r2t){.transfer_tag = session->last_transfer_tag, .end = task->asked + size};
    iscsi_pdu_begin(header, ISCSI_R2T, ISCSI_FINAL, task->task_tag);
    put_be64(header + 8, task->command.lun_number);
    put_be32(header + 20, r2t->transfer_tag);
    iscsi_session_stamp(session, header, false);
    put_be32(header + 36, task->r2t_sn++);
    put_be32(header + 40, task->asked);
    put_be32(header + 44, size);
    task->asked = r2t->end;
    task->send.data = NULL;
    task->send.data_size = 0;
    iscsi_connection_send(session->connection, &task->send);
}

/* As many bursts at once as were agreed on; each R2T is queued when the one before is in the socket. */
static void ask_for_data(struct iscsi_task *task)
{
    if (task->received > task->asked)
        task->asked = task->received; /* it began with data that came unasked */
    if (task->asked < task->wanted && !task->send.queued && task->r2t_count < task->session->connection->parameters.r2t_max)
        send_r2t(task);
}

static void finish(struct iscsi_task *task)
{
    struct iscsi_session *session = task->session;
    if (!session->connection || task->aborted || session->logging_out) {
        iscsi_task_release(task);
        return;
    }
    if (task->command.dropped) {
        /* iscsi.md: never NOT READY or ABORTED; the initiator comes back and sends the command again. */
        iscsi_connection_close(session->connection, "a command could not be served; the initiator has to come back");
        iscsi_task_release(task);
        return;
    }
    if (session->connection->state == ISCSI_CONNECTION_CLOSED) {
        iscsi_task_release(task);
        return;
    }
    iscsi_command_answer(task);
}

static void command_done(struct scsi_command *command)
{
    finish(list_entry(command, struct iscsi_task, command));
}

static void execute(struct iscsi_task *task)
{
    struct scsi_command *command = &task->command;
    command->data = task->memory;
    command->data_size = task->received < task->wanted ? task->received : task->wanted;
    command->surplus = command->direction == SCSI_DATA_OUT && task->expected_size > command->transfer_size;
    iscsi_task_move(task, ISCSI_TASK_EXECUTING);
    task->session->target->stats.commands++;
    if (scsi_command_execute(command))
        finish(task);
}

static bool memory_came(struct iscsi_memory_claim *claim)
{
    struct iscsi_task *task = list_entry(claim, struct iscsi_task, claim);
    if (task->state == ISCSI_TASK_RECEIVING) { /* the connection is paused before the command's data */
        if (!iscsi_task_get_memory(task, task->command.buffer_size))
            return false;
        iscsi_connection_resume(task->session->connection);
        return true;
    }
    if (!iscsi_task_get_memory(task, task->command.buffer_size))
        return false;
    iscsi_task_move(task, ISCSI_TASK_RECEIVING);
    iscsi_command_advance(task);
    return true;
}

static void task_sent(struct iscsi_send *send)
{
    struct iscsi_task *task = list_entry(send, struct iscsi_task, send);
    if (task->opcode == ISCSI_LOGOUT_REQUEST && task->session->logging_out)
        iscsi_connection_close(task->session->connection, "the initiator logged out");
    if (task->closes_all)
        iscsi_abort_close_all(task);
    if (task->state == ISCSI_TASK_RECEIVING && !task->aborted)
        ask_for_data(task); /* it was an R2T */
    else
        iscsi_command_sent(task);
}

void iscsi_command_init_task(struct iscsi_task *task)
{
    task->send.sent = task_sent;
    task->claim.retry = memory_came;
    task->command.done = command_done;
    list_init(&task->claim.link);
}

static void wait_for_memory(struct iscsi_task *task)
{
    struct iscsi_target *target = task->session->target;
    iscsi_memory_wait(&target->memory, &task->session->memory, &task->claim);
    iscsi_stall_watch(target);
}

void iscsi_command_advance(struct iscsi_task *task)
{
    struct iscsi_session *session = task->session;
    check(task->state == ISCSI_TASK_RECEIVING);
    if (session->connection->state == ISCSI_CONNECTION_CLOSED || task->unsolicited)
        return; /* the session is about to end; or data is on its way without being asked for */
    if (task->planned_end) {
        if (task->r2t_count == 0) /* else more is on its way that was asked for */
            finish(task);
    } else if (task->command.buffer_size && !task->memory && !iscsi_task_get_memory(task, task->command.buffer_size)) {
        iscsi_task_move(task, ISCSI_TASK_WAITING);
        wait_for_memory(task);
    } else if (task->received < task->wanted) {
        ask_for_data(task);
    } else {
        execute(task);
    }
}

/* A session that waits for data of a command that has its buffer must go on reading: the data is behind what it reads. */
static bool others_receive(const struct iscsi_session *session, const struct iscsi_task *but)
{
    list_for_each(item, &session->active_tasks) {
        const struct iscsi_task *task = list_entry(item, struct iscsi_task, link);
        if (task != but && task->state == ISCSI_TASK_RECEIVING && task->memory)
            return true;
    }
    return false;
}

static void fail_plan(struct iscsi_task *task, uint8_t status)
{
    task->command.status = status;
    task->planned_end = true;
    task->wanted = 0;
}

/* Unsolicited data needs its place before it is read. */
static int need_memory_now(struct iscsi_task *task)
{
    struct iscsi_session *session = task->session;
    if (task->memory || iscsi_task_get_memory(task, task->command.buffer_size))
        return 0;
    if (others_receive(session, task)) {
        if (iscsi_task_get_memory_beyond_share(task, task->command.buffer_size))
            return 0;
        fail_plan(task, SCSI_STATUS_TASK_SET_FULL); /* initiators try again (iscsi.md) */
        return 0;
    }
    wait_for_memory(task);
    return -EAGAIN;
}

/* The size that the initiator announced, when it announced the direction that the command has. */
static uint32_t expected_size(const struct iscsi_pdu *pdu, enum scsi_direction direction)
{
    uint8_t flag = direction == SCSI_DATA_IN ? ISCSI_READ : direction == SCSI_DATA_OUT ? ISCSI_WRITE : ISCSI_READ | ISCSI_WRITE;
    return pdu->flags & flag ? be32_at(pdu->bhs + 20) : 0;
}

static int check_unsolicited(const struct iscsi_parameters *parameters, const struct iscsi_pdu *pdu)
{
    bool writes = pdu->flags & ISCSI_WRITE, more = !(pdu->flags & ISCSI_FINAL);
    if (pdu->data_size && (!writes || !parameters->immediate_data || pdu->data_size > parameters->first_burst_max ||
                           pdu->data_size > be32_at(pdu->bhs + 20)))
        return -EPROTO;
    if (more && (!writes || parameters->initial_r2t))
        return -EPROTO;
    return 0;
}

static int plan(struct iscsi_task *task, const struct iscsi_pdu *pdu)
{
    struct scsi_command *command = &task->command;
    int r = check_unsolicited(&task->session->connection->parameters, pdu);
    if (r < 0)
        return r;
    command->nexus = &task->session->scsi;
    command->lun_number = be64_at(pdu->bhs + 8);
    memcpy(command->cdb, pdu->bhs + 32, SCSI_CDB_SIZE);
    task->planned = true;
    task->planned_end = !scsi_command_plan(command);
    task->announced_size = be32_at(pdu->bhs + 20);
    task->expected_size = expected_size(pdu, task->planned_end ? SCSI_NO_DATA : command->direction);
    task->unsolicited = !(pdu->flags & ISCSI_FINAL);
    if (!task->planned_end && command->direction == SCSI_DATA_OUT)
        task->wanted = task->expected_size < command->transfer_size ? task->expected_size : command->transfer_size;
    return 0;
}

int iscsi_command_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_connection *connection = session->connection;
    struct iscsi_task *task = connection->task;
    bool bidirectional = (pdu->flags & (ISCSI_READ | ISCSI_WRITE)) == (ISCSI_READ | ISCSI_WRITE);

    if (!task->planned) {
        if (bidirectional || pdu->ahs_size) { /* no command here has more than 16 bytes or two directions */
            iscsi_task_release(task);
            return iscsi_session_reject(session, pdu, ISCSI_REJECT_INVALID_FIELD);
        }
        int r = plan(task, pdu);
        if (r < 0)
            return r;
    }
    /* Nothing comes unasked, or it is for nothing: the buffer can wait. */
    if (task->wanted && (pdu->data_size || task->unsolicited)) {
        int r = need_memory_now(task);
        if (r < 0)
            return r;
    }
    connection->sink = task->memory;
    connection->sink_size = pdu->data_size < task->wanted ? pdu->data_size : task->wanted;
    return 0;
}

int iscsi_command_end(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_task *task = session->connection->task;
    task->received = pdu->data_size;
    session->target->stats.bytes_written += pdu->data_size;
    iscsi_command_advance(task);
    return 0;
}

/* DataPDUInOrder and DataSequenceInOrder hold; a command's data comes once, in order (error recovery level 0). */
static int check_data_out(const struct iscsi_task *task, const struct iscsi_pdu *pdu)
{
    const struct iscsi_parameters *parameters = &task->session->connection->parameters;
    uint32_t end = task->announced_size < parameters->first_burst_max ? task->announced_size : parameters->first_burst_max;
    if (task->opcode != ISCSI_SCSI_COMMAND || task->state != ISCSI_TASK_RECEIVING || (task->send.queued && task->r2t_count <= 1))
        return -EPROTO;
    if (be32_at(pdu->bhs + 40) != task->received)
        return -EPROTO;
    if (task->unsolicited) {
        if (pdu->transfer_tag != ISCSI_TAG_NONE)
            return -EPROTO;
    } else {
        if (task->r2t_count == 0 || pdu->transfer_tag != task->r2ts[0].transfer_tag)
            return -EPROTO;
        end = task->r2ts[0].end;
    }
    if (pdu->data_size > end - task->received)
        return -EPROTO;
    bool last = task->received + pdu->data_size == end, final = pdu->flags & ISCSI_FINAL;
    return !task->unsolicited && last != final ? -EPROTO : 0;
}

/* A DataSN that does not count up: something was lost, what is here cannot be trusted. The PDU is rejected, and the task
 * ends with an error once its last data came (RFC 7143 §11.17). */
static int spoil(struct iscsi_session *session, struct iscsi_task *task, const struct iscsi_pdu *pdu)
{
    fail_plan(task, SCSI_STATUS_CHECK_CONDITION);
    scsi_fail(&task->command, SCSI_KEY_ABORTED_COMMAND, SCSI_ASC_DATA_PHASE_ERROR);
    session->target->stats.protocol_errors++;
    return iscsi_session_reject(session, pdu, ISCSI_REJECT_PROTOCOL_ERROR);
}

int iscsi_data_out_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_connection *connection = session->connection;
    struct iscsi_task *task = iscsi_task_find(session, pdu->task_tag);
    if (!task) /* aborted, or its command was ignored: what was under way is thrown away */
        return 0;
    int r = check_data_out(task, pdu);
    if (r < 0)
        return r;
    connection->task = task;
    if (!task->planned_end && be32_at(pdu->bhs + 36) != task->data_sn)
        return spoil(session, task, pdu);
    if (task->memory && task->received < task->wanted) {
        uint32_t room = task->wanted - task->received;
        connection->sink = (uint8_t *)task->memory + task->received;
        connection->sink_size = pdu->data_size < room ? pdu->data_size : room;
    }
    return 0;
}

int iscsi_data_out_end(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_task *task = session->connection->task;
    task->received += pdu->data_size;
    task->data_sn++;
    session->target->stats.bytes_written += pdu->data_size;
    if (!(pdu->flags & ISCSI_FINAL))
        return 0;
    task->data_sn = 0;
    if (task->unsolicited)
        task->unsolicited = false;
    else
        memmove(task->r2ts, task->r2ts + 1, --task->r2t_count * sizeof(task->r2ts[0]));
    iscsi_command_advance(task);
    return 0;
}
