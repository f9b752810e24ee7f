/* Decodes and begins iSCSI headers; the digests over them. */
#include "storaged/iscsi/iscsi_pdu.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <limits.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"

static bool is_request(uint8_t opcode)
{
    return opcode <= ISCSI_LOGOUT_REQUEST || opcode == ISCSI_SNACK;
}

int iscsi_pdu_decode(const uint8_t bhs[static ISCSI_BHS_SIZE], uint32_t data_max, struct iscsi_pdu *ret)
{
    struct iscsi_pdu pdu = {
        .opcode = bhs[0] & 0x3f,
        .flags = bhs[1],
        .immediate = bhs[0] & 0x40,
        .ahs_size = (uint16_t)(bhs[4] * 4),
        .data_size = be24_at(bhs + 5),
        .task_tag = be32_at(bhs + 16),
        .transfer_tag = be32_at(bhs + 20),
        .command_sn = be32_at(bhs + 24),
        .expected_stat_sn = be32_at(bhs + 28),
        .bhs = bhs,
    };
    if (!is_request(pdu.opcode) || bhs[0] & 0x80)
        return -EPROTO;
    if (pdu.ahs_size && pdu.opcode != ISCSI_SCSI_COMMAND) /* RFC 7143 §11.2.2: no other request has one */
        return -EPROTO;
    if (pdu.data_size > data_max)
        return -EMSGSIZE;
    *ret = pdu;
    return 0;
}

void iscsi_pdu_begin(uint8_t bhs[static ISCSI_BHS_SIZE], enum iscsi_opcode opcode, uint8_t flags, uint32_t task_tag)
{
    memset(bhs, 0, ISCSI_BHS_SIZE);
    bhs[0] = (uint8_t)opcode;
    bhs[1] = flags;
    put_be32(bhs + 16, task_tag);
}

uint32_t iscsi_digest_add(uint32_t digest, const void *data, size_t size)
{
    check(size <= INT_MAX);
    return size ? crc32_iscsi((unsigned char *)data, (int)size, digest) : digest;
}

/* RFC 7143 §13.1: the complement, sent with its least significant byte first. */
void iscsi_digest_end(uint32_t digest, uint8_t ret[static ISCSI_DIGEST_SIZE])
{
    digest = ~digest;
    for (unsigned i = 0; i < ISCSI_DIGEST_SIZE; i++)
        ret[i] = (uint8_t)(digest >> 8 * i);
}

bool iscsi_digest_matches(uint32_t digest, const uint8_t received[static ISCSI_DIGEST_SIZE])
{
    uint8_t expected[ISCSI_DIGEST_SIZE];
    iscsi_digest_end(digest, expected);
    return memcmp(expected, received, sizeof(expected)) == 0;
}
