/* Commands that are carried out wholly or not at all: COMPARE AND WRITE (SBC-4 §5.3), WRITE ATOMIC (§5.48). */
#include "common/bytes.h"
#include "storaged/scsi/scsi_command.h"
#include "storaged/scsi/scsi_range.h"

static bool plan_whole(struct scsi_command *command, uint32_t sectors, unsigned copies)
{
    command->sector = be64_at(command->cdb + 2);
    command->sectors = sectors;
    if (!scsi_range_is_inside(command->nexus->lun, command->sector, sectors))
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE);
    command->transfer_size = command->buffer_size = copies * sectors * LUN_SECTOR_SIZE;
    command->direction = SCSI_DATA_OUT; /* even of nothing: what comes along with a count of 0 is noticed */
    return true;
}

bool scsi_plan_compare_write(struct scsi_command *command)
{
    uint8_t sectors = command->cdb[13];
    if (command->cdb[1] & 0xe0) /* WRPROTECT */
        return scsi_plan_fail_cdb(command, 1, 7);
    if (sectors > LUN_COMPARE_MAX) /* VPD B0 */
        return scsi_plan_fail_cdb(command, 13, -1);
    command->opcode = LUN_COMPARE_WRITE;
    return plan_whole(command, sectors, 2);
}

/* SBC-4 §4.29.2: what VPD B0 does not promise is refused, not torn. */
bool scsi_plan_write_atomic(struct scsi_command *command)
{
    uint16_t boundary = be16_at(command->cdb + 10), sectors = be16_at(command->cdb + 12);
    uint64_t sector = be64_at(command->cdb + 2);
    if (command->cdb[1] & 0xe0) /* WRPROTECT */
        return scsi_plan_fail_cdb(command, 1, 7);
    if (!scsi_range_is_inside(command->nexus->lun, sector, sectors))
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE);
    if (boundary) /* MAXIMUM ATOMIC BOUNDARY SIZE is 0 */
        return scsi_plan_fail_cdb(command, 10, -1);
    if (sectors > LUN_ATOMIC_MAX || sectors % SCSI_ATOMIC_GRANULARITY)
        return scsi_plan_fail_cdb(command, 12, -1);
    if (sectors && sector % SCSI_ATOMIC_ALIGNMENT)
        return scsi_plan_fail_cdb(command, 2, -1);
    command->opcode = LUN_WRITE;
    return plan_whole(command, sectors, 1);
}

bool scsi_execute_whole(struct scsi_command *command)
{
    if (command->data_size != command->transfer_size || command->surplus) /* a part of it would be another command */
        return scsi_fail_cdb(command, command->opcode == LUN_WRITE ? 12 : 13, -1);
    command->advance = scsi_advance_once;
    return scsi_medium_start(command);
}
