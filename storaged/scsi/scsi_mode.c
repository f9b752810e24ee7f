/* MODE SENSE (6) and (10), SPC-4 §6.13. */
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_mode_pages.h"
#include "storaged/scsi/scsi_unit.h"

enum page_control { CURRENT, CHANGEABLE, DEFAULT, SAVED };

#define ALL_PAGES 0x3f
#define ALL_SUBPAGES 0xff

static size_t put_page(const struct scsi_command *command, const struct scsi_mode_page *page, uint8_t *at)
{
    const struct scsi_mode_state *state = &command->nexus->unit->modes;
    const struct scsi_modes standard = {0};
    switch ((enum page_control)(command->cdb[2] >> 6)) {
    case CURRENT: page->fill(at, &state->current); break;
    case CHANGEABLE: scsi_mode_page_mask(page, at); break;
    case DEFAULT: page->fill(at, &standard); break;
    case SAVED: page->fill(at, &state->saved); break;
    }
    at[0] = page->code | (page->can_be_saved ? 0x80 : 0);
    at[1] = page->size;
    return 2u + page->size;
}

/* There are no subpages: FFh, all of them, gives the pages. */
static size_t put_pages(const struct scsi_command *command, uint8_t *at)
{
    uint8_t wanted = command->cdb[2] & 0x3f;
    const struct scsi_mode_page *page;
    size_t size = 0;
    for (unsigned i = 0; (page = scsi_mode_page_at(i)); i++)
        if (wanted == ALL_PAGES || wanted == page->code)
            size += put_page(command, page, at + size);
    return size;
}

/* Short (8 byte) block descriptor, SBC-3 §6.5.2.2; the long one when LLBAA asks for it. */
static size_t put_block_descriptor(uint64_t sectors, bool is_long, uint8_t *at)
{
    if (is_long) {
        put_be64(at, sectors);
        put_be32(at + 12, LUN_SECTOR_SIZE);
        return 16;
    }
    put_be32(at, sectors > UINT32_MAX ? UINT32_MAX : (uint32_t)sectors);
    put_be24(at + 5, LUN_SECTOR_SIZE);
    return 8;
}

bool scsi_execute_mode_sense(struct scsi_command *command)
{
    bool is_ten = command->cdb[0] == 0x5a, no_descriptor = command->cdb[1] & 0x08;
    bool is_long = is_ten && (command->cdb[1] & 0x10);
    uint8_t specific = 0x10 | (command->nexus->unit->modes.current.swp ? 0x80 : 0); /* DPOFUA, WP */
    size_t header = is_ten ? 8 : 4, descriptor = 0;
    uint8_t *data = command->data;

    if (command->cdb[3] != 0 && command->cdb[3] != ALL_SUBPAGES)
        return scsi_fail_cdb(command, 3, -1);
    if (!no_descriptor)
        descriptor = put_block_descriptor(command->nexus->lun->sectors, is_long, data + header);
    size_t pages = put_pages(command, data + header + descriptor);
    if (pages == 0)
        return scsi_fail_cdb(command, 2, 5);
    size_t total = header + descriptor + pages;
    if (is_ten) {
        put_be16(data, (uint16_t)(total - 2));
        data[3] = specific;
        data[4] = is_long && !no_descriptor;
        put_be16(data + 6, (uint16_t)descriptor);
    } else {
        data[0] = (uint8_t)(total - 1);
        data[2] = specific;
        data[3] = (uint8_t)descriptor;
    }
    return scsi_reply(command, total);
}
