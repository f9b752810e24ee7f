/* Encodes sense data: fixed format, SPC-4 §4.5.3, and descriptor format, §4.5.2. */
#include "storaged/scsi/scsi_sense.h"

#include <string.h>

#include "common/bytes.h"

/* Sense key specific data, SPC-4 §4.5.2.4: a field pointer or a progress. False: there is none. */
static bool encode_specific(const struct scsi_sense *sense, uint8_t ret[static 3])
{
    if (!sense->has_field && !sense->has_progress)
        return false;
    ret[0] = 0x80; /* SKSV */
    put_be16(ret + 1, sense->has_field ? sense->field : sense->progress);
    if (sense->has_field && sense->in_cdb)
        ret[0] |= 0x40; /* C/D */
    if (sense->has_field && sense->bit >= 0)
        ret[0] |= 0x08 | (uint8_t)sense->bit; /* BPV */
    return true;
}

uint8_t scsi_sense_encode(const struct scsi_sense *sense, uint8_t ret[static SCSI_SENSE_MAX])
{
    memset(ret, 0, SCSI_SENSE_MAX);
    ret[0] = 0x70; /* current, fixed */
    ret[2] = sense->key;
    ret[7] = SCSI_SENSE_FIXED_SIZE - 8;
    put_be16(ret + 12, sense->asc);
    /* VALID only when the block number fits: fixed format has four bytes for it. */
    if (sense->has_sector && sense->sector <= UINT32_MAX) {
        ret[0] |= 0x80;
        put_be32(ret + 3, (uint32_t)sense->sector);
    }
    encode_specific(sense, ret + 15);
    return SCSI_SENSE_FIXED_SIZE;
}

uint8_t scsi_sense_encode_descriptors(const struct scsi_sense *sense, uint8_t ret[static SCSI_SENSE_MAX])
{
    uint8_t *at = ret + 8;
    memset(ret, 0, SCSI_SENSE_MAX);
    ret[0] = 0x72; /* current, descriptors */
    ret[1] = sense->key;
    put_be16(ret + 2, sense->asc);
    if (sense->has_sector) {
        at[0] = 0x00; /* information */
        at[1] = 0x0a;
        at[2] = 0x80; /* VALID */
        put_be64(at + 4, sense->sector);
        at += 12;
    }
    if (encode_specific(sense, at + 4)) {
        at[0] = 0x02; /* sense key specific */
        at[1] = 0x06;
        at += 8;
    }
    ret[7] = (uint8_t)(at - ret - 8);
    return (uint8_t)(at - ret);
}
