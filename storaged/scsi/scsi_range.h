/* The range of logical blocks that a CDB names; shared by the block command sets. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "storaged/scsi/scsi_command.h"

/* False when the CDB's group has no range. READ (6) of 0 blocks means 256. */
bool scsi_range_of_cdb(const uint8_t *cdb, uint64_t *ret_sector, uint32_t *ret_sectors);
bool scsi_range_is_inside(const struct lun *lun, uint64_t sector, uint64_t sectors);
/* Fills command->sector and sectors, or fails the command: out of the volume, or longer than `sectors_max`. */
bool scsi_plan_range(struct scsi_command *command, uint64_t sectors_max);
/* Checks the protection field and the range; one buffer for all of it, which moves in `direction`. */
bool scsi_plan_transfer(struct scsi_command *command, enum scsi_direction direction);
/* An `advance`: one request of command->opcode for the whole range. */
bool scsi_advance_once(struct scsi_command *command);
