/* UNMAP and WRITE SAME: giving space back, and filling ranges with one block (SBC-3 §5.28, §5.47). */
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_command.h"
#include "storaged/scsi/scsi_range.h"

#define UNMAP_HEADER 8u
#define UNMAP_DESCRIPTOR 16u
#define UNMAP_LIST_MAX 8192u

bool scsi_plan_unmap(struct scsi_command *command)
{
    uint32_t size = be16_at(command->cdb + 7);
    if (command->cdb[1] & 0x01) /* ANCHOR */
        return scsi_plan_fail_cdb(command, 1, 0);
    if (size > UNMAP_LIST_MAX)
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    command->transfer_size = command->buffer_size = size;
    command->direction = size ? SCSI_DATA_OUT : SCSI_NO_DATA;
    return true;
}

/* All descriptors are looked at before the first is carried out. */
static bool check_descriptors(struct scsi_command *command)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < command->descriptor_count; i++) {
        const uint8_t *at = command->data + UNMAP_HEADER + i * UNMAP_DESCRIPTOR;
        uint64_t sectors = be32_at(at + 8);
        if (!scsi_range_is_inside(command->nexus->lun, be64_at(at), sectors))
            return !scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LBA_OUT_OF_RANGE);
        total += sectors;
    }
    if (total > SCSI_UNMAP_SECTORS_MAX)
        return !scsi_fail_parameter(command, UNMAP_HEADER + 8);
    return true;
}

static bool advance_unmap(struct scsi_command *command)
{
    while (command->descriptor < command->descriptor_count) {
        const uint8_t *at = command->data + UNMAP_HEADER + command->descriptor++ * UNMAP_DESCRIPTOR;
        command->request.opcode = LUN_UNMAP;
        command->request.sector = be64_at(at);
        command->request.sectors = be32_at(at + 8);
        command->sectors = command->descriptor_count - command->descriptor; /* > 0: more to do */
        if (command->request.sectors)
            return true;
    }
    return false;
}

bool scsi_execute_unmap(struct scsi_command *command)
{
    command->sectors = 0;
    if (command->data_size == 0)
        return scsi_execute_nothing(command); /* SBC-3: an empty list is no error */
    if (command->data_size < UNMAP_HEADER)
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    uint32_t told = be16_at(command->data + 2), here = command->data_size - UNMAP_HEADER;
    command->descriptor = 0;
    command->descriptor_count = (told < here ? told : here) / UNMAP_DESCRIPTOR;
    if (command->descriptor_count > SCSI_UNMAP_DESCRIPTORS_MAX) /* SBC-4 §5.35 */
        return scsi_fail_parameter(command, 2);
    if (!check_descriptors(command))
        return true;
    command->advance = advance_unmap;
    return scsi_medium_start(command);
}

bool scsi_plan_write_same(struct scsi_command *command)
{
    bool no_data = command->cdb[0] == 0x93 && command->cdb[1] & 0x01; /* NDOB */
    if (command->cdb[1] & 0xe0)
        return scsi_plan_fail_cdb(command, 1, 7);
    if (command->cdb[1] & 0x10) /* ANCHOR */
        return scsi_plan_fail_cdb(command, 1, 4);
    if (command->cdb[1] & 0x06) /* PBDATA, LBDATA, obsolete */
        return scsi_plan_fail_cdb(command, 1, 2);
    if (!scsi_plan_range(command, SCSI_WRITE_SAME_SECTORS_MAX))
        return false;
    if (command->sectors == 0) /* SBC-4 §5.52: to the end, since VPD B0 says WSNZ 0 */
        command->sectors = command->nexus->lun->sectors - command->sector;
    if (command->sectors > SCSI_WRITE_SAME_SECTORS_MAX)
        return scsi_plan_fail_cdb(command, command->operation->cdb_size == 10 ? 7 : 10, -1);
    if (no_data)
        return true;
    uint64_t span = command->sectors < SCSI_TRANSFER_SECTORS_MAX ? command->sectors : SCSI_TRANSFER_SECTORS_MAX;
    command->direction = SCSI_DATA_OUT;
    command->transfer_size = LUN_SECTOR_SIZE;
    command->buffer_size = (uint32_t)span * LUN_SECTOR_SIZE;
    return true;
}

static bool advance_zeros(struct scsi_command *command)
{
    if (command->sectors == 0)
        return false;
    command->request.opcode = LUN_UNMAP; /* reads zeros afterwards, whether or not UNMAP was asked for */
    command->request.sector = command->sector;
    command->request.sectors = (uint32_t)command->sectors;
    command->sectors = 0;
    return true;
}

static bool advance_pattern(struct scsi_command *command)
{
    if (command->sectors == 0)
        return false;
    uint64_t span = command->sectors < SCSI_TRANSFER_SECTORS_MAX ? command->sectors : SCSI_TRANSFER_SECTORS_MAX;
    command->request.opcode = LUN_WRITE;
    command->request.sector = command->sector;
    command->request.sectors = (uint32_t)span;
    command->sector += span;
    command->sectors -= span;
    return true;
}

bool scsi_execute_write_same(struct scsi_command *command)
{
    static const uint8_t zeros[LUN_SECTOR_SIZE];
    if (command->direction == SCSI_NO_DATA) {
        command->advance = advance_zeros;
        return scsi_medium_start(command);
    }
    if (command->data_size < LUN_SECTOR_SIZE || command->surplus) /* not the one block that it takes */
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_CDB);
    if (memcmp(command->data, zeros, LUN_SECTOR_SIZE) == 0) {
        command->advance = advance_zeros;
        return scsi_medium_start(command);
    }
    for (uint32_t at = LUN_SECTOR_SIZE; at < command->buffer_size; at += LUN_SECTOR_SIZE)
        memcpy(command->data + at, command->data, LUN_SECTOR_SIZE);
    command->advance = advance_pattern;
    return scsi_medium_start(command);
}
