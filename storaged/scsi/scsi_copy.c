/* EXTENDED COPY (LID1) and RECEIVE COPY RESULTS: blocks copied inside the volume without passing the initiator
 * (SPC-4 §6.4, §6.24). Third parties are out of reach: each target has one logical unit, and an initiator that may
 * log in to this one need not be admitted to others. */
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_command.h"
#include "storaged/scsi/scsi_range.h"

#define HEADER 16u
#define TARGET 32u  /* size of a target descriptor */
#define SEGMENT 28u /* size of a block to block segment descriptor */
#define TARGETS_MAX 8u
#define SEGMENTS_MAX 16u
#define DESCRIPTORS_SIZE_MAX (TARGETS_MAX * TARGET + SEGMENTS_MAX * SEGMENT)
#define TARGET_IDENTIFICATION 0xe4
#define SEGMENT_BLOCK_TO_BLOCK 0x02
#define LIST_PLACE 4096u            /* the parameter list lies in front of what is being copied */
#define WINDOW_SECTORS 512u         /* copied at a time: others get their turn in between */
#define GRANULARITY_SHIFT 9         /* of segments: 2^9 bytes */
#define NO_LIST_ID 3u               /* LIST ID USAGE 11b */

bool scsi_plan_copy(struct scsi_command *command)
{
    uint32_t size = be32_at(command->cdb + 10);
    if (size > HEADER + DESCRIPTORS_SIZE_MAX)
        return scsi_plan_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    command->transfer_size = size;
    command->buffer_size = size ? LIST_PLACE + WINDOW_SECTORS * LUN_SECTOR_SIZE : 0;
    command->direction = size ? SCSI_DATA_OUT : SCSI_NO_DATA;
    return true;
}

static const uint8_t *segment_at(const struct scsi_command *command, unsigned index)
{
    return command->data + HEADER + be16_at(command->data + 2) + index * SEGMENT;
}

/* --- the parameter list, looked at as a whole before anything is copied -------------------------------------------- */

static bool refuse(struct scsi_command *command, uint16_t asc)
{
    scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, asc);
    return false;
}

static bool check_header(struct scsi_command *command)
{
    const uint8_t *list = command->data;
    if (command->data_size < HEADER)
        return refuse(command, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    uint64_t targets = be16_at(list + 2), segments = be32_at(list + 8), inlined = be32_at(list + 12);
    unsigned usage = list[1] >> 3 & 3;
    if (targets + segments + inlined > command->data_size - HEADER || targets % TARGET)
        return refuse(command, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    if (usage == 1 || (usage == NO_LIST_ID && list[0] != 0))
        return !scsi_fail_parameter(command, 1);
    if (inlined) /* no segment descriptor here uses any */
        return !scsi_fail_parameter(command, 12);
    if (targets / TARGET > TARGETS_MAX)
        return refuse(command, SCSI_ASC_TOO_MANY_TARGET_DESCRIPTORS);
    return true;
}

static bool check_targets(struct scsi_command *command)
{
    unsigned size = be16_at(command->data + 2);
    for (unsigned at = HEADER; at < HEADER + size; at += TARGET) {
        const uint8_t *target = command->data + at;
        if (target[0] != TARGET_IDENTIFICATION)
            return refuse(command, SCSI_ASC_UNSUPPORTED_TARGET_DESCRIPTOR);
        if (target[1] & 0x1f) /* not a block device */
            return !scsi_fail_parameter(command, (uint16_t)(at + 1));
        if (be24_at(target + 29) != LUN_SECTOR_SIZE)
            return !scsi_fail_parameter(command, (uint16_t)(at + 29));
    }
    return true;
}

static bool count_segments(struct scsi_command *command)
{
    uint32_t left = be32_at(command->data + 8);
    command->descriptor_count = 0;
    for (const uint8_t *segment = segment_at(command, 0); left; segment += SEGMENT, left -= SEGMENT) {
        if (segment[0] != SEGMENT_BLOCK_TO_BLOCK)
            return refuse(command, SCSI_ASC_UNSUPPORTED_SEGMENT_DESCRIPTOR);
        if (left < SEGMENT || be16_at(segment + 2) != SEGMENT - 4)
            return refuse(command, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
        if (++command->descriptor_count > SEGMENTS_MAX)
            return refuse(command, SCSI_ASC_TOO_MANY_SEGMENT_DESCRIPTORS);
    }
    return true;
}

/* Does the target descriptor name this logical unit, by its NAA designator (SPC-4 §6.4.5.2)? */
static bool is_here(const struct scsi_command *command, unsigned index)
{
    uint8_t naa[8];
    const uint8_t *target = command->data + HEADER + index * TARGET;
    if (index >= be16_at(command->data + 2) / TARGET)
        return false;
    scsi_naa_of(command->nexus->lun, naa);
    return (target[4] & 0x0f) == 1 && (target[5] & 0x3f) == 3 && target[7] == sizeof(naa) &&
           memcmp(target + 8, naa, sizeof(naa)) == 0;
}

static bool check_segment(struct scsi_command *command, const uint8_t *segment)
{
    const struct lun *lun = command->nexus->lun;
    uint16_t sectors = be16_at(segment + 10);
    uint16_t asc = SCSI_ASC_NOTHING;
    if (!is_here(command, be16_at(segment + 4)) || !is_here(command, be16_at(segment + 6)))
        asc = SCSI_ASC_COPY_TARGET_NOT_REACHABLE;
    else if (scsi_range_is_inside(lun, be64_at(segment + 12), sectors) && scsi_range_is_inside(lun, be64_at(segment + 20), sectors))
        return true;
    return !scsi_fail(command, SCSI_KEY_COPY_ABORTED, asc);
}

static bool check_list(struct scsi_command *command)
{
    if (!check_header(command) || !check_targets(command) || !count_segments(command))
        return false;
    for (unsigned i = 0; i < command->descriptor_count; i++)
        if (!check_segment(command, segment_at(command, i)))
            return false;
    return true;
}

/* --- copying --------------------------------------------------------------------------------------------------------- */

static void remember(struct scsi_command *command, uint8_t status)
{
    struct scsi_copy_result *result = &command->nexus->copy;
    if ((command->data[1] >> 3 & 3) == NO_LIST_ID)
        return;
    *result = (struct scsi_copy_result){
        .valid = true,
        .list_id = command->data[0],
        .status = status,
        .segments = (uint16_t)command->descriptor,
        .sectors = command->copied_sectors,
        .sense = command->sense,
    };
}

void scsi_copy_failed(struct scsi_command *command)
{
    scsi_fail(command, SCSI_KEY_COPY_ABORTED, SCSI_ASC_THIRD_PARTY_FAILURE);
    remember(command, SCSI_COPY_FAILED);
}

static bool next_segment(struct scsi_command *command)
{
    while (command->sectors == 0) {
        if (command->descriptor == command->descriptor_count) {
            remember(command, SCSI_COPY_DONE);
            return false;
        }
        command->sector = 0; /* done of this segment */
        command->sectors = be16_at(segment_at(command, command->descriptor) + 10);
        if (command->sectors == 0)
            command->descriptor++;
    }
    return true;
}

/* A window is read, then written: the request in flight tells which of both was last. */
static bool advance_copy(struct scsi_command *command)
{
    struct lun_request *request = &command->request;
    const uint8_t *segment = segment_at(command, command->descriptor);
    if (request->sectors && request->opcode == LUN_READ) {
        request->opcode = LUN_WRITE;
        request->sector = be64_at(segment + 20) + command->sector;
        return true;
    }
    command->sector += request->sectors;
    command->sectors -= request->sectors;
    command->copied_sectors += request->sectors;
    if (request->sectors && command->sectors == 0)
        command->descriptor++;
    if (!next_segment(command))
        return false;
    segment = segment_at(command, command->descriptor);
    request->opcode = LUN_READ;
    request->data = command->data + LIST_PLACE;
    request->sector = be64_at(segment + 12) + command->sector;
    request->sectors = command->sectors < WINDOW_SECTORS ? (uint32_t)command->sectors : WINDOW_SECTORS;
    return true;
}

bool scsi_execute_copy(struct scsi_command *command)
{
    if (command->transfer_size == 0) /* SPC-4 §6.4.1: nothing to do is no error */
        return scsi_execute_nothing(command);
    command->descriptor = 0;
    command->copied_sectors = 0;
    if (command->data_size < command->transfer_size)
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    if (!check_list(command)) {
        if (command->sense.key == SCSI_KEY_COPY_ABORTED)
            remember(command, SCSI_COPY_FAILED);
        return true;
    }
    remember(command, SCSI_COPY_RUNNING);
    command->sectors = 0;
    command->advance = advance_copy;
    return scsi_medium_start(command);
}

/* --- the third-party copy page of the vital product data (SPC-4 §7.8.17) ------------------------------------------------- */

static uint8_t *put_descriptor(uint8_t *at, uint16_t type, const void *body, uint16_t size)
{
    uint16_t padded = (uint16_t)((size + 3) & ~3);
    put_be16(at, type);
    put_be16(at + 2, padded);
    memcpy(at + 4, body, size);
    return at + 4 + padded;
}

size_t scsi_copy_fill_page(uint8_t *body)
{
    static const uint8_t commands[] = {8, 0x83, 1, 0x00, 0x84, 3, 0x00, 0x03, 0x04}; /* opcode, its service actions */
    static const uint8_t descriptors[] = {2, SEGMENT_BLOCK_TO_BLOCK, TARGET_IDENTIFICATION};
    static const uint8_t target_ids[2]; /* none beyond the list's own */
    uint8_t limits[28] = {0}, copies[32] = {0}, *at = body;
    put_be16(limits + 4, TARGETS_MAX);
    put_be16(limits + 6, SEGMENTS_MAX);
    put_be32(limits + 8, DESCRIPTORS_SIZE_MAX);
    put_be32(copies, SCSI_COPIES_MAX);
    put_be32(copies + 4, SCSI_COPIES_MAX);
    put_be32(copies + 8, UINT16_MAX * LUN_SECTOR_SIZE);
    copies[12] = GRANULARITY_SHIFT;
    at = put_descriptor(at, 0x0001, commands, sizeof(commands));
    at = put_descriptor(at, 0x0004, limits, sizeof(limits));
    at = put_descriptor(at, 0x0008, descriptors, sizeof(descriptors));
    at = put_descriptor(at, 0x000c, target_ids, sizeof(target_ids));
    at = put_descriptor(at, 0x8001, copies, sizeof(copies));
    return (size_t)(at - body);
}

/* --- RECEIVE COPY RESULTS ---------------------------------------------------------------------------------------------- */

static bool reply_status(struct scsi_command *command)
{
    struct scsi_copy_result *result = &command->nexus->copy;
    uint8_t *data = command->data;
    if (!result->valid || result->list_id != command->cdb[2])
        return scsi_fail_cdb(command, 2, -1);
    put_be32(data, 8);
    data[4] = result->status;
    put_be16(data + 5, result->segments);
    data[7] = 1; /* in KiB */
    put_be32(data + 8, (uint32_t)(result->sectors / 2));
    return scsi_reply(command, 12);
}

static bool reply_parameters(struct scsi_command *command)
{
    uint8_t *data = command->data;
    put_be32(data, 42);
    data[4] = 0x01; /* SNLID: a list identifier may be left out */
    put_be16(data + 8, TARGETS_MAX);
    put_be16(data + 10, SEGMENTS_MAX);
    put_be32(data + 12, DESCRIPTORS_SIZE_MAX);
    put_be32(data + 16, UINT16_MAX * LUN_SECTOR_SIZE);
    put_be16(data + 34, SCSI_COPIES_MAX);
    data[36] = SCSI_COPIES_MAX;
    data[37] = GRANULARITY_SHIFT;
    data[43] = 2; /* implemented descriptors */
    data[44] = SEGMENT_BLOCK_TO_BLOCK;
    data[45] = TARGET_IDENTIFICATION;
    return scsi_reply(command, 46);
}

static bool reply_failure(struct scsi_command *command)
{
    const struct scsi_copy_result *result = &command->nexus->copy;
    uint8_t *data = command->data;
    if (!result->valid || result->list_id != command->cdb[2] || result->status != SCSI_COPY_FAILED)
        return scsi_fail_cdb(command, 2, -1);
    uint8_t size = scsi_sense_encode(&result->sense, data + 60);
    put_be32(data, 56u + size);
    data[56] = SCSI_STATUS_CHECK_CONDITION;
    put_be16(data + 58, size);
    return scsi_reply(command, 60u + size);
}

bool scsi_execute_copy_results(struct scsi_command *command)
{
    switch (command->cdb[1] & 0x1f) {
    case 0x00: return reply_status(command);
    case 0x03: return reply_parameters(command);
    default: return reply_failure(command);
    }
}
