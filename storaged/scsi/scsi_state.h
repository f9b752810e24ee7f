/* Commands that change a text of the logical unit (lun->state): read, step, swap; again when another was faster. */
#pragma once

#include "storaged/scsi/scsi_unit.h"

#define SCSI_STATE_AT 4096u /* where in command->data the new text is made, behind the parameter list */
#define SCSI_STATE_BUFFER (SCSI_STATE_AT + LUN_STATE_MAX)

static inline char *scsi_state_text(const struct scsi_command *command)
{
    return (char *)command->data + SCSI_STATE_AT;
}

/* `step` looks at the unit as it is and either ends the command (true) or has put the new text at scsi_state_text,
 * which has LUN_STATE_MAX bytes (false). It may be called again. Once the text is durable everywhere the command is
 * GOOD, and `made` (may be NULL) says whether it is finished. Returns what scsi_command_execute does. */
bool scsi_state_change(struct scsi_command *command, const char *key, bool (*step)(struct scsi_command *command),
                       bool (*made)(struct scsi_command *command));
