/* Where each received PDU goes: login before, the session's request kinds in full feature phase. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "storaged/iscsi/iscsi_abort.h"
#include "storaged/iscsi/iscsi_command.h"
#include "storaged/iscsi/iscsi_connection.h"
#include "storaged/iscsi/iscsi_discovery.h"
#include "storaged/iscsi/iscsi_login.h"
#include "storaged/iscsi/iscsi_nop.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

struct request_kind {
    int (*begin)(struct iscsi_session *session, const struct iscsi_pdu *pdu);
    int (*end)(struct iscsi_session *session, const struct iscsi_pdu *pdu);
    bool numbered;  /* takes part in the command window */
    bool discovery; /* allowed in a discovery session (RFC 7143 §4.3) */
};

static const struct request_kind kinds[] = {
    [ISCSI_NOP_OUT] = {iscsi_nop_begin, iscsi_nop_end, true, true},
    [ISCSI_SCSI_COMMAND] = {iscsi_command_begin, iscsi_command_end, true, false},
    [ISCSI_TASK_REQUEST] = {iscsi_abort_begin, iscsi_abort_end, true, false},
    [ISCSI_TEXT_REQUEST] = {iscsi_discovery_begin, iscsi_discovery_end, true, true},
    [ISCSI_DATA_OUT] = {iscsi_data_out_begin, iscsi_data_out_end, false, false},
    [ISCSI_LOGOUT_REQUEST] = {iscsi_logout_begin, iscsi_logout_end, true, true},
};

static const struct request_kind *kind_of(const struct iscsi_pdu *pdu)
{
    return pdu->opcode < sizeof(kinds) / sizeof(kinds[0]) && kinds[pdu->opcode].begin ? &kinds[pdu->opcode] : NULL;
}

static int begin_request(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    const struct request_kind *kind = kind_of(pdu);
    struct iscsi_connection *connection = session->connection;
    if (!kind || (!session->lun && !kind->discovery))
        return iscsi_session_reject(session, pdu,
                                    pdu->opcode == ISCSI_SNACK ? ISCSI_REJECT_SNACK : ISCSI_REJECT_NOT_SUPPORTED);
    if (!kind->numbered)
        return kind->begin(session, pdu);
    int r = iscsi_session_accept_number(session, pdu);
    if (r <= 0)
        return r;
    if (pdu->task_tag != ISCSI_TAG_NONE && iscsi_task_find(session, pdu->task_tag))
        return pdu->opcode == ISCSI_SCSI_COMMAND ? iscsi_session_reject(session, pdu, ISCSI_REJECT_TASK_IN_PROGRESS) : -EPROTO;
    connection->task = iscsi_task_new(session, pdu, !pdu->immediate);
    if (!connection->task)
        return iscsi_session_reject(session, pdu, ISCSI_REJECT_TOO_MANY_IMMEDIATE);
    return kind->begin(session, pdu);
}

int iscsi_receive_begin(struct iscsi_connection *connection, const struct iscsi_pdu *pdu)
{
    struct iscsi_session *session = connection->session;
    if (!session)
        return iscsi_login_begin(connection, pdu);
    if (pdu->opcode == ISCSI_LOGIN_REQUEST)
        return -EPROTO;
    if (!connection->deferred)
        return begin_request(session, pdu);
    /* Called again after a pause; the task may have been aborted meanwhile: then its data is thrown away. */
    connection->deferred = false;
    return connection->task ? kind_of(pdu)->begin(session, pdu) : 0;
}

int iscsi_receive_end(struct iscsi_connection *connection, const struct iscsi_pdu *pdu)
{
    if (!connection->session)
        return iscsi_login_end(connection, pdu);
    if (!connection->task) /* ignored, rejected, or aborted meanwhile */
        return 0;
    return kind_of(pdu)->end(connection->session, pdu);
}

uint32_t iscsi_receive_data_max(const struct iscsi_connection *connection)
{
    return connection->session ? ISCSI_SEGMENT_MAX : ISCSI_LOGIN_SEGMENT_MAX;
}

void iscsi_receive_lost(struct iscsi_connection *connection)
{
    iscsi_login_free(connection);
    if (connection->session)
        iscsi_session_lose(connection->session);
    connection->session = NULL;
}
