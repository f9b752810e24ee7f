/* Asks initiators to log out, so that an orderly end is one for them, too. */
#include "storaged/iscsi/iscsi_async.h"

#include "common/bytes.h"
#include "common/log.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define PATIENCE_MS 1000u
#define EVENT_REQUEST_LOGOUT 1 /* RFC 7143 §11.9.1 */

static void patience_ended(struct ring_timer *timer)
{
    struct iscsi_connection *connection = list_entry(timer, struct iscsi_connection, timer);
    iscsi_connection_close(connection, "it was given a second to end");
}

static void sent_nothing_to_do(struct iscsi_send *send)
{
}

/* In place of the ping: there is nothing more to find out. */
static void start_patience(struct iscsi_connection *connection)
{
    connection->timer.expired = patience_ended;
    ring_timer_start(connection->target->ring, &connection->timer, PATIENCE_MS);
}

void iscsi_async_request_logout(struct iscsi_session *session, const char *why)
{
    struct iscsi_connection *connection = session->connection;
    uint8_t *header = connection->async.header;
    if (connection->state != ISCSI_CONNECTION_FULL || connection->timer.expired == patience_ended)
        return;
    log_info("iscsi: %s (%s) is asked to log out: %s", session->initiator, connection->peer, why);
    start_patience(connection);
    if (connection->async.queued)
        return;
    iscsi_pdu_begin(header, ISCSI_ASYNC_MESSAGE, ISCSI_FINAL, ISCSI_TAG_NONE);
    iscsi_session_stamp(session, header, true);
    header[36] = EVENT_REQUEST_LOGOUT;
    put_be16(header + 42, PATIENCE_MS / 1000); /* Parameter3: seconds */
    connection->async.sent = sent_nothing_to_do;
    iscsi_connection_send(connection, &connection->async);
}

void iscsi_async_close_soon(struct iscsi_connection *connection)
{
    if (connection->state == ISCSI_CONNECTION_CLOSED)
        return;
    connection->paused = true;
    start_patience(connection);
}
