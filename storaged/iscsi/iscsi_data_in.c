/* A SCSI command's way out: Data-In with the status in its last PDU, or a response with sense. */
#include "common/bytes.h"
#include "common/check.h"
#include "storaged/iscsi/iscsi_command.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

static uint32_t least(uint32_t left, uint32_t right)
{
    return left < right ? left : right;
}

/* RFC 7143 §11.4.5: what the initiator announced against what the command moves. */
static uint8_t put_residual(const struct iscsi_task *task, uint8_t *header)
{
    uint32_t moved = task->command.transfer_size, expected = task->expected_size;
    if (task->command.status != SCSI_STATUS_GOOD)
        moved = 0;
    if (moved == expected)
        return 0;
    put_be32(header + 44, moved > expected ? moved - expected : expected - moved);
    return moved > expected ? ISCSI_RESIDUAL_OVERFLOW : ISCSI_RESIDUAL_UNDERFLOW;
}

static void send_data_in(struct iscsi_task *task)
{
    const struct iscsi_parameters *parameters = &task->session->connection->parameters;
    uint32_t burst_left = parameters->burst_max - task->sent % parameters->burst_max;
    uint32_t left = task->to_send - task->sent;
    uint32_t size = least(least(left, burst_left), parameters->send_segment_max);
    bool last = size == left;
    uint8_t *header = task->send.header;

    iscsi_pdu_begin(header, ISCSI_DATA_IN, last || size == burst_left ? ISCSI_FINAL : 0, task->task_tag);
    put_be32(header + 20, ISCSI_TAG_NONE);
    put_be32(header + 36, task->data_sn++);
    put_be32(header + 40, task->sent);
    task->send.data = (uint8_t *)task->memory + task->sent;
    task->send.data_size = size;
    task->sent += size;
    task->session->target->stats.bytes_read += size;
    if (last) {
        header[1] |= ISCSI_DATA_IN_STATUS | put_residual(task, header);
        header[3] = task->command.status;
        iscsi_task_send_last(task);
        return;
    }
    iscsi_session_stamp(task->session, header, false);
    put_be32(header + 24, 0); /* StatSN only with status */
    iscsi_connection_send(task->session->connection, &task->send);
}

static void send_response(struct iscsi_task *task)
{
    uint8_t *header = task->send.header;
    iscsi_pdu_begin(header, ISCSI_SCSI_RESPONSE, ISCSI_FINAL, task->task_tag);
    header[1] |= put_residual(task, header);
    header[3] = task->command.status;
    put_be32(header + 36, task->r2t_sn); /* ExpDataSN: R2Ts of a write */
    task->send.data = NULL;
    task->send.data_size = 0;
    if (task->command.status == SCSI_STATUS_CHECK_CONDITION) {
        uint8_t size = scsi_command_sense(&task->command, task->sense + 2);
        put_be16(task->sense, size);
        task->send.data = task->sense;
        task->send.data_size = 2u + size;
    }
    iscsi_task_send_last(task);
}

void iscsi_command_sent(struct iscsi_task *task)
{
    if (task->state == ISCSI_TASK_SENDING && !task->aborted && task->sent < task->to_send)
        send_data_in(task);
    else
        iscsi_task_release(task);
}

void iscsi_command_answer(struct iscsi_task *task)
{
    const struct scsi_command *command = &task->command;
    iscsi_task_move(task, ISCSI_TASK_SENDING);
    if (command->status == SCSI_STATUS_GOOD && command->direction == SCSI_DATA_IN)
        task->to_send = least(command->transfer_size, task->expected_size);
    if (task->to_send)
        send_data_in(task);
    else
        send_response(task);
}
