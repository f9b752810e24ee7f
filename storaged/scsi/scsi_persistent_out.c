/* PERSISTENT RESERVE OUT: its parameter list becomes a step of the reservations, made durable on every member before
 * the command is GOOD (SPC-4 §6.16). */
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "storaged/scsi/reservation_text.h"
#include "storaged/scsi/scsi_state.h"

#define PARAMETERS_SIZE 24u
#define SERVICE_KEY_AT 8u
#define FLAGS_AT 20u
#define FLAG_SPEC_I_PT 0x08
#define FLAG_ALL_TG_PT 0x04
#define FLAG_APTPL 0x01

static bool has_type(unsigned action)
{
    return action == RESERVATION_RESERVE || action == RESERVATION_RELEASE || action == RESERVATION_PREEMPT ||
           action == RESERVATION_PREEMPT_AND_ABORT;
}

bool scsi_plan_persistent_reserve_out(struct scsi_command *command)
{
    unsigned action = command->cdb[1] & 0x1f;
    if (command->nexus->unit->reserved) { /* SPC-2 §5.5.1 */
        command->status = SCSI_STATUS_RESERVATION_CONFLICT;
        return false;
    }
    if (has_type(action) && command->cdb[2] >> 4) /* SCOPE: the logical unit is all there is */
        return scsi_plan_fail_cdb(command, 2, 7);
    if (has_type(action) && !reservation_type_is_valid(command->cdb[2] & 0x0f))
        return scsi_plan_fail_cdb(command, 2, 3);
    if (be32_at(command->cdb + 5) != PARAMETERS_SIZE) /* SPEC_I_PT, the only longer list, is not offered */
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    command->direction = SCSI_DATA_OUT;
    command->transfer_size = PARAMETERS_SIZE;
    command->buffer_size = SCSI_STATE_BUFFER;
    return true;
}

static void request_of(const struct scsi_command *command, struct reservation_request *ret)
{
    uint8_t flags = command->data[FLAGS_AT];
    *ret = (struct reservation_request){
        .action = command->cdb[1] & 0x1f,
        .key = be64_at(command->data),
        .service_key = be64_at(command->data + SERVICE_KEY_AT),
        .type = command->cdb[2] & 0x0f,
        .aptpl = flags & FLAG_APTPL,
        .all_ports = flags & FLAG_ALL_TG_PT,
    };
    scsi_nexus_name(command->nexus, &ret->nexus);
}

/* True: there is no text to be swapped in. */
static bool refuse(struct scsi_command *command, enum reservation_result result)
{
    command->status = SCSI_STATUS_GOOD;
    switch (result) {
    case RESERVATION_CHANGED: return false;
    case RESERVATION_UNCHANGED: return true;
    case RESERVATION_CONFLICT: command->status = SCSI_STATUS_RESERVATION_CONFLICT; return true;
    case RESERVATION_BAD_RELEASE: return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_INVALID_RELEASE);
    case RESERVATION_BAD_KEY: return scsi_fail_parameter(command, SERVICE_KEY_AT);
    case RESERVATION_FULL: return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_NO_REGISTRATION_RESOURCES);
    }
    check(false);
    return true;
}

static bool step(struct scsi_command *command)
{
    struct reservation_state state = command->nexus->unit->reservations;
    struct reservation_request request;
    request_of(command, &request);
    if (refuse(command, reservation_step(&state, &request)))
        return true;
    if (reservation_encode(&state, scsi_state_text(command), LUN_STATE_MAX) < 0) /* long names of many registrants */
        return refuse(command, RESERVATION_FULL);
    return false;
}

/* PREEMPT AND ABORT is GOOD only when nothing of the preempted can change the disk any more (no ghost writes). Each
 * node closes the preempted nexuses' connections as it learns of the change. A second change goes to both: when it is
 * made, the other node has dropped what it held of them, and what it had forwarded came before. Then a barrier. */

static bool advance_barrier(struct scsi_command *command)
{
    if (command->request.opcode == LUN_BARRIER)
        return false;
    command->request.opcode = LUN_BARRIER;
    command->sectors = 0;
    return true;
}

static bool wait_for_others(struct scsi_command *command)
{
    command->advance = advance_barrier;
    return scsi_medium_start(command);
}

/* The same reservations once more. */
static bool step_again(struct scsi_command *command)
{
    struct reservation_state state = command->nexus->unit->reservations;
    state.serial++;
    command->status = SCSI_STATUS_BUSY; /* cannot be: it fitted a moment ago */
    return reservation_encode(&state, scsi_state_text(command), LUN_STATE_MAX) < 0;
}

static bool tell_again(struct scsi_command *command)
{
    return scsi_state_change(command, SCSI_STATE_RESERVATIONS, step_again, wait_for_others);
}

static bool preempted(struct scsi_command *command)
{
    return scsi_unit_drain(command, tell_again);
}

bool scsi_execute_persistent_reserve_out(struct scsi_command *command)
{
    unsigned action = command->cdb[1] & 0x1f;
    bool registers = action == RESERVATION_REGISTER || action == RESERVATION_REGISTER_AND_IGNORE;
    if (command->data_size != PARAMETERS_SIZE)
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    if (registers && command->data[FLAGS_AT] & FLAG_SPEC_I_PT)
        return scsi_fail_parameter(command, FLAGS_AT);
    return scsi_state_change(command, SCSI_STATE_RESERVATIONS, step,
                             action == RESERVATION_PREEMPT_AND_ABORT ? preempted : NULL);
}
