/* PERSISTENT RESERVE IN: who is registered, and who holds what (SPC-4 §6.15). */
#include <stdio.h>
#include <string.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_unit.h"

#define PROTOCOL_ISCSI 0x5
#define FORMAT_WITH_ISID 0x40
/* A full status descriptor: 24 bytes and a TransportID of 4 and "NAME,i,0xISID", NUL, to a multiple of four. */
#define FULL_STATUS_MAX (24u + 4u + 224u + 20u)
#define FULL_STATUS_BUFFER (8u + RESERVATION_REGISTRANTS_MAX * FULL_STATUS_MAX)

/* SPC-2 §5.5.1: while RESERVE holds the unit, by whomever, persistent reservations are out of reach. */
static bool is_reserved(struct scsi_command *command)
{
    if (!command->nexus->unit->reserved)
        return false;
    command->status = SCSI_STATUS_RESERVATION_CONFLICT;
    return true;
}

bool scsi_execute_read_keys(struct scsi_command *command)
{
    const struct reservation_state *state = &command->nexus->unit->reservations;
    uint8_t *data = command->data;
    if (is_reserved(command))
        return true;
    put_be32(data, state->generation);
    put_be32(data + 4, 8 * state->count);
    for (unsigned i = 0; i < state->count; i++)
        put_be64(data + 8 + 8 * i, state->registrants[i].key);
    return scsi_reply(command, 8 + 8 * state->count);
}

/* Of a reservation of all registrants the key is 0. */
bool scsi_execute_read_reservation(struct scsi_command *command)
{
    const struct reservation_state *state = &command->nexus->unit->reservations;
    uint8_t *data = command->data;
    if (is_reserved(command))
        return true;
    put_be32(data, state->generation);
    if (state->type == RESERVATION_NONE)
        return scsi_reply(command, 8);
    put_be32(data + 4, 16);
    put_be64(data + 8, state->holder < 0 ? 0 : state->registrants[state->holder].key);
    data[21] = state->type; /* SCOPE 0: the logical unit */
    return scsi_reply(command, 24);
}

bool scsi_execute_report_capabilities(struct scsi_command *command)
{
    uint8_t *data = command->data;
    if (is_reserved(command))
        return true;
    put_be16(data, 8);
    data[2] = 0x10 | 0x04 | 0x01; /* CRH, ATP_C, PTPL_C */
    data[3] = 0x80 | 0x10 | command->nexus->unit->reservations.aptpl; /* TMV; ALLOW COMMANDS 1; PTPL_A */
    data[4] = 0x80 | 0x40 | 0x20 | 0x08 | 0x02; /* WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX */
    data[5] = 0x01;                             /* EX_AC_AR */
    return scsi_reply(command, 8);
}

/* TransportID of an iSCSI initiator port, SPC-4 §7.6.4.6. Returns its size. */
static size_t put_transport_id(uint8_t *at, const struct reservation_nexus *nexus)
{
    const uint8_t *isid = nexus->isid;
    at[0] = FORMAT_WITH_ISID | PROTOCOL_ISCSI;
    int length = snprintf((char *)at + 4, 224 + 20, "%s,i,0x%02x%02x%02x%02x%02x%02x", nexus->initiator, isid[0],
                          isid[1], isid[2], isid[3], isid[4], isid[5]);
    size_t size = ((size_t)length + 4) & ~(size_t)3; /* the NUL belongs to it */
    if (size < 20)
        size = 20;
    put_be16(at + 2, (uint16_t)size);
    return 4 + size;
}

static size_t put_full_status(uint8_t *at, const struct reservation_state *state, unsigned index)
{
    const struct reservation_registrant *registrant = &state->registrants[index];
    put_be64(at, registrant->key);
    at[12] = registrant->all_ports ? 0x02 : 0; /* ALL_TG_PT */
    if (reservation_holds(state, (int)index)) {
        at[12] |= 0x01; /* R_HOLDER */
        at[13] = state->type;
    }
    put_be16(at + 18, registrant->nexus.port_group); /* relative target port identifier */
    size_t size = put_transport_id(at + 24, &registrant->nexus);
    put_be32(at + 20, (uint32_t)size);
    return 24 + size;
}

/* The one reply that may exceed SCSI_REPLY_MAX. */
bool scsi_plan_read_full_status(struct scsi_command *command)
{
    uint32_t room = be16_at(command->cdb + 7);
    command->direction = SCSI_DATA_IN;
    command->transfer_size = room < FULL_STATUS_BUFFER ? room : FULL_STATUS_BUFFER;
    command->buffer_size = FULL_STATUS_BUFFER;
    return true;
}

bool scsi_execute_read_full_status(struct scsi_command *command)
{
    const struct reservation_state *state = &command->nexus->unit->reservations;
    uint8_t *data = command->data, *at = data + 8;
    if (is_reserved(command))
        return true;
    put_be32(data, state->generation);
    for (unsigned i = 0; i < state->count; i++)
        at += put_full_status(at, state, i);
    put_be32(data + 4, (uint32_t)(at - data - 8));
    return scsi_reply(command, (size_t)(at - data));
}
