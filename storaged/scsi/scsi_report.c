/* The REPORT commands: logical units, target port groups, supported commands and task management functions. */
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_command.h"

#define PORT_GROUPS 2u /* one per node */
#define ACCESS_OPTIMIZED 0x0
#define ACCESS_NON_OPTIMIZED 0x1

bool scsi_execute_report_luns(struct scsi_command *command)
{
    uint8_t select = command->cdb[2];
    if (select != 0x00 && select != 0x01 && select != 0x02)
        return scsi_fail_cdb(command, 2, -1);
    if (be32_at(command->cdb + 6) < 16) /* SPC-4 §6.33 */
        return scsi_fail_cdb(command, 6, -1);
    if (select == 0x01) /* well-known logical units: none */
        return scsi_reply(command, 8);
    put_be32(command->data, 8);
    return scsi_reply(command, 16); /* LUN 0 is eight zero bytes */
}

/* One target port group of one port per node; the port's number is the group's (iscsi.md). */
bool scsi_execute_report_target_port_groups(struct scsi_command *command)
{
    uint8_t format = command->cdb[1] >> 5, *data = command->data, *at = data + 4;
    const struct lun *lun = command->nexus->lun;
    bool optimized_here = lun->is_optimized ? lun->is_optimized(command->nexus->lun) : true;

    if (format > 1)
        return scsi_fail_cdb(command, 1, 7);
    if (format == 1) {
        at[0] = 0x10; /* extended header; implicit transition time 0: not told */
        at += 4;
    }
    for (uint16_t group = 1; group <= PORT_GROUPS; group++, at += 12) {
        bool optimized = (group == command->nexus->port_group) == optimized_here;
        at[0] = optimized ? ACCESS_OPTIMIZED : ACCESS_NON_OPTIMIZED;
        at[1] = 0x03; /* AO_SUP, AN_SUP */
        put_be16(at + 2, group);
        at[5] = 0x02; /* changed by the target itself */
        at[7] = 1;
        put_be16(at + 10, group);
    }
    put_be32(data, (uint32_t)(at - data - 4));
    return scsi_reply(command, (size_t)(at - data));
}

static size_t put_timeouts(uint8_t *at)
{
    put_be16(at, 10); /* nominal and recommended time-outs: not told */
    return 12;
}

static bool report_all_operations(struct scsi_command *command)
{
    bool timeouts = command->cdb[2] & 0x80;
    uint8_t *data = command->data, *at = data + 4;
    const struct scsi_operation *operation;
    for (unsigned i = 0; (operation = scsi_operation_at(i)); i++) {
        at[0] = operation->opcode;
        if (operation->service_action >= 0) {
            put_be16(at + 2, (uint16_t)operation->service_action);
            at[5] |= 0x01; /* SERVACTV */
        }
        at[5] |= timeouts ? 0x02 : 0;
        put_be16(at + 6, operation->cdb_size);
        at += 8;
        if (timeouts)
            at += put_timeouts(at);
    }
    put_be32(data, (uint32_t)(at - data - 4));
    return scsi_reply(command, (size_t)(at - data));
}

static bool report_operation(struct scsi_command *command, const struct scsi_operation *operation)
{
    bool timeouts = command->cdb[2] & 0x80;
    uint8_t *data = command->data;
    if (!operation) {
        data[1] = 0x01; /* not supported */
        return scsi_reply(command, 4);
    }
    data[1] = 0x03 | (timeouts ? 0x80 : 0); /* supported as the standard says; CTDP */
    put_be16(data + 2, operation->cdb_size);
    memcpy(data + 4, operation->usage, operation->cdb_size);
    data[4] = operation->opcode;
    if (operation->service_action >= 0)
        data[5] = (data[5] & ~0x1f) | (uint8_t)operation->service_action;
    size_t size = 4u + operation->cdb_size;
    if (timeouts)
        size += put_timeouts(data + size);
    return scsi_reply(command, size);
}

/* SPC-4 §6.35: REPORTING OPTIONS 0 all, 1 one opcode, 2 one with service action, 3 either. */
bool scsi_execute_report_operations(struct scsi_command *command)
{
    uint8_t options = command->cdb[2] & 0x07, wanted[2] = {command->cdb[3], command->cdb[5] & 0x1f};
    bool opcode_known, in_range = be16_at(command->cdb + 4) <= 0x1f;
    const struct scsi_operation *operation = scsi_operation_find(wanted, &opcode_known);
    bool has_actions = opcode_known && !(operation && operation->service_action < 0);

    if (options == 0)
        return report_all_operations(command);
    if (options > 3 || (options == 1 && has_actions) || (options == 2 && opcode_known && !has_actions))
        return scsi_fail_cdb(command, 2, 2);
    if (has_actions && !in_range)
        operation = NULL;
    if (options == 3 && !has_actions && be16_at(command->cdb + 4) != 0)
        operation = NULL;
    return report_operation(command, operation);
}

bool scsi_execute_report_task_management(struct scsi_command *command)
{
    command->data[0] = 0x80 | 0x40 | 0x20 | 0x08 | 0x02; /* ABORT TASK, ABORT/CLEAR TASK SET, LU RESET, TARGET RESET */
    if (command->cdb[2] & 0x80) { /* REPD */
        command->data[3] = 12;
        return scsi_reply(command, 16);
    }
    return scsi_reply(command, 4);
}
