/* MODE SENSE: the pages that say how this disk behaves; none of it can be changed. */
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi_command.h"

#define PAGE_CONTROL_CURRENT 0
#define PAGE_CONTROL_CHANGEABLE 1
#define PAGE_CONTROL_SAVED 3

struct mode_page {
    uint8_t code, size; /* size without the two bytes of page header */
    void (*fill)(uint8_t *page);
};

/* SBC-3 §6.5.5. WCE 0: what is acknowledged is durable; there is nothing to flush. */
static void fill_caching(uint8_t *page)
{
    page[2] = 0x00;
}

/* SPC-4 §7.5.8. */
static void fill_control(uint8_t *page)
{
    page[2] = 0x00;          /* TST 0: one task set for all initiators; D_SENSE 0: fixed format sense */
    page[3] = 0x10;          /* QUEUE ALGORITHM MODIFIER 1: may be reordered */
    put_be16(page + 8, 0xffff); /* busy time-out: unlimited */
}

static const struct mode_page mode_pages[] = {
    {0x08, 0x12, fill_caching},
    {0x0a, 0x0a, fill_control},
};

static size_t put_pages(const struct scsi_command *command, uint8_t *at)
{
    uint8_t wanted = command->cdb[2] & 0x3f, control = command->cdb[2] >> 6;
    size_t size = 0;
    for (size_t i = 0; i < sizeof(mode_pages) / sizeof(mode_pages[0]); i++) {
        const struct mode_page *page = &mode_pages[i];
        if (wanted != 0x3f && wanted != page->code)
            continue;
        at[size] = page->code;
        at[size + 1] = page->size;
        if (control != PAGE_CONTROL_CHANGEABLE)
            page->fill(at + size);
        size += 2u + page->size;
    }
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
    size_t header = is_ten ? 8 : 4, descriptor = 0;
    uint8_t *data = command->data;

    if (command->cdb[2] >> 6 == PAGE_CONTROL_SAVED)
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_SAVING_NOT_SUPPORTED);
    if (command->cdb[3] != 0 && command->cdb[3] != 0xff)
        return scsi_fail_cdb(command, 3, -1);
    if (!no_descriptor)
        descriptor = put_block_descriptor(command->nexus->lun->sectors, is_long, data + header);
    size_t pages = put_pages(command, data + header + descriptor);
    if (pages == 0)
        return scsi_fail_cdb(command, 2, 5);
    size_t total = header + descriptor + pages;
    if (is_ten) {
        put_be16(data, (uint16_t)(total - 2));
        data[3] = 0x10; /* DPOFUA */
        data[4] = is_long && !no_descriptor;
        put_be16(data + 6, (uint16_t)descriptor);
    } else {
        data[0] = (uint8_t)(total - 1);
        data[2] = 0x10;
        data[3] = (uint8_t)descriptor;
    }
    return scsi_reply(command, total);
}
