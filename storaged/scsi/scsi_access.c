/* May this command be carried out? Reservations of other initiators and write protection, by what the command does. */
#include "storaged/scsi/scsi_unit.h"

/* SPC-4 table 66 and SBC-4 table 14: what lets others use the disk is allowed, what hinders them is not. */
static enum scsi_access access_of(const struct scsi_command *command)
{
    const uint8_t *cdb = command->cdb;
    if (cdb[0] == 0x1b) /* START STOP UNIT: START, and no power condition */
        return (cdb[4] & 0xf1) == 0x01 ? SCSI_ACCESS_FREE : SCSI_ACCESS_CONTROL;
    if (cdb[0] == 0x1e) /* PREVENT ALLOW MEDIUM REMOVAL: allow */
        return (cdb[4] & 0x03) == 0 ? SCSI_ACCESS_FREE : SCSI_ACCESS_CONTROL;
    return command->operation->access;
}

bool scsi_access_conflicts(struct scsi_command *command)
{
    const struct scsi_nexus *nexus = command->nexus;
    const struct scsi_unit *unit = nexus->unit;
    enum scsi_access access = access_of(command);

    if (access == SCSI_ACCESS_FREE || access == SCSI_ACCESS_OWN)
        return false;
    bool conflicts = unit->reserved && !nexus->reserves; /* SPC-2 §5.5.1 */
    if (access != SCSI_ACCESS_STATUS)
        conflicts |= reservation_conflicts(&unit->reservations, nexus->registrant, access != SCSI_ACCESS_READ);
    if (conflicts)
        command->status = SCSI_STATUS_RESERVATION_CONFLICT;
    return conflicts;
}

/* SPC-4 §7.5.8, SWP. */
bool scsi_access_is_protected(struct scsi_command *command)
{
    if (access_of(command) != SCSI_ACCESS_WRITE || !command->nexus->unit->modes.current.swp)
        return false;
    return scsi_fail(command, SCSI_KEY_DATA_PROTECT, SCSI_ASC_SOFTWARE_WRITE_PROTECTED);
}
