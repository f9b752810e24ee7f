/* MODE SELECT (6) and (10), SPC-4 §6.11: all of the parameter list, or nothing of it. */
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_mode_pages.h"
#include "storaged/scsi/scsi_state.h"

#define PARAMETERS_MAX SCSI_STATE_AT
#define SAVE_PAGES 0x01
#define REVERT 0x02
#define PAGE_FORMAT 0x10

static bool is_ten(const struct scsi_command *command)
{
    return command->cdb[0] == 0x55;
}

bool scsi_plan_mode_select(struct scsi_command *command)
{
    uint32_t size = is_ten(command) ? be16_at(command->cdb + 7) : command->cdb[4];
    if (command->cdb[1] & REVERT)
        return scsi_plan_fail_cdb(command, 1, 1);
    if (!(command->cdb[1] & PAGE_FORMAT) && size) /* pages of a vendor's format */
        return scsi_plan_fail_cdb(command, 1, 4);
    if (size > PARAMETERS_MAX)
        return scsi_plan_fail_cdb(command, is_ten(command) ? 7 : 4, -1);
    command->direction = size ? SCSI_DATA_OUT : SCSI_NO_DATA;
    command->transfer_size = size;
    command->buffer_size = size ? SCSI_STATE_BUFFER : 0;
    return true;
}

static bool fail_length(struct scsi_command *command)
{
    return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
}

/* The size of blocks and of the disk cannot be changed: what is there, or nothing said. */
static bool descriptor_fits(const struct scsi_command *command, const uint8_t *at, size_t size)
{
    uint64_t sectors = command->nexus->lun->sectors;
    uint64_t count = size == 16 ? be64_at(at) : be32_at(at), all = size == 16 ? UINT64_MAX : UINT32_MAX;
    uint32_t length = size == 16 ? be32_at(at + 12) : be24_at(at + 5);
    return (count == 0 || count == all || count == sectors) && length == LUN_SECTOR_SIZE;
}

/* True: the command failed; else *ret_at is where the pages begin. */
static bool read_header(struct scsi_command *command, size_t *ret_at)
{
    size_t header = is_ten(command) ? 8 : 4;
    const uint8_t *data = command->data;
    if (command->data_size < header)
        return fail_length(command);
    bool is_long = is_ten(command) && data[4] & 0x01;
    size_t descriptor = is_ten(command) ? be16_at(data + 6) : data[3], whole = is_long ? 16 : 8;
    if (descriptor != 0 && descriptor != whole)
        return scsi_fail_parameter(command, is_ten(command) ? 6 : 3);
    if (command->data_size < header + descriptor)
        return fail_length(command);
    if (descriptor && !descriptor_fits(command, data + header, whole))
        return scsi_fail_parameter(command, (uint16_t)header);
    *ret_at = header + descriptor;
    return false;
}

/* True: the command failed. What cannot be changed must be as it is. */
static bool read_page(struct scsi_command *command, size_t at, struct scsi_modes *modes, size_t *ret_size)
{
    const uint8_t *given = command->data + at;
    uint8_t mask[2 + 0x12] = {0}, now[2 + 0x12] = {0};
    if (command->data_size - at < 2)
        return fail_length(command);
    const struct scsi_mode_page *page = scsi_mode_page_find(given[0] & 0x3f);
    if (!page || given[0] & 0x40) /* SPF: there are no subpages */
        return scsi_fail_parameter(command, (uint16_t)at);
    if (given[1] != page->size)
        return scsi_fail_parameter(command, (uint16_t)(at + 1));
    if (command->data_size - at < 2u + page->size)
        return fail_length(command);
    scsi_mode_page_mask(page, mask);
    page->fill(now, modes);
    for (unsigned i = 2; i < 2u + page->size; i++)
        if ((given[i] ^ now[i]) & ~mask[i])
            return scsi_fail_parameter(command, (uint16_t)(at + i));
    if (page->take)
        page->take(given, modes);
    *ret_size = 2u + page->size;
    return false;
}

static bool read_list(struct scsi_command *command, struct scsi_modes *modes)
{
    size_t at = 0, size = 0;
    if (read_header(command, &at))
        return true;
    for (; at < command->data_size; at += size)
        if (read_page(command, at, modes, &size))
            return true;
    return false;
}

static bool same(const struct scsi_modes *left, const struct scsi_modes *right)
{
    return left->d_sense == right->d_sense && left->swp == right->swp;
}

static bool step(struct scsi_command *command)
{
    const struct scsi_mode_state *now = &command->nexus->unit->modes;
    struct scsi_mode_state next = *now;
    if (read_list(command, &next.current))
        return true;
    if (command->cdb[1] & SAVE_PAGES)
        next.saved = next.current;
    command->status = SCSI_STATUS_GOOD;
    if (same(&next.current, &now->current) && same(&next.saved, &now->saved))
        return true;
    next.serial++;
    scsi_nexus_name(command->nexus, &next.actor);
    if (scsi_mode_state_encode(&next, scsi_state_text(command), LUN_STATE_MAX) < 0)
        return scsi_fail(command, SCSI_KEY_HARDWARE_ERROR, SCSI_ASC_INTERNAL_TARGET_FAILURE);
    return false;
}

bool scsi_execute_mode_select(struct scsi_command *command)
{
    command->status = SCSI_STATUS_GOOD;
    if (command->transfer_size == 0) /* SPC-4: no error, nothing to do */
        return true;
    return scsi_state_change(command, SCSI_STATE_MODES, step, NULL);
}
