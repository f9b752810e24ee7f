/* VERIFY and WRITE AND VERIFY: reads the blocks, whose checksums the pool compares, and compares them with the
 * initiator's if asked to (SBC-4 §5.36, §5.51). */
#include <string.h>

#include "storaged/scsi/scsi_command.h"
#include "storaged/scsi/scsi_range.h"

#define WINDOW 8192u /* what is read at a time for comparing; lies behind the initiator's data in the same buffer */
#define WINDOW_SECTORS (WINDOW / LUN_SECTOR_SIZE)

enum byte_check { CHECK_MEDIUM = 0, CHECK_ALL = 1, CHECK_ONE = 3 }; /* BYTCHK; 10b is reserved */

static enum byte_check byte_check_of(const struct scsi_command *command)
{
    return (enum byte_check)(command->cdb[1] >> 1 & 3);
}

static uint32_t window_offset(const struct scsi_command *command)
{
    return (command->transfer_size + LUN_BLOCK_SIZE - 1) & ~(LUN_BLOCK_SIZE - 1);
}

bool scsi_plan_verify(struct scsi_command *command)
{
    enum byte_check byte_check = byte_check_of(command);
    if (command->cdb[1] & 0xe0) /* VRPROTECT: no protection information */
        return scsi_plan_fail_cdb(command, 1, 7);
    if (byte_check == 2)
        return scsi_plan_fail_cdb(command, 1, 2);
    if (!scsi_plan_range(command, SCSI_TRANSFER_SECTORS_MAX))
        return false;
    uint32_t size = (uint32_t)command->sectors * LUN_SECTOR_SIZE;
    command->buffer_size = size;
    if (byte_check != CHECK_MEDIUM && size) {
        command->direction = SCSI_DATA_OUT;
        command->transfer_size = byte_check == CHECK_ONE ? LUN_SECTOR_SIZE : size;
        command->buffer_size = window_offset(command) + WINDOW;
    }
    return true;
}

static bool window_equals(const struct scsi_command *command)
{
    const struct lun_request *request = &command->request;
    if (byte_check_of(command) != CHECK_ONE) {
        const uint8_t *theirs = command->data + (size_t)command->descriptor * WINDOW;
        return memcmp(theirs, request->data, (size_t)request->sectors * LUN_SECTOR_SIZE) == 0;
    }
    for (uint32_t i = 0; i < request->sectors; i++)
        if (memcmp(command->data, request->data + (size_t)i * LUN_SECTOR_SIZE, LUN_SECTOR_SIZE) != 0)
            return false;
    return true;
}

/* `descriptor` counts the windows compared; the one that request has just read is compared before the next. */
static bool advance_compare(struct scsi_command *command)
{
    struct lun_request *request = &command->request;
    if (request->opcode == LUN_READ && request->sectors) {
        if (!window_equals(command)) {
            scsi_fail(command, SCSI_KEY_MISCOMPARE, SCSI_ASC_MISCOMPARE);
            return false;
        }
        command->descriptor++;
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
    command->opcode = LUN_READ;
    command->advance = scsi_advance_once;
    if (command->direction == SCSI_DATA_OUT) {
        if (command->data_size < command->transfer_size) /* less came than there is to compare */
            return scsi_fail_cdb(command, command->operation->cdb_size == 10 ? 7 : command->operation->cdb_size == 12 ? 6 : 10, -1);
        command->descriptor = 0;
        command->advance = advance_compare;
    }
    return scsi_medium_start(command);
}

bool scsi_plan_write_verify(struct scsi_command *command)
{
    if (byte_check_of(command) > CHECK_ALL)
        return scsi_plan_fail_cdb(command, 1, 2);
    if (!scsi_plan_transfer(command, SCSI_DATA_OUT))
        return false;
    if (command->buffer_size)
        command->buffer_size = window_offset(command) + WINDOW;
    return true;
}

/* The write first; its blocks are then read back and compared, whatever BYTCHK says: the window is there anyway. */
static bool advance_write_verify(struct scsi_command *command)
{
    struct lun_request *request = &command->request;
    if (command->sectors && !request->sectors) {
        request->opcode = LUN_WRITE;
        request->sector = command->sector;
        request->sectors = (uint32_t)command->sectors;
        return true;
    }
    return advance_compare(command);
}

bool scsi_execute_write_verify(struct scsi_command *command)
{
    command->sectors = command->data_size / LUN_SECTOR_SIZE;
    command->descriptor = 0;
    command->advance = advance_write_verify;
    return scsi_medium_start(command);
}
