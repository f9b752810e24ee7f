/* The login of a connection: its requests, their stages, negotiation, and the opening of its session. */
#include "storaged/iscsi/iscsi_login.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "common/log.h"
#include "storaged/iscsi/iscsi_login_internal.h"
#include "storaged/iscsi/iscsi_nop.h"
#include "storaged/iscsi/iscsi_strangers.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define RETRY_MS 20u /* how often a login that waits for another nexus to drain looks again */
#define PDUS_MAX 16u /* a stranger's login that takes more is no login */

static void close_after_refusal(struct iscsi_send *send)
{
    struct iscsi_connection *connection = list_entry(send, struct iscsi_connection, text_send);
    iscsi_connection_close(connection, "the login was refused");
}

static void send_nothing_more(struct iscsi_send *send)
{
}

static void respond(struct iscsi_login *login, enum iscsi_login_status status, uint8_t flags, uint16_t tsih)
{
    struct iscsi_connection *connection = login->connection;
    uint8_t *header = connection->text_send.header;
    iscsi_pdu_begin(header, ISCSI_LOGIN_RESPONSE, flags, login->task_tag);
    memcpy(header + 8, login->name.isid, ISCSI_ISID_SIZE);
    put_be16(header + 14, tsih);
    put_be32(header + 24, connection->stat_sn++);
    put_be32(header + 28, login->command_sn);
    put_be32(header + 32, login->command_sn + ISCSI_WINDOW - 1);
    put_be16(header + 36, (uint16_t)status);
    connection->text_send.data = (uint8_t *)connection->text_out;
    connection->text_send.data_size = status == ISCSI_LOGIN_SUCCESS ? (uint32_t)login->answer.used : 0;
    connection->text_send.sent = status == ISCSI_LOGIN_SUCCESS ? send_nothing_more : close_after_refusal;
    iscsi_connection_send(connection, &connection->text_send);
}

/* Says no, tells the operator why, and closes once the answer is out (or when the login's time is over). */
static int refuse(struct iscsi_login *login, enum iscsi_login_status status, const char *reason)
{
    struct iscsi_connection *connection = login->connection;
    if (iscsi_strangers_may_log(connection->target))
        log_info("iscsi: login of %s (%s) at '%s' refused: %s", login->initiator[0] ? login->initiator : "a stranger",
                 connection->peer, login->discovery ? "discovery" : login->volume, reason);
    connection->target->stats.logins_refused++;
    connection->paused = true; /* nothing more is read */
    respond(login, status, 0, login->name.tsih);
    return 0;
}

/* --- the end: opening the session --------------------------------------------------------------------------------------- */

static void finish(struct iscsi_login *login);

static void wait_to_finish(struct iscsi_login *login)
{
    login->connection->paused = true;
    ring_timer_start(login->connection->target->ring, &login->retry, RETRY_MS);
}

static void retry_expired(struct ring_timer *timer)
{
    finish(list_entry(timer, struct iscsi_login, retry));
}

/* Asked again, since the volume's owner may have changed since the first request. 0, -EAGAIN, or refused (-EACCES). */
static int readmit(struct iscsi_login *login, struct lun *lun)
{
    struct lun_admission admission = {.reason = "it may not use this volume any more"};
    int r = lun->closing ? -EACCES : lun->admit(lun, login->initiator, &admission);
    const char *reason = admission.reason;
    bool chap = admission.chap;
    explicit_bzero(&admission, sizeof(admission));
    if (r == 0 && chap && !login->chap_required)
        r = -EACCES; /* a secret was set meanwhile */
    if (r < 0 && r != -EAGAIN) {
        refuse(login, ISCSI_LOGIN_FORBIDDEN, reason);
        return -EACCES;
    }
    return r;
}

static bool has_room(const struct iscsi_login *login)
{
    struct iscsi_target *target = login->connection->target;
    if (login->discovery) { /* anybody may discover: that must not take sessions from those who work */
        if (target->discovery_count >= ISCSI_DISCOVERIES_MAX)
            iscsi_session_close_oldest_discovery(target);
        return target->session_count < ISCSI_SESSIONS_MAX + 2 * ISCSI_DISCOVERIES_MAX;
    }
    return target->session_count - target->discovery_count < ISCSI_SESSIONS_MAX;
}

static void open_session(struct iscsi_login *login, struct lun *lun)
{
    struct iscsi_connection *connection = login->connection;
    struct iscsi_target *target = connection->target;
    struct iscsi_session *session;

    if (!has_room(login) ||
        iscsi_session_new(connection, lun, login->initiator, &login->name, login->command_sn, &session) < 0) {
        refuse(login, ISCSI_LOGIN_NO_RESOURCES, "there are too many sessions");
        return;
    }
    session->credential = login->credential;
    respond(login, ISCSI_LOGIN_SUCCESS, login->flags, session->name.tsih); /* before digests are in force */
    iscsi_strangers_remove(connection);
    connection->state = ISCSI_CONNECTION_FULL;
    connection->session = session;
    target->stats.logins++;
    if (lun)
        log_info("iscsi: %s (%s) logged in at volume '%s'", login->initiator, connection->peer, lun->name);
    iscsi_login_free(connection);
    iscsi_nop_start_pinging(connection);
    iscsi_connection_resume(connection);
}

/* RFC 7143 §6.3.4: with a TSIH the initiator takes up its own session's only connection again, no other. */
static bool reinstates_rightly(const struct iscsi_login *login, const struct iscsi_session *old)
{
    return login->name.tsih == 0 ||
           (old && old->name.tsih == login->name.tsih && old->name.connection_id == login->name.connection_id);
}

static void close_old(struct iscsi_login *login, struct iscsi_session *old)
{
    if (!login->reinstates && !reinstates_rightly(login, old)) {
        refuse(login, ISCSI_LOGIN_TOO_MANY_CONNECTIONS, "one connection is all a session has here");
        return;
    }
    login->reinstates = true;
    if (old->connection)
        iscsi_connection_close(old->connection, "the same initiator logs in anew");
    wait_to_finish(login);
}

/* A lost nexus is aborted and drained before the same nexus is accepted anew (RFC 7143 §6.3.5; iscsi.md, ghost writes). */
static void finish(struct iscsi_login *login)
{
    struct iscsi_connection *connection = login->connection;
    struct lun *lun = login->discovery ? NULL : iscsi_login_find_lun(login);
    if (!login->discovery && !lun) {
        refuse(login, ISCSI_LOGIN_NOT_FOUND, "the target is gone");
        return;
    }
    struct iscsi_session *old = lun ? iscsi_session_find(connection->target, lun, login->initiator, login->name.isid) : NULL;
    if (old) {
        close_old(login, old);
        return;
    }
    if (login->name.tsih && !login->reinstates) {
        refuse(login, ISCSI_LOGIN_NO_SESSION, "it names a session that it does not have");
        return;
    }
    int r = lun ? readmit(login, lun) : 0;
    if (r == -EAGAIN)
        wait_to_finish(login);
    else if (r == 0)
        open_session(login, lun);
}

/* --- requests ------------------------------------------------------------------------------------------------------------- */

static enum iscsi_login_status check_header(struct iscsi_login *login, const struct iscsi_pdu *pdu, const char **ret_reason)
{
    unsigned current = pdu->flags >> 2 & 3, next = pdu->flags & 3;
    *ret_reason = "it speaks another version of iSCSI";
    if (pdu->bhs[3] != 0)
        return ISCSI_LOGIN_VERSION;
    *ret_reason = "its stages are out of order";
    if (current > ISCSI_STAGE_OPERATIONAL || (login->pdus > 1 && current != login->stage))
        return ISCSI_LOGIN_INVALID;
    if (pdu->flags & ISCSI_TRANSIT && (pdu->flags & ISCSI_CONTINUE || next <= current || next == 2))
        return ISCSI_LOGIN_INVALID;
    *ret_reason = "it changes its ISID, TSIH or connection id within the login";
    if (memcmp(pdu->bhs + 8, login->name.isid, ISCSI_ISID_SIZE) != 0 || be16_at(pdu->bhs + 14) != login->name.tsih ||
        be16_at(pdu->bhs + 20) != login->name.connection_id)
        return ISCSI_LOGIN_INVALID;
    return ISCSI_LOGIN_SUCCESS;
}

static void take_header(struct iscsi_login *login, const struct iscsi_pdu *pdu)
{
    login->flags = pdu->flags & (ISCSI_TRANSIT | 0x0f);
    login->task_tag = pdu->task_tag;
    if (login->pdus > 1)
        return;
    login->stage = pdu->flags >> 2 & 3;
    login->command_sn = pdu->command_sn;
    login->name.tsih = be16_at(pdu->bhs + 14);
    memcpy(login->name.isid, pdu->bhs + 8, ISCSI_ISID_SIZE);
    login->name.connection_id = be16_at(pdu->bhs + 20);
}

int iscsi_login_begin(struct iscsi_connection *connection, const struct iscsi_pdu *pdu)
{
    struct iscsi_login *login = connection->login;
    if (pdu->opcode != ISCSI_LOGIN_REQUEST || connection->text_send.queued || ++login->pdus > PDUS_MAX)
        return -EPROTO;
    if (pdu->data_size > ISCSI_TEXT_MAX - connection->text_in_size)
        return -EMSGSIZE;
    connection->sink = (uint8_t *)connection->text_in + connection->text_in_size;
    connection->sink_size = pdu->data_size;
    return 0;
}

static bool lacks_proof(const struct iscsi_login *login)
{
    return (login->chap_required || login->chap_chosen) && !login->authenticated;
}

static enum iscsi_login_status answer_keys(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    enum iscsi_login_status status = login->identified ? ISCSI_LOGIN_SUCCESS : iscsi_login_identify(login, text, ret_reason);
    if (status == ISCSI_LOGIN_SUCCESS && login->stage == ISCSI_STAGE_SECURITY)
        status = iscsi_login_authenticate(login, text, ret_reason);
    if (status != ISCSI_LOGIN_SUCCESS)
        return status;
    /* RFC 7143 §6.3.3: skipping the security stage offers no authentication. */
    *ret_reason = "CHAP is required";
    if (login->stage == ISCSI_STAGE_OPERATIONAL && lacks_proof(login))
        return ISCSI_LOGIN_AUTHENTICATION;
    *ret_reason = "it sent a key that cannot be negotiated";
    if (iscsi_parameters_negotiate(&login->connection->parameters, text, &login->answer) < 0)
        return ISCSI_LOGIN_INITIATOR_ERROR;
    if (login->stage == ISCSI_STAGE_OPERATIONAL)
        iscsi_parameters_declare(&login->connection->parameters, &login->answer);
    *ret_reason = "the answer does not fit";
    return login->answer.full ? ISCSI_LOGIN_INITIATOR_ERROR : ISCSI_LOGIN_SUCCESS;
}

static void move_on(struct iscsi_login *login)
{
    bool transit = login->flags & ISCSI_TRANSIT;
    enum iscsi_login_stage next = login->flags & 3;
    if (transit && login->stage == ISCSI_STAGE_SECURITY && lacks_proof(login))
        transit = false; /* not before it has proved who it is */
    if (!transit)
        login->flags = (uint8_t)(login->stage << 2);
    if (transit && next == ISCSI_STAGE_FULL) {
        finish(login);
        return;
    }
    if (transit)
        login->stage = next;
    respond(login, ISCSI_LOGIN_SUCCESS, login->flags, 0);
}

int iscsi_login_end(struct iscsi_connection *connection, const struct iscsi_pdu *pdu)
{
    struct iscsi_login *login = connection->login;
    struct iscsi_text text;
    const char *reason = "";

    take_header(login, pdu);
    login->answer = (struct iscsi_text_writer){.data = connection->text_out, .size = ISCSI_LOGIN_SEGMENT_MAX};
    enum iscsi_login_status status = check_header(login, pdu, &reason);
    if (status != ISCSI_LOGIN_SUCCESS)
        return refuse(login, status, reason);
    connection->text_in_size += pdu->data_size;
    if (pdu->flags & ISCSI_CONTINUE) {
        login->flags = (uint8_t)(login->stage << 2);
        respond(login, ISCSI_LOGIN_SUCCESS, login->flags, 0);
        return 0;
    }
    if (iscsi_text_parse(connection->text_in, connection->text_in_size, &text) < 0)
        return refuse(login, ISCSI_LOGIN_INITIATOR_ERROR, "its text is malformed");
    connection->text_in_size = 0;
    status = answer_keys(login, &text, &reason);
    if (status != ISCSI_LOGIN_SUCCESS)
        return refuse(login, status, reason);
    move_on(login);
    return 0;
}

static void deadline_expired(struct ring_timer *timer)
{
    struct iscsi_connection *connection = list_entry(timer, struct iscsi_connection, timer);
    iscsi_connection_close(connection, "the login took too long");
}

int iscsi_login_start(struct iscsi_connection *connection)
{
    struct iscsi_target *target = connection->target;
    connection->login = calloc(1, sizeof(*connection->login));
    if (!connection->login)
        return -ENOMEM;
    connection->login->connection = connection;
    connection->login->retry.expired = retry_expired;
    connection->timer.expired = deadline_expired;
    ring_timer_start(target->ring, &connection->timer, target->options.login_ms);
    return 0;
}

void iscsi_login_free(struct iscsi_connection *connection)
{
    struct iscsi_login *login = connection->login;
    if (!login)
        return;
    ring_timer_stop(&login->retry);
    iscsi_chap_wipe(&login->chap);
    free(login);
    connection->login = NULL;
}
