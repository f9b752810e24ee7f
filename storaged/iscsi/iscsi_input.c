/* Assembles PDUs: header, additional header, digest, data straight into its buffer, padding, digest. */
#include "storaged/iscsi/iscsi_input.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "common/check.h"
#include "storaged/iscsi/iscsi_async.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define READS_PER_TURN 8
#define DIRECT_MIN 4096u /* less than this goes through the input buffer */

static bool has_digests(const struct iscsi_connection *connection)
{
    return connection->state == ISCSI_CONNECTION_FULL;
}

static void enter(struct iscsi_connection *connection, enum iscsi_receive_stage stage, size_t size)
{
    connection->stage = stage;
    connection->stage_size = size;
    connection->stage_got = 0;
}

/* The first 48 bytes are here: how much more header follows? */
static int header_read(struct iscsi_connection *connection)
{
    int r = iscsi_pdu_decode(connection->header, iscsi_receive_data_max(connection), &connection->pdu);
    if (r < 0)
        return r;
    size_t rest = connection->pdu.ahs_size;
    if (has_digests(connection) && connection->parameters.header_digest)
        rest += ISCSI_DIGEST_SIZE;
    enter(connection, ISCSI_RECEIVE_REST, rest);
    return 0;
}

static int rest_read(struct iscsi_connection *connection)
{
    size_t covered = ISCSI_BHS_SIZE + connection->pdu.ahs_size;
    if (has_digests(connection) && connection->parameters.header_digest &&
        !iscsi_digest_matches(iscsi_digest_add(iscsi_digest_begin(), connection->header, covered), connection->header + covered))
        return -EBADMSG; /* the length cannot be believed either: RFC 7143 §7.7 */
    enter(connection, ISCSI_RECEIVE_BEGIN, 0);
    return 0;
}

static int begin(struct iscsi_connection *connection)
{
    connection->sink = NULL;
    connection->sink_size = 0;
    int r = iscsi_receive_begin(connection, &connection->pdu);
    if (r < 0)
        return r;
    connection->data_got = 0;
    connection->data_digest = iscsi_digest_begin();
    enter(connection, ISCSI_RECEIVE_DATA, connection->pdu.data_size);
    return 0;
}

static int data_read(struct iscsi_connection *connection)
{
    size_t trailer = iscsi_padding(connection->pdu.data_size);
    if (has_digests(connection) && connection->parameters.data_digest && connection->pdu.data_size)
        trailer += ISCSI_DIGEST_SIZE;
    enter(connection, ISCSI_RECEIVE_TRAILER, trailer);
    return 0;
}

static int trailer_read(struct iscsi_connection *connection)
{
    size_t padding = iscsi_padding(connection->pdu.data_size);
    if (connection->stage_size > padding &&
        !iscsi_digest_matches(iscsi_digest_add(connection->data_digest, connection->trailer, padding), connection->trailer + padding))
        return -EILSEQ;
    int r = iscsi_receive_end(connection, &connection->pdu);
    connection->task = NULL;
    enter(connection, ISCSI_RECEIVE_HEADER, ISCSI_BHS_SIZE);
    return r;
}

/* Data beyond the sink is thrown away, but still counted and digested. */
static void store_data(struct iscsi_connection *connection, const uint8_t *data, uint32_t size)
{
    if (connection->data_got < connection->sink_size) {
        uint32_t room = connection->sink_size - connection->data_got;
        uint8_t *to = connection->sink + connection->data_got;
        if (to != data)
            memcpy(to, data, size < room ? size : room);
    }
    if (has_digests(connection) && connection->parameters.data_digest)
        connection->data_digest = iscsi_digest_add(connection->data_digest, data, size);
    connection->data_got += size;
    connection->stage_got += size;
}

static uint8_t *stage_memory(struct iscsi_connection *connection)
{
    switch (connection->stage) {
    case ISCSI_RECEIVE_HEADER: return connection->header;
    case ISCSI_RECEIVE_REST: return connection->header + ISCSI_BHS_SIZE;
    case ISCSI_RECEIVE_TRAILER: return connection->trailer;
    default: return NULL;
    }
}

static int stage_done(struct iscsi_connection *connection)
{
    switch (connection->stage) {
    case ISCSI_RECEIVE_HEADER: return header_read(connection);
    case ISCSI_RECEIVE_REST: return rest_read(connection);
    case ISCSI_RECEIVE_BEGIN: return begin(connection);
    case ISCSI_RECEIVE_DATA: return data_read(connection);
    case ISCSI_RECEIVE_TRAILER: return trailer_read(connection);
    }
    return -EPROTO;
}

/* Uses up the input buffer, as far as nothing has to be waited for. */
static int consume(struct iscsi_connection *connection)
{
    while (!connection->paused && connection->state != ISCSI_CONNECTION_CLOSED) {
        size_t here = connection->input_end - connection->input_start, wanted = connection->stage_size - connection->stage_got;
        size_t size = here < wanted ? here : wanted;
        const uint8_t *from = connection->input + connection->input_start;
        if (size && connection->stage == ISCSI_RECEIVE_DATA) {
            store_data(connection, from, (uint32_t)size);
        } else if (size) {
            memcpy(stage_memory(connection) + connection->stage_got, from, size);
            connection->stage_got += size;
        }
        connection->input_start += size;
        if (size < wanted)
            return 0;
        int r = stage_done(connection);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Large data goes from the socket into its place; what comes behind it goes into the input buffer by the same call. Less
 * than there is room for: the socket is empty, and asking it again would be a call for nothing. */
static ssize_t read_socket(struct iscsi_connection *connection, bool *ret_emptied)
{
    struct iovec vectors[2];
    int count = 0;
    size_t direct = 0;
    check(connection->input_start == connection->input_end);
    connection->input_start = connection->input_end = 0;
    if (connection->stage == ISCSI_RECEIVE_DATA && connection->sink_size >= connection->data_got + DIRECT_MIN) {
        direct = connection->sink_size - connection->data_got;
        size_t wanted = connection->stage_size - connection->stage_got;
        direct = direct < wanted ? direct : wanted;
        vectors[count++] = (struct iovec){connection->sink + connection->data_got, direct};
    }
    vectors[count++] = (struct iovec){connection->input, ISCSI_RECEIVE_BUFFER};
    ssize_t size = readv(connection->fd, vectors, count);
    if (size <= 0)
        return size;
    size_t stored = (size_t)size < direct ? (size_t)size : direct;
    if (stored)
        store_data(connection, connection->sink + connection->data_got, (uint32_t)stored);
    connection->input_end = (size_t)size - stored;
    *ret_emptied = (size_t)size < direct + ISCSI_RECEIVE_BUFFER;
    return size;
}

static void rejected(struct iscsi_send *send)
{
    iscsi_connection_close(list_entry(send, struct iscsi_connection, reject), "a data digest of what it sent is wrong");
}

/* RFC 7143 §7.8: the PDU is rejected. At error recovery level 0 what was lost comes back only with a new session, and an
 * aborted command would be an error to the guest (iscsi.md): so the connection ends with the answer. */
static bool reject_digest(struct iscsi_connection *connection)
{
    if (connection->state != ISCSI_CONNECTION_FULL || connection->reject.queued)
        return false;
    connection->reject.sent = rejected;
    iscsi_session_reject(connection->session, &connection->pdu, ISCSI_REJECT_DATA_DIGEST);
    iscsi_async_close_soon(connection);
    connection->target->stats.protocol_errors++;
    return true;
}

static void fail(struct iscsi_connection *connection, int error)
{
    if (error == -EILSEQ && reject_digest(connection))
        return;
    if (connection->state != ISCSI_CONNECTION_CLOSED)
        connection->target->stats.protocol_errors++;
    iscsi_connection_close(connection, error == -EBADMSG    ? "a digest of what it sent is wrong"
                                       : error == -EMSGSIZE ? "it sent more data than it may"
                                                            : "it broke the protocol");
}

void iscsi_input_run(struct iscsi_connection *connection, bool readable)
{
    if (connection->processing)
        return;
    connection->processing = true;
    int r = consume(connection);
    bool emptied = !readable;
    for (int reads = 0; r == 0 && !emptied && reads < READS_PER_TURN; reads++) {
        if (connection->paused || connection->state == ISCSI_CONNECTION_CLOSED)
            break;
        ssize_t size = read_socket(connection, &emptied);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (size <= 0) {
            iscsi_connection_close(connection, size ? strerror(errno) : "the initiator closed the connection");
            break;
        }
        connection->heard = true;
        connection->moved_ms = ring_now_ms(connection->target->ring);
        r = consume(connection);
    }
    connection->processing = false;
    if (r == -EAGAIN)
        connection->paused = connection->deferred = true;
    else if (r < 0)
        fail(connection, r);
}
