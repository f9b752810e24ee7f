/* VERIFY: reads the blocks, whose checksums the pool compares, and compares them with the initiator's if asked to. */
#include <string.h>

#include "storaged/scsi_command.h"
#include "storaged/scsi_range.h"

#define WINDOW 8192u /* what is read at a time for comparing; lies behind the initiator's data in the same buffer */
#define WINDOW_SECTORS (WINDOW / LUN_SECTOR_SIZE)

static uint32_t window_offset(const struct scsi_command *command)
{
    return (command->transfer_size + LUN_BLOCK_SIZE - 1) & ~(LUN_BLOCK_SIZE - 1);
}

bool scsi_plan_verify(struct scsi_command *command)
{
    if (command->cdb[1] & 0xe0) /* VRPROTECT: no protection information */
        return scsi_plan_fail_cdb(command, 1, 7);
    if (command->cdb[1] & 0x04) /* BYTCHK 10b and 11b */
        return scsi_plan_fail_cdb(command, 1, 2);
    if (!scsi_plan_range(command, SCSI_TRANSFER_SECTORS_MAX))
        return false;
    uint32_t size = (uint32_t)command->sectors * LUN_SECTOR_SIZE;
    command->buffer_size = size;
    if (command->cdb[1] & 0x02 && size) { /* BYTCHK 01b: compare */
        command->direction = SCSI_DATA_OUT;
        command->transfer_size = size;
        command->buffer_size = window_offset(command) + WINDOW;
    }
    return true;
}

static bool advance_read(struct scsi_command *command)
{
    struct lun_request *request = &command->request;
    if (command->sectors == 0)
        return false;
    request->opcode = LUN_READ;
    request->sector = command->sector;
    request->sectors = (uint32_t)command->sectors;
    command->sectors = 0;
    return true;
}

/* `descriptor` counts the windows compared; the one that request has just read is compared before the next. */
static bool advance_compare(struct scsi_command *command)
{
    struct lun_request *request = &command->request;
    if (request->sectors) {
        const uint8_t *theirs = command->data + (size_t)command->descriptor++ * WINDOW;
        if (memcmp(theirs, request->data, (size_t)request->sectors * LUN_SECTOR_SIZE) != 0) {
            scsi_fail(command, SCSI_KEY_MISCOMPARE, SCSI_ASC_MISCOMPARE);
            return false;
        }
    }
    if (command->sectors == 0)
        return false;
    request->opcode = LUN_READ;
    request->data = command->data + window_offset(command);
    request->sector = command->sector;
    request->sectors = command->sectors < WINDOW_SECTORS ? (uint32_t)command->sectors : WINDOW_SECTORS;
    command->sector += request->sectors;
    command->sectors -= request->sectors;
    return true;
}

bool scsi_execute_verify(struct scsi_command *command)
{
    command->advance = advance_read;
    if (command->direction == SCSI_DATA_OUT) {
        if (command->data_size < command->transfer_size) /* less came than there is to compare */
            return scsi_fail_cdb(command, command->operation->cdb_size == 10 ? 7 : 10, -1);
        command->descriptor = 0;
        command->advance = advance_compare;
    }
    return scsi_medium_start(command);
}
