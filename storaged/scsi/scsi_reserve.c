/* RESERVE and RELEASE (6) and (10), SPC-2 §7.21, and beside persistent reservations as SPC-4 §5.13.3 allows (CRH). Of the
 * whole unit, by one nexus, at both nodes: the reservation ends with the nexus and with a reset (scsi_release.c). */
#include "storaged/scsi/reservation_text.h"
#include "storaged/scsi/scsi_state.h"

/* Third-party reservations and those of extents are obsolete since SPC-3. */
bool scsi_plan_reserve(struct scsi_command *command)
{
    if (command->cdb[1] & 0x1f)
        return scsi_plan_fail_cdb(command, 1, -1);
    command->buffer_size = SCSI_STATE_BUFFER;
    return true;
}

/* SPC-4 §5.13.3: who may use the unit anyway gets GOOD, and nothing changes. True: the command is over. */
static bool is_settled_by_registrations(struct scsi_command *command)
{
    const struct reservation_state *state = &command->nexus->unit->reservations;
    int registrant = command->nexus->registrant;
    if (state->count == 0 && state->type == RESERVATION_NONE)
        return false;
    bool is_held = state->type != RESERVATION_NONE;
    bool may_use = is_held && registrant >= 0 && !reservation_conflicts(state, registrant, true);
    command->status = may_use ? SCSI_STATUS_GOOD : SCSI_STATUS_RESERVATION_CONFLICT;
    return true;
}

static bool step(struct scsi_command *command)
{
    const struct scsi_unit *unit = command->nexus->unit;
    struct reservation_state state = unit->reservations;
    struct reservation_nexus name;
    bool reserves = command->operation->execute == scsi_execute_reserve;
    if (is_settled_by_registrations(command))
        return true;
    if (!unit->reserved) /* or it is being released */
        state.reserved = false;
    scsi_nexus_name(command->nexus, &name);
    enum reservation_result result = (reserves ? reservation_reserve_unit : reservation_release_unit)(&state, &name);
    command->status = result == RESERVATION_CONFLICT ? SCSI_STATUS_RESERVATION_CONFLICT : SCSI_STATUS_GOOD;
    if (result != RESERVATION_CHANGED)
        return true;
    if (reservation_encode(&state, scsi_state_text(command), LUN_STATE_MAX) < 0)
        return scsi_fail(command, SCSI_KEY_HARDWARE_ERROR, SCSI_ASC_INTERNAL_TARGET_FAILURE);
    return false;
}

bool scsi_execute_reserve(struct scsi_command *command)
{
    return scsi_state_change(command, SCSI_STATE_RESERVATIONS, step, NULL);
}

bool scsi_execute_release(struct scsi_command *command)
{
    return scsi_state_change(command, SCSI_STATE_RESERVATIONS, step, NULL);
}
