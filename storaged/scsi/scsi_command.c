/* The table of SCSI commands and the way of each through it. */
#include "storaged/scsi/scsi_command.h"

#include <string.h>

#include "common/bytes.h"
#include "common/check.h"

#define LBA32 0xff, 0xff, 0xff, 0xff
#define LBA64 LBA32, LBA32
#define WRITE SCSI_ACCESS_WRITE
#define CONTROL SCSI_ACCESS_CONTROL
#define READ SCSI_ACCESS_READ
#define STATUS SCSI_ACCESS_STATUS
#define FREE SCSI_ACCESS_FREE
#define OWN SCSI_ACCESS_OWN

/* clang-format off */
static const struct scsi_operation operations[] = {
    /* code  sa  cdb access alloc ignores any-lun plan execute usage */
    { 0x00, -1,  6, STATUS, 0, 0, false, false, NULL, scsi_execute_nothing, {0, 0, 0, 0, 0, 0x04} },                   /* TEST UNIT READY */
    { 0x03, -1,  6, FREE,   4, 1, true,  true,  NULL, scsi_execute_request_sense, {0, 0x01, 0, 0, 0xff, 0x04} },
    { 0x08, -1,  6, READ,   0, 0, false, false, scsi_plan_read, scsi_execute_medium, {0, 0x1f, 0xff, 0xff, 0xff, 0x04} },
    { 0x0a, -1,  6, WRITE,  0, 0, false, false, scsi_plan_write, scsi_execute_medium, {0, 0x1f, 0xff, 0xff, 0xff, 0x04} },
    { 0x12, -1,  6, FREE,   3, 2, true,  true,  NULL, scsi_execute_inquiry, {0, 0x01, 0xff, 0xff, 0xff, 0x04} },
    { 0x1a, -1,  6, READ,   4, 1, false, false, NULL, scsi_execute_mode_sense, {0, 0x08, 0xff, 0xff, 0xff, 0x04} },
    { 0x15, -1,  6, CONTROL, 0, 0, false, false, scsi_plan_mode_select, scsi_execute_mode_select, {0, 0x11, 0, 0, 0xff, 0x04} },
    { 0x16, -1,  6, OWN,    0, 0, false, false, scsi_plan_reserve, scsi_execute_reserve, {0, 0, 0, 0, 0, 0x04} },
    { 0x17, -1,  6, OWN,    0, 0, false, false, scsi_plan_reserve, scsi_execute_release, {0, 0, 0, 0, 0, 0x04} },
    { 0x1b, -1,  6, OWN,    0, 0, false, false, NULL, scsi_execute_nothing, {0, 0x01, 0, 0x0f, 0xf7, 0x04} },          /* START STOP UNIT */
    { 0x1e, -1,  6, OWN,    0, 0, false, false, NULL, scsi_execute_nothing, {0, 0, 0, 0, 0x03, 0x04} },                /* PREVENT ALLOW */
    { 0x25, -1, 10, FREE,   0, 8, false, false, NULL, scsi_execute_read_capacity10, {0, 0, LBA32, 0, 0, 0x01, 0x04} },
    { 0x28, -1, 10, READ,   0, 0, false, false, scsi_plan_read, scsi_execute_medium, {0, 0x18, LBA32, 0, 0xff, 0xff, 0x04} },
    { 0x2a, -1, 10, WRITE,  0, 0, false, false, scsi_plan_write, scsi_execute_medium, {0, 0x18, LBA32, 0, 0xff, 0xff, 0x04} },
    { 0x2e, -1, 10, WRITE,  0, 0, false, false, scsi_plan_write_verify, scsi_execute_write_verify, {0, 0x12, LBA32, 0, 0xff, 0xff, 0x04} },
    { 0x2f, -1, 10, READ,   0, 0, false, false, scsi_plan_verify, scsi_execute_verify, {0, 0x16, LBA32, 0, 0xff, 0xff, 0x04} },
    { 0x34, -1, 10, READ,   0, 0, false, false, scsi_plan_prefetch, scsi_execute_nothing, {0, 0x02, LBA32, 0, 0xff, 0xff, 0x04} },
    { 0x35, -1, 10, CONTROL, 0, 0, false, false, scsi_plan_synchronize_cache, scsi_execute_flush, {0, 0x02, LBA32, 0, 0xff, 0xff, 0x04} },
    { 0x37, -1, 10, READ,   7, 2, false, false, NULL, scsi_execute_read_defect_data, {0, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x41, -1, 10, WRITE,  0, 0, false, false, scsi_plan_write_same, scsi_execute_write_same, {0, 0x08, LBA32, 0, 0xff, 0xff, 0x04} },
    { 0x42, -1, 10, WRITE,  0, 0, false, false, scsi_plan_unmap, scsi_execute_unmap, {0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x48, 0x01, 10, WRITE, 0, 0, false, false, scsi_plan_sanitize, scsi_execute_sanitize, {0, 0xbf, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} }, /* overwrite */
    { 0x48, 0x02, 10, WRITE, 0, 0, false, false, scsi_plan_sanitize, scsi_execute_sanitize, {0, 0xbf, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} }, /* block erase */
    { 0x48, 0x1f, 10, WRITE, 0, 0, false, false, scsi_plan_sanitize, scsi_execute_sanitize, {0, 0x9f, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} }, /* exit failure mode */
    { 0x55, -1, 10, CONTROL, 0, 0, false, false, scsi_plan_mode_select, scsi_execute_mode_select, {0, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x56, -1, 10, OWN,    0, 0, false, false, scsi_plan_reserve, scsi_execute_reserve, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0x04} },
    { 0x57, -1, 10, OWN,    0, 0, false, false, scsi_plan_reserve, scsi_execute_release, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0x04} },
    { 0x5a, -1, 10, READ,   7, 2, false, false, NULL, scsi_execute_mode_sense, {0, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x5e, 0x00, 10, OWN, 7, 2, false, false, NULL, scsi_execute_read_keys, {0, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x5e, 0x01, 10, OWN, 7, 2, false, false, NULL, scsi_execute_read_reservation, {0, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x5e, 0x02, 10, OWN, 7, 2, false, false, NULL, scsi_execute_report_capabilities, {0, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x5e, 0x03, 10, OWN, 7, 2, false, false, scsi_plan_read_full_status, scsi_execute_read_full_status, {0, 0x1f, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04} },
    { 0x5f, 0x00, 10, OWN, 0, 0, false, false, scsi_plan_persistent_reserve_out, scsi_execute_persistent_reserve_out, {0, 0x1f, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04} },
    { 0x5f, 0x01, 10, OWN, 0, 0, false, false, scsi_plan_persistent_reserve_out, scsi_execute_persistent_reserve_out, {0, 0x1f, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04} },
    { 0x5f, 0x02, 10, OWN, 0, 0, false, false, scsi_plan_persistent_reserve_out, scsi_execute_persistent_reserve_out, {0, 0x1f, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04} },
    { 0x5f, 0x03, 10, OWN, 0, 0, false, false, scsi_plan_persistent_reserve_out, scsi_execute_persistent_reserve_out, {0, 0x1f, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04} },
    { 0x5f, 0x04, 10, OWN, 0, 0, false, false, scsi_plan_persistent_reserve_out, scsi_execute_persistent_reserve_out, {0, 0x1f, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04} },
    { 0x5f, 0x05, 10, OWN, 0, 0, false, false, scsi_plan_persistent_reserve_out, scsi_execute_persistent_reserve_out, {0, 0x1f, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04} },
    { 0x5f, 0x06, 10, OWN, 0, 0, false, false, scsi_plan_persistent_reserve_out, scsi_execute_persistent_reserve_out, {0, 0x1f, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04} },
    { 0x83, 0x00, 16, WRITE, 0, 0, false, false, scsi_plan_copy, scsi_execute_copy, {0, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, LBA32, 0, 0x04} },
    { 0x84, 0x00, 16, READ, 10, 4, false, false, NULL, scsi_execute_copy_results, {0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, LBA32, 0, 0x04} },
    { 0x84, 0x03, 16, READ, 10, 4, false, false, NULL, scsi_execute_copy_results, {0, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, LBA32, 0, 0x04} },
    { 0x84, 0x04, 16, READ, 10, 4, false, false, NULL, scsi_execute_copy_results, {0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, LBA32, 0, 0x04} },
    { 0x88, -1, 16, READ,   0, 0, false, false, scsi_plan_read, scsi_execute_medium, {0, 0x18, LBA64, LBA32, 0, 0x04} },
    { 0x89, -1, 16, WRITE,  0, 0, false, false, scsi_plan_compare_write, scsi_execute_whole, {0, 0x18, LBA64, 0, 0, 0, 0xff, 0, 0x04} },
    { 0x8a, -1, 16, WRITE,  0, 0, false, false, scsi_plan_write, scsi_execute_medium, {0, 0x18, LBA64, LBA32, 0, 0x04} },
    { 0x8b, -1, 16, WRITE,  0, 0, false, false, scsi_plan_or_write, scsi_execute_medium, {0, 0x18, LBA64, LBA32, 0, 0x04} },
    { 0x8e, -1, 16, WRITE,  0, 0, false, false, scsi_plan_write_verify, scsi_execute_write_verify, {0, 0x12, LBA64, LBA32, 0, 0x04} },
    { 0x8f, -1, 16, READ,   0, 0, false, false, scsi_plan_verify, scsi_execute_verify, {0, 0x16, LBA64, LBA32, 0, 0x04} },
    { 0x90, -1, 16, READ,   0, 0, false, false, scsi_plan_prefetch, scsi_execute_nothing, {0, 0x02, LBA64, LBA32, 0, 0x04} },
    { 0x91, -1, 16, CONTROL, 0, 0, false, false, scsi_plan_synchronize_cache, scsi_execute_flush, {0, 0x02, LBA64, LBA32, 0, 0x04} },
    { 0x93, -1, 16, WRITE,  0, 0, false, false, scsi_plan_write_same, scsi_execute_write_same, {0, 0x09, LBA64, LBA32, 0, 0x04} },
    { 0x9c, -1, 16, WRITE,  0, 0, false, false, scsi_plan_write_atomic, scsi_execute_whole, {0, 0x18, LBA64, 0xff, 0xff, 0xff, 0xff, 0, 0x04} },
    { 0x9e, 0x10, 16, FREE,   10, 4, false, false, NULL, scsi_execute_read_capacity16, {0, 0x1f, LBA64, LBA32, 0x01, 0x04} },
    { 0x9e, 0x12, 16, READ,   10, 4, false, false, NULL, scsi_execute_get_lba_status, {0, 0x1f, LBA64, LBA32, 0, 0x04} },
    { 0xa0, -1, 12, FREE,   6, 4, true,  true,  NULL, scsi_execute_report_luns, {0, 0, 0xff, 0, 0, 0, LBA32, 0, 0x04} },
    { 0xa3, 0x0a, 12, FREE,   6, 4, false, false, NULL, scsi_execute_report_target_port_groups, {0, 0xff, 0, 0, 0, 0, LBA32, 0, 0x04} },
    { 0xa3, 0x0c, 12, READ,   6, 4, false, false, NULL, scsi_execute_report_operations, {0, 0x1f, 0x87, 0xff, 0xff, 0xff, LBA32, 0, 0x04} },
    { 0xa3, 0x0d, 12, READ,   6, 4, false, false, NULL, scsi_execute_report_task_management, {0, 0x1f, 0x80, 0, 0, 0, LBA32, 0, 0x04} },
    { 0xa8, -1, 12, READ,   0, 0, false, false, scsi_plan_read, scsi_execute_medium, {0, 0x18, LBA32, LBA32, 0, 0x04} },
    { 0xaa, -1, 12, WRITE,  0, 0, false, false, scsi_plan_write, scsi_execute_medium, {0, 0x18, LBA32, LBA32, 0, 0x04} },
    { 0xae, -1, 12, WRITE,  0, 0, false, false, scsi_plan_write_verify, scsi_execute_write_verify, {0, 0x12, LBA32, LBA32, 0, 0x04} },
    { 0xaf, -1, 12, READ,   0, 0, false, false, scsi_plan_verify, scsi_execute_verify, {0, 0x16, LBA32, LBA32, 0, 0x04} },
    { 0xb7, -1, 12, READ,   6, 4, false, false, NULL, scsi_execute_read_defect_data, {0, 0x1f, 0, 0, 0, 0, LBA32, 0, 0x04} },
};
/* clang-format on */

const struct scsi_operation *scsi_operation_at(unsigned index)
{
    return index < sizeof(operations) / sizeof(operations[0]) ? &operations[index] : NULL;
}

const struct scsi_operation *scsi_operation_find(const uint8_t *cdb, bool *ret_opcode_known)
{
    *ret_opcode_known = false;
    for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        if (operations[i].opcode != cdb[0])
            continue;
        *ret_opcode_known = true;
        if (operations[i].service_action < 0 || operations[i].service_action == (cdb[1] & 0x1f))
            return &operations[i];
    }
    return NULL;
}

/* LUN 0 in peripheral or flat addressing (SAM-5 §4.7.7); each target has just this one. */
bool scsi_lun_exists(const struct scsi_command *command)
{
    return command->lun_number == 0 || command->lun_number == UINT64_C(0x4000) << 48;
}

bool scsi_fail(struct scsi_command *command, uint8_t key, uint16_t asc)
{
    command->status = SCSI_STATUS_CHECK_CONDITION;
    command->sense = (struct scsi_sense){.key = key, .asc = asc};
    return true;
}

bool scsi_fail_cdb(struct scsi_command *command, uint16_t byte, int8_t bit)
{
    scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_CDB);
    command->sense.has_field = command->sense.in_cdb = true;
    command->sense.field = byte;
    command->sense.bit = bit;
    return true;
}

bool scsi_fail_parameter(struct scsi_command *command, uint16_t byte)
{
    scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    command->sense.has_field = true;
    command->sense.field = byte;
    command->sense.bit = -1;
    return true;
}

bool scsi_plan_fail(struct scsi_command *command, uint8_t key, uint16_t asc)
{
    return !scsi_fail(command, key, asc);
}

bool scsi_plan_fail_cdb(struct scsi_command *command, uint16_t byte, int8_t bit)
{
    return !scsi_fail_cdb(command, byte, bit);
}

static uint32_t allocation_length(const struct scsi_command *command)
{
    const struct scsi_operation *operation = command->operation;
    const uint8_t *at = command->cdb + operation->allocation_at;
    switch (operation->allocation_bytes) {
    case 1: return at[0];
    case 2: return be16_at(at);
    case 4: return be32_at(at);
    default: return operation->allocation_bytes; /* READ CAPACITY (10): always eight bytes */
    }
}

bool scsi_reply(struct scsi_command *command, size_t size)
{
    check(size <= command->buffer_size);
    uint32_t room = allocation_length(command);
    command->transfer_size = size < room ? (uint32_t)size : room;
    command->status = SCSI_STATUS_GOOD;
    return true;
}

static bool plan_reply(struct scsi_command *command)
{
    uint32_t room = allocation_length(command);
    command->direction = SCSI_DATA_IN;
    command->transfer_size = room < SCSI_REPLY_MAX ? room : SCSI_REPLY_MAX;
    command->buffer_size = SCSI_REPLY_MAX;
    return true;
}

/* SAM-5 §5.3.3: resets are told first, then reservations are in the way, then come the other unit attentions. */
static bool is_refused(struct scsi_command *command)
{
    bool told = !command->operation->ignores_attention;
    if (command->operation->execute == scsi_execute_report_luns)
        command->nexus->attentions &= ~(1u << SCSI_ATTENTION_LUNS_CHANGED); /* SAM-5 §5.14 */
    return (told && scsi_attention_report(command, SCSI_ATTENTION_NEXUS_LOSS + 1)) || scsi_access_conflicts(command) ||
           (told && scsi_attention_report(command, SCSI_ATTENTION_COUNT)) || scsi_access_is_protected(command);
}

bool scsi_command_plan(struct scsi_command *command)
{
    bool opcode_known;
    command->direction = SCSI_NO_DATA;
    command->transfer_size = command->buffer_size = command->data_size = 0;
    command->data = NULL;
    command->dropped = command->surplus = false;
    command->status = SCSI_STATUS_GOOD;
    command->operation = scsi_operation_find(command->cdb, &opcode_known);
    if (!scsi_lun_exists(command) && !(command->operation && command->operation->any_lun))
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LOGICAL_UNIT_NOT_SUPPORTED);
    if (!command->operation && opcode_known)
        return scsi_plan_fail_cdb(command, 1, 4);
    if (!command->operation)
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_INVALID_OPERATION_CODE);
    if (scsi_lun_exists(command) && is_refused(command))
        return false;
    if (command->cdb[command->operation->cdb_size - 1] & 0x04) /* NACA: no auto contingent allegiance here */
        return scsi_plan_fail_cdb(command, command->operation->cdb_size - 1, 2);
    if (scsi_lun_exists(command) && scsi_sanitize_refuses(command))
        return false;
    if (command->operation->plan)
        return command->operation->plan(command);
    return command->operation->allocation_bytes ? plan_reply(command) : true;
}

bool scsi_command_execute(struct scsi_command *command)
{
    if (command->direction == SCSI_DATA_IN && command->operation->allocation_bytes)
        memset(command->data, 0, command->buffer_size);
    /* Reservations, write protection and SANITIZE may have come while the data was under way. */
    if (scsi_lun_exists(command) &&
        (scsi_access_conflicts(command) || scsi_access_is_protected(command) || scsi_sanitize_refuses(command)))
        return true;
    return command->operation->execute(command);
}

bool scsi_execute_nothing(struct scsi_command *command)
{
    command->status = SCSI_STATUS_GOOD;
    return true;
}

static void fail_request(struct scsi_command *command)
{
    const struct lun_request *request = &command->request;
    if (request->status == LUN_DROPPED) {
        command->dropped = true;
    } else if (request->status == LUN_MISCOMPARE) { /* SBC-4 §5.3: INFORMATION is the offset of the first difference */
        scsi_fail(command, SCSI_KEY_MISCOMPARE, SCSI_ASC_MISCOMPARE);
        command->sense.has_sector = true;
        command->sense.sector = request->miscompare_offset;
    } else if (request->status == LUN_NO_SPACE) {
        scsi_fail(command, SCSI_KEY_DATA_PROTECT, SCSI_ASC_SPACE_ALLOCATION_FAILED);
    } else {
        bool was_write = request->opcode == LUN_WRITE || request->opcode == LUN_UNMAP;
        scsi_fail(command, SCSI_KEY_MEDIUM_ERROR, was_write ? SCSI_ASC_WRITE_ERROR : SCSI_ASC_UNRECOVERED_READ_ERROR);
        command->sense.has_sector = true;
        command->sense.sector = request->bad_sector;
    }
    if (command->operation->opcode == 0x83 && !command->dropped)
        scsi_copy_failed(command);
    command->transfer_size = 0;
}

/* A command of several requests (UNMAP, WRITE SAME) has one of them in flight at a time. */
static void request_done(struct lun_request *request)
{
    struct scsi_command *command = list_entry(request, struct scsi_command, request);
    if (request->status != LUN_OK) {
        fail_request(command);
    } else if ((command->nexus->lun_nexus->dropped || command->nexus->preempted) && command->sectors) {
        command->dropped = true;
    } else if (command->advance(command)) {
        lun_submit(command->nexus->lun, request);
        return;
    }
    command->done(command);
}

bool scsi_medium_start(struct scsi_command *command)
{
    command->request = (struct lun_request){
        .done = request_done, .nexus = command->nexus->lun_nexus, .data = command->data};
    list_init(&command->request.link);
    command->status = SCSI_STATUS_GOOD;
    if (!command->advance(command))
        return true;
    lun_submit(command->nexus->lun, &command->request);
    return false;
}

bool scsi_execute_request_sense(struct scsi_command *command)
{
    struct scsi_command pending = {.nexus = command->nexus};
    if (!scsi_lun_exists(command))
        scsi_fail(&pending, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LOGICAL_UNIT_NOT_SUPPORTED);
    else if (!scsi_attention_report(&pending, SCSI_ATTENTION_COUNT))
        scsi_sanitize_report(&pending); /* NO SENSE when nothing is pending */
    bool descriptors = command->cdb[1] & 1; /* DESC, whatever D_SENSE says (SPC-4 §6.39) */
    return scsi_reply(command, (descriptors ? scsi_sense_encode_descriptors : scsi_sense_encode)(&pending.sense, command->data));
}
