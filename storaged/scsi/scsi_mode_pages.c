/* The mode pages: how this disk behaves, and what of it initiators may change. */
#include "storaged/scsi/scsi_mode_pages.h"

#include <string.h>

#include "common/bytes.h"
#include "common/check.h"

/* Read-write error recovery, SBC-3 §6.5.8. AWRE, ARRE: a bad block is written anew from the other copy. */
static void fill_error_recovery(uint8_t *page, const struct scsi_modes *modes)
{
    page[2] = 0x80 | 0x40;
}

/* Caching, SBC-3 §6.5.5. WCE 0: what is acknowledged is durable; there is nothing to flush. */
static void fill_caching(uint8_t *page, const struct scsi_modes *modes)
{
    page[2] = 0x00;
}

/* Control, SPC-4 §7.5.8. */
static void fill_control(uint8_t *page, const struct scsi_modes *modes)
{
    page[2] = modes->d_sense ? 0x04 : 0; /* TST 0: one task set for all initiators */
    page[3] = 0x10; /* QUEUE ALGORITHM MODIFIER 1: may be reordered; QERR 0: only the failed command ends */
    page[4] = modes->swp ? 0x08 : 0;     /* UA_INTLCK_CTRL 0: a unit attention is told once */
    put_be16(page + 8, 0xffff);          /* busy time-out: unlimited */
}

static void take_control(const uint8_t *page, struct scsi_modes *modes)
{
    modes->d_sense = page[2] & 0x04;
    modes->swp = page[4] & 0x08;
}

/* Informational exceptions, SPC-4 §7.5.11. DEXCPT: whoever runs this disk hears of its troubles another way. */
static void fill_exceptions(uint8_t *page, const struct scsi_modes *modes)
{
    page[2] = 0x08;
}

static const struct scsi_mode_page mode_pages[] = {
    {0x01, 0x0a, false, fill_error_recovery, NULL},
    {0x08, 0x12, false, fill_caching, NULL},
    {0x0a, 0x0a, true, fill_control, take_control},
    {0x1c, 0x0a, false, fill_exceptions, NULL},
};

const struct scsi_mode_page *scsi_mode_page_at(unsigned index)
{
    return index < sizeof(mode_pages) / sizeof(mode_pages[0]) ? &mode_pages[index] : NULL;
}

const struct scsi_mode_page *scsi_mode_page_find(uint8_t code)
{
    const struct scsi_mode_page *page;
    for (unsigned i = 0; (page = scsi_mode_page_at(i)); i++)
        if (page->code == code)
            return page;
    return NULL;
}

/* What differs between everything off and everything on. */
void scsi_mode_page_mask(const struct scsi_mode_page *page, uint8_t *ret)
{
    const struct scsi_modes off = {0}, on = {.d_sense = true, .swp = true};
    uint8_t other[2 + 0x12] = {0};
    check(2u + page->size <= sizeof(other));
    page->fill(ret, &off);
    page->fill(other, &on);
    for (unsigned i = 2; i < 2u + page->size; i++)
        ret[i] ^= other[i];
}
