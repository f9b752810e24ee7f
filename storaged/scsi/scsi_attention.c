/* Unit attentions: what an initiator is told once, instead of the command it sent (SAM-5 §5.14). */
#include "storaged/scsi/scsi_command.h"

static const uint16_t attention_codes[SCSI_ATTENTION_COUNT] = {
    [SCSI_ATTENTION_POWER_ON] = SCSI_ASC_POWER_ON,
    [SCSI_ATTENTION_TARGET_RESET] = SCSI_ASC_BUS_RESET,
    [SCSI_ATTENTION_RESET] = SCSI_ASC_BUS_DEVICE_RESET,
    [SCSI_ATTENTION_NEXUS_LOSS] = SCSI_ASC_NEXUS_LOSS,
    [SCSI_ATTENTION_COMMANDS_CLEARED] = SCSI_ASC_COMMANDS_CLEARED,
    [SCSI_ATTENTION_RESERVATIONS_PREEMPTED] = SCSI_ASC_RESERVATIONS_PREEMPTED,
    [SCSI_ATTENTION_RESERVATIONS_RELEASED] = SCSI_ASC_RESERVATIONS_RELEASED,
    [SCSI_ATTENTION_REGISTRATIONS_PREEMPTED] = SCSI_ASC_REGISTRATIONS_PREEMPTED,
    [SCSI_ATTENTION_MODE_CHANGED] = SCSI_ASC_MODE_PARAMETERS_CHANGED,
    [SCSI_ATTENTION_CAPACITY_CHANGED] = SCSI_ASC_CAPACITY_CHANGED,
    [SCSI_ATTENTION_ACCESS_CHANGED] = SCSI_ASC_ASYMMETRIC_ACCESS_CHANGED,
    [SCSI_ATTENTION_LUNS_CHANGED] = SCSI_ASC_LUNS_CHANGED,
};

void scsi_attention_raise(struct scsi_nexus *nexus, enum scsi_attention attention)
{
    nexus->attentions |= 1u << attention;
}

/* One per command, the most important first; told once. */
bool scsi_attention_report(struct scsi_command *command, enum scsi_attention below)
{
    struct scsi_nexus *nexus = command->nexus;
    for (unsigned i = 0; i < below; i++) {
        if (!(nexus->attentions & 1u << i))
            continue;
        nexus->attentions &= ~(1u << i);
        return scsi_fail(command, SCSI_KEY_UNIT_ATTENTION, attention_codes[i]);
    }
    return false;
}
