/* Reading, writing and verifying blocks, and the capacity (SBC-3 §5). */
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_command.h"
#include "storaged/scsi/scsi_range.h"

bool scsi_range_of_cdb(const uint8_t *cdb, uint64_t *ret_sector, uint32_t *ret_sectors)
{
    switch (cdb[0] >> 5) { /* the group code tells the CDB's size, SPC-4 §4.2.5.1 */
    case 0:
        *ret_sector = be24_at(cdb + 1) & 0x1fffff;
        *ret_sectors = cdb[4] ? cdb[4] : 256;
        return true;
    case 1:
    case 2:
        *ret_sector = be32_at(cdb + 2);
        *ret_sectors = be16_at(cdb + 7);
        return true;
    case 5:
        *ret_sector = be32_at(cdb + 2);
        *ret_sectors = be32_at(cdb + 6);
        return true;
    case 4:
        *ret_sector = be64_at(cdb + 2);
        *ret_sectors = be32_at(cdb + 10);
        return true;
    default:
        return false;
    }
}

bool scsi_range_is_inside(const struct lun *lun, uint64_t sector, uint64_t sectors)
{
    return sector <= lun->sectors && sectors <= lun->sectors - sector;
}

bool scsi_plan_range(struct scsi_command *command, uint64_t sectors_max)
{
    uint64_t sector;
    uint32_t sectors;
    if (!scsi_range_of_cdb(command->cdb, &sector, &sectors))
        return scsi_plan_fail_cdb(command, 0, -1);
    if (!scsi_range_is_inside(command->nexus->lun, sector, sectors))
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE);
    if (sectors > sectors_max) /* VPD B0 told the initiator */
        return scsi_plan_fail_cdb(command, command->operation->cdb_size == 10 ? 7 : command->operation->cdb_size == 12 ? 6 : 10, -1);
    command->sector = sector;
    command->sectors = sectors;
    return true;
}

bool scsi_advance_once(struct scsi_command *command)
{
    struct lun_request *request = &command->request;
    if (command->sectors == 0)
        return false;
    request->opcode = command->opcode;
    request->sector = command->sector;
    request->sectors = (uint32_t)command->sectors;
    command->sectors = 0;
    return true;
}

bool scsi_plan_transfer(struct scsi_command *command, enum scsi_direction direction)
{
    bool has_protect = command->operation->cdb_size != 6;
    if (has_protect && command->cdb[1] & 0xe0) /* RDPROTECT, WRPROTECT, …: no protection information */
        return scsi_plan_fail_cdb(command, 1, 7);
    if (!scsi_plan_range(command, SCSI_TRANSFER_SECTORS_MAX))
        return false;
    command->buffer_size = (uint32_t)command->sectors * LUN_SECTOR_SIZE;
    command->transfer_size = direction == SCSI_NO_DATA ? 0 : command->buffer_size;
    command->direction = command->transfer_size ? direction : SCSI_NO_DATA;
    return true;
}

bool scsi_plan_read(struct scsi_command *command)
{
    command->opcode = LUN_READ;
    return scsi_plan_transfer(command, SCSI_DATA_IN);
}

bool scsi_plan_write(struct scsi_command *command)
{
    command->opcode = LUN_WRITE;
    return scsi_plan_transfer(command, SCSI_DATA_OUT);
}

/* SBC-4 §5.15: the set operation, current data OR what comes. */
bool scsi_plan_or_write(struct scsi_command *command)
{
    command->opcode = LUN_OR_WRITE;
    return scsi_plan_transfer(command, SCSI_DATA_OUT);
}

bool scsi_execute_medium(struct scsi_command *command)
{
    /* An initiator may expect to send less than its CDB says: what came is written (RFC 7143 §11.4.5.1). */
    if (command->direction == SCSI_DATA_OUT)
        command->sectors = command->data_size / LUN_SECTOR_SIZE;
    command->advance = scsi_advance_once;
    return scsi_medium_start(command);
}

/* SBC-4 §5.17. There is no cache to fetch into: the range is checked, and GOOD says that not all of it is cached. */
bool scsi_plan_prefetch(struct scsi_command *command)
{
    return scsi_plan_range(command, UINT32_MAX);
}

/* A range of 0 blocks means: to the end. Everything is flushed whatever the range. */
bool scsi_plan_synchronize_cache(struct scsi_command *command)
{
    return scsi_plan_range(command, UINT32_MAX);
}

static bool advance_flush(struct scsi_command *command)
{
    if (command->request.opcode == LUN_FLUSH)
        return false;
    command->request.opcode = LUN_FLUSH;
    command->sectors = 0;
    return true;
}

bool scsi_execute_flush(struct scsi_command *command)
{
    command->advance = advance_flush;
    return scsi_medium_start(command);
}

bool scsi_execute_read_capacity10(struct scsi_command *command)
{
    uint64_t last = command->nexus->lun->sectors - 1;
    if (!(command->cdb[8] & 0x01) && be32_at(command->cdb + 2) != 0) /* an LBA without PMI, SBC-3 §5.15 */
        return scsi_fail_cdb(command, 2, -1);
    put_be32(command->data, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
    put_be32(command->data + 4, LUN_SECTOR_SIZE);
    return scsi_reply(command, 8);
}

bool scsi_execute_read_capacity16(struct scsi_command *command)
{
    uint8_t *data = command->data;
    put_be64(data, command->nexus->lun->sectors - 1);
    put_be32(data + 8, LUN_SECTOR_SIZE);
    data[13] = 3;           /* 2^3 logical blocks per physical block */
    data[14] = 0x80 | 0x40; /* LBPME, LBPRZ */
    return scsi_reply(command, 32);
}

/* SBC-4 §5.19: no defect is known to initiators, in whatever format they ask; bad blocks are repaired from the other copy. */
bool scsi_execute_read_defect_data(struct scsi_command *command)
{
    bool is_ten = command->cdb[0] == 0x37;
    uint8_t wanted = command->cdb[is_ten ? 2 : 1] & 0x1f;
    command->data[1] = wanted; /* the lists asked for are valid, and empty */
    return scsi_reply(command, is_ten ? 4 : 8);
}
