/* Pings in both directions, and the end of a session by Logout. */
#include "storaged/iscsi/iscsi_nop.h"

#include <errno.h>

#include "common/bytes.h"
#include "storaged/iscsi/iscsi_async.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define TICK_MS 15000u
#define SILENT_TICKS_MAX 4u /* a minute without a byte, pings unanswered: the initiator is gone */
/* RFC 7143 §11.14.1, §11.15.1 */
enum logout_reason { LOGOUT_SESSION, LOGOUT_CONNECTION, LOGOUT_FOR_RECOVERY };
enum logout_response { LOGOUT_DONE, LOGOUT_NO_CONNECTION, LOGOUT_NO_RECOVERY };

#define ECHO_MAX 4096u      /* of ping data; RFC 7143 §11.18 lets a target cut it */

int iscsi_nop_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_connection *connection = session->connection;
    struct iscsi_task *task = connection->task;
    if (pdu->task_tag == ISCSI_TAG_NONE && !pdu->immediate) /* RFC 7143 §11.18: an answer to our ping is immediate */
        return -EPROTO;
    if (pdu->task_tag == ISCSI_TAG_NONE || pdu->data_size == 0)
        return 0;
    /* Without a buffer the ping is answered without its data: a ping must not wait. */
    uint32_t size = pdu->data_size < ECHO_MAX ? pdu->data_size : ECHO_MAX;
    if (iscsi_task_get_memory(task, size)) {
        connection->sink = task->memory;
        connection->sink_size = size;
    }
    return 0;
}

int iscsi_nop_end(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_connection *connection = session->connection;
    struct iscsi_task *task = connection->task;
    uint32_t most = connection->parameters.send_segment_max;
    if (pdu->task_tag == ISCSI_TAG_NONE) {
        iscsi_task_release(task);
        return 0;
    }
    iscsi_pdu_begin(task->send.header, ISCSI_NOP_IN, ISCSI_FINAL, pdu->task_tag);
    put_be32(task->send.header + 20, ISCSI_TAG_NONE);
    task->send.data = task->memory;
    task->send.data_size = task->memory ? task->memory_size < most ? task->memory_size : most : 0;
    iscsi_task_send_last(task);
    return 0;
}

static void tick(struct ring_timer *timer)
{
    struct iscsi_connection *connection = list_entry(timer, struct iscsi_connection, timer);
    uint8_t *header = connection->ping.header;

    connection->silent_ticks = connection->heard || connection->paused ? 0 : connection->silent_ticks + 1;
    connection->heard = false;
    if (connection->silent_ticks == SILENT_TICKS_MAX) {
        iscsi_connection_close(connection, "the initiator does not answer pings");
        return;
    }
    ring_timer_start(connection->target->ring, timer, TICK_MS);
    if (connection->silent_ticks == 0 || connection->ping.queued)
        return;
    iscsi_pdu_begin(header, ISCSI_NOP_IN, ISCSI_FINAL, ISCSI_TAG_NONE);
    put_be32(header + 20, 0); /* any tag but none asks for an answer */
    iscsi_session_stamp(connection->session, header, false);
    iscsi_connection_send(connection, &connection->ping);
}

void iscsi_nop_start_pinging(struct iscsi_connection *connection)
{
    connection->timer.expired = tick;
    ring_timer_start(connection->target->ring, &connection->timer, TICK_MS);
}

int iscsi_logout_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    unsigned reason = pdu->flags & 0x7f;
    if (pdu->data_size || reason > LOGOUT_FOR_RECOVERY)
        return -EPROTO;
    return 0;
}

int iscsi_logout_end(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_task *task = session->connection->task;
    unsigned reason = pdu->flags & 0x7f;
    bool mine = reason == LOGOUT_SESSION || be16_at(pdu->bhs + 20) == session->name.connection_id;
    enum logout_response response = !mine                           ? LOGOUT_NO_CONNECTION
                                    : reason == LOGOUT_FOR_RECOVERY ? LOGOUT_NO_RECOVERY /* error recovery level 0 */
                                                                    : LOGOUT_DONE;
    session->logging_out = response == LOGOUT_DONE;
    if (session->logging_out)
        scsi_nexus_leave(&session->scsi);
    iscsi_pdu_begin(task->send.header, ISCSI_LOGOUT_RESPONSE, ISCSI_FINAL, pdu->task_tag);
    task->send.header[2] = (uint8_t)response;
    put_be16(task->send.header + 40, session->logging_out ? 0 : 2); /* Time2Wait: nothing is kept, come back at once */
    iscsi_task_send_last(task);
    if (session->logging_out)
        iscsi_async_close_soon(session->connection);
    return 0;
}
