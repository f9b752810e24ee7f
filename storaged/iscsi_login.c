/* The login of a connection: stages, identification, authentication, negotiation, and the opening of its session. */
#include "storaged/iscsi_login.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "common/log.h"
#include "storaged/iscsi_chap.h"
#include "storaged/iscsi_nop.h"
#include "storaged/iscsi_session.h"
#include "storaged/iscsi_target_internal.h"

#define RETRY_MS 20u /* how often a login that waits for another nexus to drain looks again */
#define PDUS_MAX 16u /* a stranger's login that takes more is no login */

enum stage { STAGE_SECURITY = 0, STAGE_OPERATIONAL = 1, STAGE_FULL = 3 };

/* Status class and detail, RFC 7143 §11.13.5. */
enum status {
    STATUS_SUCCESS = 0x0000,
    STATUS_INITIATOR_ERROR = 0x0200,
    STATUS_AUTHENTICATION = 0x0201,
    STATUS_FORBIDDEN = 0x0202,
    STATUS_NOT_FOUND = 0x0203,
    STATUS_VERSION = 0x0205,
    STATUS_TOO_MANY_CONNECTIONS = 0x0206,
    STATUS_MISSING_PARAMETER = 0x0207,
    STATUS_SESSION_TYPE = 0x0209,
    STATUS_NO_SESSION = 0x020a,
    STATUS_INVALID = 0x020b,
    STATUS_UNAVAILABLE = 0x0301,
    STATUS_NO_RESOURCES = 0x0302,
};

struct iscsi_login {
    struct iscsi_connection *connection;
    enum stage stage;
    unsigned pdus;
    bool identified, discovery, authenticated, chap_required;
    bool chap_chosen;
    bool finishing;
    char initiator[224];
    char volume[64];
    uint8_t isid[ISCSI_ISID_SIZE];
    uint8_t flags; /* of the request that is being answered */
    uint32_t task_tag, command_sn;
    uint16_t tsih;
    struct iscsi_chap chap;
    struct iscsi_text_writer answer;
    struct ring_timer retry;
};

static void close_after_refusal(struct iscsi_send *send)
{
    struct iscsi_connection *connection = list_entry(send, struct iscsi_connection, text_send);
    iscsi_connection_close(connection, "the login was refused");
}

static void send_nothing_more(struct iscsi_send *send)
{
}

static void respond(struct iscsi_login *login, enum status status, uint8_t flags, uint16_t tsih)
{
    struct iscsi_connection *connection = login->connection;
    uint8_t *header = connection->text_send.header;
    iscsi_pdu_begin(header, ISCSI_LOGIN_RESPONSE, flags, login->task_tag);
    memcpy(header + 8, login->isid, ISCSI_ISID_SIZE);
    put_be16(header + 14, tsih);
    put_be32(header + 24, connection->stat_sn++);
    put_be32(header + 28, login->command_sn);
    put_be32(header + 32, login->command_sn + ISCSI_WINDOW - 1);
    put_be16(header + 36, (uint16_t)status);
    connection->text_send.data = (uint8_t *)connection->text_out;
    connection->text_send.data_size = status == STATUS_SUCCESS ? (uint32_t)login->answer.used : 0;
    connection->text_send.sent = status == STATUS_SUCCESS ? send_nothing_more : close_after_refusal;
    iscsi_connection_send(connection, &connection->text_send);
}

/* Says no, tells the operator why, and closes once the answer is out (or when the login's time is over). */
static int refuse(struct iscsi_login *login, enum status status, const char *reason)
{
    struct iscsi_connection *connection = login->connection;
    log_info("iscsi: login of %s (%s) at '%s' refused: %s", login->initiator[0] ? login->initiator : "a stranger", connection->peer,
             login->discovery ? "discovery" : login->volume, reason);
    connection->target->stats.logins_refused++;
    connection->paused = true; /* nothing more is read */
    respond(login, status, 0, login->tsih);
    return 0;
}

/* --- who and what: the first request -------------------------------------------------------------------------------- */

static enum status ask_admission(struct iscsi_login *login, struct lun *lun, const char **ret_reason)
{
    struct lun_admission admission = {.reason = *ret_reason};
    int r = lun->admit(lun, login->initiator, &admission);
    if (r == 0 || r == -EAGAIN) {
        login->chap_required = admission.chap;
        snprintf(login->chap.user, sizeof(login->chap.user), "%s", admission.user);
        snprintf(login->chap.secret, sizeof(login->chap.secret), "%s", admission.secret);
    }
    *ret_reason = admission.reason;
    explicit_bzero(&admission, sizeof(admission));
    return r == 0 || r == -EAGAIN ? STATUS_SUCCESS : STATUS_FORBIDDEN;
}

static struct lun *find_lun(const struct iscsi_login *login)
{
    return lun_table_find(login->connection->target->table, login->volume);
}

static enum status identify_target(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    const char *name = iscsi_text_take(text, "TargetName");
    size_t prefix = strlen(LUN_IQN_PREFIX);
    *ret_reason = "it names no TargetName";
    if (!name)
        return STATUS_MISSING_PARAMETER;
    *ret_reason = "there is no such target here";
    if (strncmp(name, LUN_IQN_PREFIX, prefix) != 0 || strlen(name + prefix) >= sizeof(login->volume))
        return STATUS_NOT_FOUND;
    strcpy(login->volume, name + prefix);
    struct lun *lun = find_lun(login);
    if (!lun)
        return STATUS_NOT_FOUND;
    *ret_reason = "it may not use this volume now";
    return ask_admission(login, lun, ret_reason);
}

static enum status identify(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    const char *initiator = iscsi_text_take(text, "InitiatorName"), *type = iscsi_text_take(text, "SessionType");
    *ret_reason = "it names no InitiatorName of 1 to 223 bytes";
    if (!initiator || !initiator[0] || strlen(initiator) >= sizeof(login->initiator))
        return STATUS_MISSING_PARAMETER;
    strcpy(login->initiator, initiator);
    *ret_reason = "its SessionType is neither Normal nor Discovery";
    login->discovery = type && strcmp(type, "Discovery") == 0;
    if (type && !login->discovery && strcmp(type, "Normal") != 0)
        return STATUS_SESSION_TYPE;
    login->identified = true;
    if (login->discovery)
        return STATUS_SUCCESS;
    enum status status = identify_target(login, text, ret_reason);
    if (status == STATUS_SUCCESS) /* RFC 7143 §13.9: in the first response */
        iscsi_text_put(&login->answer, "TargetPortalGroupTag", "%u", login->connection->target->options.port_group);
    return status;
}

/* --- authentication --------------------------------------------------------------------------------------------------- */

static enum status choose_method(struct iscsi_login *login, const char *offer, const char **ret_reason)
{
    const char *method = login->chap_required ? "CHAP" : "None";
    if (!iscsi_text_list_has(offer, method)) {
        iscsi_text_put(&login->answer, "AuthMethod", "Reject");
        *ret_reason = login->chap_required ? "it does not offer CHAP, which this volume requires"
                                           : "it insists on authentication, which this volume has not";
        return STATUS_AUTHENTICATION;
    }
    iscsi_text_put(&login->answer, "AuthMethod", "%s", method);
    login->chap_chosen = login->chap_required;
    login->authenticated = !login->chap_required;
    return STATUS_SUCCESS;
}

static enum status authenticate(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    const char *offer = iscsi_text_take(text, "AuthMethod");
    if (offer && (login->chap_chosen || login->authenticated)) {
        *ret_reason = "it offers AuthMethod twice";
        return STATUS_INITIATOR_ERROR;
    }
    if (offer)
        return choose_method(login, offer, ret_reason);
    if (login->chap_chosen && !login->authenticated) {
        if (iscsi_chap_step(&login->chap, text, &login->answer, ret_reason) < 0)
            return STATUS_AUTHENTICATION;
        login->authenticated = login->chap.state == ISCSI_CHAP_DONE;
    }
    return STATUS_SUCCESS;
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
        refuse(login, STATUS_FORBIDDEN, reason);
        return -EACCES;
    }
    return r;
}

static void open_session(struct iscsi_login *login, struct lun *lun)
{
    struct iscsi_connection *connection = login->connection;
    struct iscsi_target *target = connection->target;
    struct iscsi_session *session;

    if (target->session_count >= ISCSI_SESSIONS_MAX ||
        iscsi_session_new(connection, lun, login->initiator, login->isid, login->command_sn, &session) < 0) {
        refuse(login, STATUS_NO_RESOURCES, "there are too many sessions");
        return;
    }
    respond(login, STATUS_SUCCESS, login->flags, session->tsih); /* before digests are in force */
    connection->state = ISCSI_CONNECTION_FULL;
    connection->session = session;
    target->unauthenticated_count--;
    target->stats.logins++;
    if (lun)
        log_info("iscsi: %s (%s) logged in at volume '%s'", login->initiator, connection->peer, lun->name);
    iscsi_login_free(connection);
    iscsi_nop_start_pinging(connection);
    iscsi_connection_resume(connection);
}

/* A lost nexus is aborted and drained before the same nexus is accepted anew (RFC 7143 §6.3.5; iscsi.md, ghost writes). */
static void finish(struct iscsi_login *login)
{
    struct iscsi_connection *connection = login->connection;
    struct lun *lun = login->discovery ? NULL : find_lun(login);
    if (!login->discovery && !lun) {
        refuse(login, STATUS_NOT_FOUND, "the target is gone");
        return;
    }
    struct iscsi_session *old = lun ? iscsi_session_find(connection->target, lun, login->initiator, login->isid) : NULL;
    if (old) {
        if (old->connection)
            iscsi_connection_close(old->connection, "the same initiator logs in anew");
        wait_to_finish(login);
        return;
    }
    int r = lun ? readmit(login, lun) : 0;
    if (r == -EAGAIN)
        wait_to_finish(login);
    else if (r == 0)
        open_session(login, lun);
}

/* --- requests ------------------------------------------------------------------------------------------------------------- */

static enum status check_header(struct iscsi_login *login, const struct iscsi_pdu *pdu, const char **ret_reason)
{
    unsigned current = pdu->flags >> 2 & 3, next = pdu->flags & 3;
    *ret_reason = "it speaks another version of iSCSI";
    if (pdu->bhs[3] != 0)
        return STATUS_VERSION;
    *ret_reason = "its stages are out of order";
    if (current > STAGE_OPERATIONAL || (login->pdus > 1 && current != login->stage))
        return STATUS_INVALID;
    if (pdu->flags & ISCSI_TRANSIT && (pdu->flags & ISCSI_CONTINUE || next <= current || next == 2))
        return STATUS_INVALID;
    *ret_reason = "one connection is all a session has here";
    if (login->tsih != 0)
        return STATUS_TOO_MANY_CONNECTIONS;
    return STATUS_SUCCESS;
}

static void take_header(struct iscsi_login *login, const struct iscsi_pdu *pdu)
{
    login->flags = pdu->flags & (ISCSI_TRANSIT | 0x0f);
    login->task_tag = pdu->task_tag;
    if (login->pdus > 1)
        return;
    login->stage = pdu->flags >> 2 & 3;
    login->command_sn = pdu->command_sn;
    login->tsih = be16_at(pdu->bhs + 14);
    memcpy(login->isid, pdu->bhs + 8, ISCSI_ISID_SIZE);
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

static enum status answer_keys(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    enum status status = login->identified ? STATUS_SUCCESS : identify(login, text, ret_reason);
    if (status == STATUS_SUCCESS && login->stage == STAGE_SECURITY)
        status = authenticate(login, text, ret_reason);
    if (status != STATUS_SUCCESS)
        return status;
    /* RFC 7143 §6.3.3: skipping the security stage offers no authentication. */
    *ret_reason = "this volume requires CHAP";
    if (login->stage == STAGE_OPERATIONAL && login->chap_required && !login->authenticated)
        return STATUS_AUTHENTICATION;
    *ret_reason = "it sent a key that cannot be negotiated";
    if (iscsi_parameters_negotiate(&login->connection->parameters, text, &login->answer) < 0)
        return STATUS_INITIATOR_ERROR;
    if (login->stage == STAGE_OPERATIONAL)
        iscsi_parameters_declare(&login->connection->parameters, &login->answer);
    *ret_reason = "the answer does not fit";
    return login->answer.full ? STATUS_INITIATOR_ERROR : STATUS_SUCCESS;
}

static void move_on(struct iscsi_login *login)
{
    bool transit = login->flags & ISCSI_TRANSIT;
    enum stage next = login->flags & 3;
    if (transit && login->stage == STAGE_SECURITY && login->chap_required && !login->authenticated)
        transit = false; /* not before it has proved who it is */
    if (!transit)
        login->flags = (uint8_t)(login->stage << 2);
    if (transit && next == STAGE_FULL) {
        finish(login);
        return;
    }
    if (transit)
        login->stage = next;
    respond(login, STATUS_SUCCESS, login->flags, 0);
}

int iscsi_login_end(struct iscsi_connection *connection, const struct iscsi_pdu *pdu)
{
    struct iscsi_login *login = connection->login;
    struct iscsi_text text;
    const char *reason = "";

    take_header(login, pdu);
    login->answer = (struct iscsi_text_writer){.data = connection->text_out, .size = ISCSI_LOGIN_SEGMENT_MAX};
    enum status status = check_header(login, pdu, &reason);
    if (status != STATUS_SUCCESS)
        return refuse(login, status, reason);
    connection->text_in_size += pdu->data_size;
    if (pdu->flags & ISCSI_CONTINUE) {
        login->flags = (uint8_t)(login->stage << 2);
        respond(login, STATUS_SUCCESS, login->flags, 0);
        return 0;
    }
    if (iscsi_text_parse(connection->text_in, connection->text_in_size, &text) < 0)
        return refuse(login, STATUS_INITIATOR_ERROR, "its text is malformed");
    connection->text_in_size = 0;
    status = answer_keys(login, &text, &reason);
    if (status != STATUS_SUCCESS)
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
