/* GET LBA STATUS: which blocks of the volume are backed by space (SBC-4 §5.5). */
#include "common/bytes.h"
#include "storaged/scsi/scsi_command.h"
#include "storaged/scsi/scsi_range.h"

#define HEADER 8u
#define DESCRIPTOR 16u
#define DESCRIPTORS_MAX ((SCSI_REPLY_MAX - HEADER) / DESCRIPTOR)
#define MAPPED 0x0
#define DEALLOCATED 0x1
#define STEP_SECTORS (1u << 21) /* looked at in one request: others get their turn in between */
#define STEPS_MAX 256u          /* in one command: fewer descriptors than there is room for are no error */

/* Alike runs that follow each other become one descriptor, whose length has 32 bits. */
static void put_run(struct scsi_command *command)
{
    const struct lun_request *request = &command->request;
    uint8_t status = request->mapped ? MAPPED : DEALLOCATED;
    uint8_t *at = command->data + HEADER + command->descriptor * DESCRIPTOR, *last = at - DESCRIPTOR;
    command->sector += request->run_sectors;
    command->sectors -= request->run_sectors;
    if (command->descriptor && last[12] == status && be32_at(last + 8) + request->run_sectors <= UINT32_MAX) {
        put_be32(last + 8, be32_at(last + 8) + (uint32_t)request->run_sectors);
        return;
    }
    command->descriptor++;
    put_be64(at, request->sector);
    put_be32(at + 8, (uint32_t)request->run_sectors);
    at[12] = status;
}

static bool advance_map(struct scsi_command *command)
{
    struct lun_request *request = &command->request;
    if (request->sectors)
        put_run(command);
    if (command->sectors == 0 || command->descriptor == command->descriptor_count || command->steps++ == STEPS_MAX) {
        put_be32(command->data, 4 + command->descriptor * DESCRIPTOR);
        command->sectors = 0;
        scsi_reply(command, HEADER + command->descriptor * DESCRIPTOR);
        return false;
    }
    request->opcode = LUN_MAP;
    request->sector = command->sector;
    request->sectors = command->sectors < STEP_SECTORS ? (uint32_t)command->sectors : STEP_SECTORS - (command->sector & 7);
    return true;
}

bool scsi_execute_get_lba_status(struct scsi_command *command)
{
    uint64_t sectors = command->nexus->lun->sectors;
    uint32_t room = be32_at(command->cdb + 10);
    command->sector = be64_at(command->cdb + 2);
    if (command->sector >= sectors)
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE);
    if (room < HEADER + DESCRIPTOR)
        return scsi_fail_cdb(command, 10, -1);
    command->sectors = sectors - command->sector;
    command->descriptor = command->steps = 0;
    command->descriptor_count = room / DESCRIPTOR < DESCRIPTORS_MAX ? (room - HEADER) / DESCRIPTOR : DESCRIPTORS_MAX;
    command->advance = advance_map;
    return scsi_medium_start(command);
}
