/* Encodes sense data in fixed format, SPC-4 §4.5.3. */
#include "storaged/scsi_sense.h"

#include <string.h>

#include "common/bytes.h"

static void encode_field_pointer(const struct scsi_sense *sense, uint8_t ret[static 3])
{
    ret[0] = 0x80 | (sense->in_cdb ? 0x40 : 0); /* SKSV, C/D */
    if (sense->bit >= 0)
        ret[0] |= 0x08 | (uint8_t)sense->bit; /* BPV */
    put_be16(ret + 1, sense->field);
}

uint8_t scsi_sense_encode(const struct scsi_sense *sense, uint8_t ret[static SCSI_SENSE_MAX])
{
    memset(ret, 0, SCSI_SENSE_MAX);
    ret[0] = 0x70; /* current, fixed */
    ret[2] = sense->key;
    ret[7] = SCSI_SENSE_MAX - 8;
    put_be16(ret + 12, sense->asc);
    /* VALID only when the block number fits: fixed format has four bytes for it. */
    if (sense->has_sector && sense->sector <= UINT32_MAX) {
        ret[0] |= 0x80;
        put_be32(ret + 3, (uint32_t)sense->sector);
    }
    if (sense->has_field)
        encode_field_pointer(sense, ret + 15);
    return SCSI_SENSE_MAX;
}
