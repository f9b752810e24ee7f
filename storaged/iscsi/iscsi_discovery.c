/* Text requests: SendTargets, which tells the volumes that would admit this initiator at the portals meant for it, and
 * the few keys that may be said again. */
#include "storaged/iscsi/iscsi_discovery.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/bytes.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define ANSWER_MAX 131072u
#define CONTINUATION_TAG 1u /* the target transfer tag of an answer that goes on */
#define MORE_TAG 2u         /* of the empty answer to a question that goes on */

static bool is_visible(struct iscsi_session *session, struct lun *lun)
{
    struct lun_admission admission = {0};
    if (lun->closing)
        return false;
    int r = lun->admit(lun, session->initiator, &admission);
    /* An initiator's name is no proof: what needs a secret is shown to those who know it. */
    bool proved = !admission.chap || iscsi_credential_is(&session->credential, admission.user, admission.secret);
    explicit_bzero(&admission, sizeof(admission));
    return (r == 0 || r == -EAGAIN) && proved;
}

static void put_address(struct iscsi_session *session, struct iscsi_text_writer *answer, const struct sockaddr_storage *address)
{
    char text[ISCSI_ADDRESS_SIZE];
    iscsi_text_put(answer, "TargetAddress", "%s,%u", iscsi_address_format(address, text), session->target->options.port_group);
}

/* The address the initiator reached us by, and the other portals that are as public: never a loopback address to a
 * distant initiator, nor the reverse. A wildcard portal stands only for the address that was used. */
static void put_target(struct iscsi_session *session, struct iscsi_text_writer *answer, const struct lun *lun)
{
    struct iscsi_target *target = session->target;
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof(own);
    char here[ISCSI_ADDRESS_SIZE], other[ISCSI_ADDRESS_SIZE];

    if (session->connection->state == ISCSI_CONNECTION_CLOSED || getsockname(session->connection->fd, (struct sockaddr *)&own, &size) < 0)
        return;
    iscsi_text_put(answer, "TargetName", LUN_IQN_PREFIX "%s", lun->name);
    put_address(session, answer, &own);
    iscsi_address_format(&own, here);
    for (unsigned i = 0; i < target->portal_count; i++) {
        const struct sockaddr_storage *address = &target->portals[i].address;
        if (iscsi_address_is_any(address) || iscsi_address_is_loopback(address) != iscsi_address_is_loopback(&own))
            continue;
        if (strcmp(iscsi_address_format(address, other), here) != 0)
            put_address(session, answer, address);
    }
}

/* As many as fit; session->discovery_next says where the next part goes on. Returns whether it was all. */
static bool put_targets(struct iscsi_session *session, struct iscsi_text_writer *answer)
{
    struct lun *lun;
    for (; (lun = lun_table_at(session->target->table, session->discovery_next)); session->discovery_next++) {
        struct iscsi_text_writer before = *answer;
        if (!is_visible(session, lun))
            continue;
        put_target(session, answer, lun);
        if (answer->full) {
            *answer = before; /* not half of it */
            return before.used == 0; /* one that never fits must not be tried forever */
        }
    }
    return true;
}

static bool answer_send_targets(struct iscsi_session *session, struct iscsi_text_writer *answer, const char *value)
{
    size_t prefix = strlen(LUN_IQN_PREFIX);
    if (strcmp(value, "All") == 0 && !session->lun) {
        session->discovery_next = 0;
        return put_targets(session, answer);
    }
    if (session->lun && (strcmp(value, "") == 0 || strcmp(value + (strncmp(value, LUN_IQN_PREFIX, prefix) ? 0 : prefix), session->lun->name) == 0)) {
        put_target(session, answer, session->lun);
        return true;
    }
    struct lun *lun = strncmp(value, LUN_IQN_PREFIX, prefix) == 0 ? lun_table_find(session->target->table, value + prefix) : NULL;
    if (lun && !session->lun && is_visible(session, lun))
        put_target(session, answer, lun);
    else if (session->lun)
        iscsi_text_put(answer, "SendTargets", "Reject");
    return true;
}

static int answer_keys(struct iscsi_session *session, struct iscsi_text_writer *answer, bool *ret_complete)
{
    struct iscsi_connection *connection = session->connection;
    struct iscsi_text text;
    *ret_complete = true;
    if (iscsi_text_parse(connection->text_in, connection->text_in_size, &text) < 0)
        return -EPROTO;
    const char *value = iscsi_text_take(&text, "SendTargets");
    if (value)
        *ret_complete = answer_send_targets(session, answer, value);
    connection->text_in_size = 0;
    return iscsi_parameters_renegotiate(&connection->parameters, &text, answer);
}

int iscsi_discovery_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_connection *connection = session->connection;
    /* One exchange at a time. A new one (no transfer tag) forgets what was not ended: RFC 7143 §11.10.4. */
    if (connection->text_send.queued || connection->text_task)
        return -EPROTO;
    if (pdu->transfer_tag == ISCSI_TAG_NONE)
        connection->text_in_size = 0;
    else if (pdu->transfer_tag != (connection->text_in_size ? MORE_TAG : CONTINUATION_TAG))
        return -EPROTO;
    if (pdu->data_size > ISCSI_TEXT_MAX - connection->text_in_size ||
        (pdu->transfer_tag == CONTINUATION_TAG && pdu->data_size))
        return -EPROTO;
    connection->sink = (uint8_t *)connection->text_in + connection->text_in_size;
    connection->sink_size = pdu->data_size;
    return 0;
}

/* As much as the initiator takes at once: libiscsi does not ask for the rest of an answer. */
static void give_room(struct iscsi_task *task, struct iscsi_text_writer *answer)
{
    uint32_t most = task->session->connection->parameters.send_segment_max;
    if (most > answer->size && iscsi_task_get_memory(task, most < ANSWER_MAX ? most : ANSWER_MAX)) {
        answer->data = task->memory;
        answer->size = task->memory_size;
    } else if (most < answer->size) {
        answer->size = most;
    }
}

static void send_answer(struct iscsi_task *task, uint8_t flags, uint32_t transfer_tag, const struct iscsi_text_writer *answer)
{
    iscsi_pdu_begin(task->send.header, ISCSI_TEXT_RESPONSE, flags, task->task_tag);
    put_be32(task->send.header + 20, transfer_tag);
    task->send.data = (uint8_t *)answer->data;
    task->send.data_size = (uint32_t)answer->used;
    task->session->connection->text_task = task; /* text_out is in use until it is sent */
    iscsi_task_send_last(task);
}

int iscsi_discovery_end(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    struct iscsi_connection *connection = session->connection;
    struct iscsi_task *task = connection->task;
    struct iscsi_text_writer answer = {.data = connection->text_out, .size = ISCSI_LOGIN_SEGMENT_MAX};
    bool complete = true;
    int r = 0;

    connection->text_in_size += pdu->data_size;
    if (pdu->flags & ISCSI_CONTINUE) {
        if (connection->text_in_size == 0 || pdu->flags & ISCSI_FINAL)
            return -EPROTO;
        send_answer(task, 0, MORE_TAG, &answer);
        return 0;
    }
    give_room(task, &answer);
    if (pdu->transfer_tag == CONTINUATION_TAG)
        complete = put_targets(session, &answer);
    else
        r = answer_keys(session, &answer, &complete);
    if (r < 0)
        return r;
    send_answer(task, complete ? ISCSI_FINAL : ISCSI_CONTINUE, complete ? ISCSI_TAG_NONE : CONTINUATION_TAG, &answer);
    return 0;
}
