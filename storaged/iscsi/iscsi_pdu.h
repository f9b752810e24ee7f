/* The iSCSI PDU: its 48-byte header, the limits it is held to, and digests (RFC 7143 §11, §13). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISCSI_BHS_SIZE 48u
#define ISCSI_AHS_MAX 1020u /* TotalAHSLength is one byte of four-byte words */
#define ISCSI_DIGEST_SIZE 4u
#define ISCSI_TAG_NONE UINT32_C(0xffffffff)

enum iscsi_opcode {
    ISCSI_NOP_OUT = 0x00,
    ISCSI_SCSI_COMMAND = 0x01,
    ISCSI_TASK_REQUEST = 0x02,
    ISCSI_LOGIN_REQUEST = 0x03,
    ISCSI_TEXT_REQUEST = 0x04,
    ISCSI_DATA_OUT = 0x05,
    ISCSI_LOGOUT_REQUEST = 0x06,
    ISCSI_SNACK = 0x10,
    ISCSI_NOP_IN = 0x20,
    ISCSI_SCSI_RESPONSE = 0x21,
    ISCSI_TASK_RESPONSE = 0x22,
    ISCSI_LOGIN_RESPONSE = 0x23,
    ISCSI_TEXT_RESPONSE = 0x24,
    ISCSI_DATA_IN = 0x25,
    ISCSI_LOGOUT_RESPONSE = 0x26,
    ISCSI_R2T = 0x31,
    ISCSI_ASYNC_MESSAGE = 0x32,
    ISCSI_REJECT = 0x3f,
};

/* Reject reasons, RFC 7143 §11.17.1. */
enum iscsi_reject {
    ISCSI_REJECT_DATA_DIGEST = 0x02,
    ISCSI_REJECT_SNACK = 0x03,
    ISCSI_REJECT_PROTOCOL_ERROR = 0x04,
    ISCSI_REJECT_NOT_SUPPORTED = 0x05,
    ISCSI_REJECT_TOO_MANY_IMMEDIATE = 0x06,
    ISCSI_REJECT_TASK_IN_PROGRESS = 0x07,
    ISCSI_REJECT_INVALID_FIELD = 0x09,
};

/* Bits of header byte 1 */
#define ISCSI_FINAL 0x80
#define ISCSI_CONTINUE 0x40 /* text and login */
#define ISCSI_READ 0x40
#define ISCSI_WRITE 0x20
#define ISCSI_TRANSIT 0x80
#define ISCSI_RESIDUAL_OVERFLOW 0x04
#define ISCSI_RESIDUAL_UNDERFLOW 0x02
#define ISCSI_DATA_IN_STATUS 0x01

/* What an initiator sent; the raw header is kept beside it. */
struct iscsi_pdu {
    uint8_t opcode;
    uint8_t flags; /* byte 1 */
    bool immediate;
    uint16_t ahs_size;
    uint32_t data_size; /* without padding */
    uint32_t task_tag;
    uint32_t transfer_tag; /* byte 20; NOP-Out, Text and Data-Out only */
    uint32_t command_sn;
    uint32_t expected_stat_sn;
    const uint8_t *bhs;
};

/* 0; -EPROTO: no such request; -EMSGSIZE: the data segment exceeds data_max. Nothing past the 48 bytes is read. */
int iscsi_pdu_decode(const uint8_t bhs[static ISCSI_BHS_SIZE], uint32_t data_max, struct iscsi_pdu *ret);
/* An empty header of this kind. */
void iscsi_pdu_begin(uint8_t bhs[static ISCSI_BHS_SIZE], enum iscsi_opcode opcode, uint8_t flags, uint32_t task_tag);

static inline uint32_t iscsi_padding(uint32_t size) { return -size & 3; }

/* CRC32C as it goes over the wire. Start with iscsi_digest_begin, add pieces, then end. */
static inline uint32_t iscsi_digest_begin(void) { return UINT32_C(0xffffffff); }
uint32_t iscsi_digest_add(uint32_t digest, const void *data, size_t size);
void iscsi_digest_end(uint32_t digest, uint8_t ret[static ISCSI_DIGEST_SIZE]);
bool iscsi_digest_matches(uint32_t digest, const uint8_t received[static ISCSI_DIGEST_SIZE]);
