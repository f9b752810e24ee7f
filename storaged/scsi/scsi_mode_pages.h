/* The mode pages, for MODE SENSE and MODE SELECT alike. */
#pragma once

#include <stddef.h>

#include "storaged/scsi/scsi_mode_state.h"

struct scsi_mode_page {
    uint8_t code, size; /* size without the two bytes of page header */
    bool can_be_saved;  /* PS */
    /* Fills the page's bytes from 2 on, which are zero. */
    void (*fill)(uint8_t *page, const struct scsi_modes *modes);
    /* Takes over what can be changed (may be NULL: nothing). */
    void (*take)(const uint8_t *page, struct scsi_modes *modes);
};

/* In ascending order of page codes; NULL past the end. */
const struct scsi_mode_page *scsi_mode_page_at(unsigned index);
const struct scsi_mode_page *scsi_mode_page_find(uint8_t code);
/* Bits that can be changed are set; the bytes from 2 on. */
void scsi_mode_page_mask(const struct scsi_mode_page *page, uint8_t *ret);
