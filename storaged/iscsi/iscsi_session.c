/* Sessions: opening, the command window, losing and draining. */
#include "storaged/iscsi/iscsi_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "common/log.h"
#include "storaged/iscsi/iscsi_async.h"
#include "storaged/iscsi/iscsi_command.h"
#include "storaged/iscsi/iscsi_target_internal.h"

/* From the group: admission ended, or a command could not be held any longer. */
static void close_nexus(struct lun_nexus *nexus, const char *reason)
{
    struct iscsi_session *session = list_entry(nexus, struct iscsi_session, nexus);
    if (session->connection && nexus->lun->closing)
        iscsi_async_request_logout(session, reason); /* nobody is in a hurry for a volume that goes */
    else if (session->connection)
        iscsi_connection_close(session->connection, reason);
}

static void nexus_changed(struct lun_nexus *nexus, enum lun_change change)
{
    scsi_nexus_changed(&list_entry(nexus, struct iscsi_session, nexus)->scsi, change);
}

static uint16_t next_tsih(struct iscsi_target *target)
{
    for (;;) {
        bool taken = ++target->last_tsih == 0; /* 0 means: no session yet */
        list_for_each(item, &target->sessions)
            taken |= list_entry(item, struct iscsi_session, link)->name.tsih == target->last_tsih;
        if (!taken)
            return target->last_tsih;
    }
}

static void sent_nothing_to_do(struct iscsi_send *send)
{
}

int iscsi_session_new(struct iscsi_connection *connection, struct lun *lun, const char *initiator,
                      const struct iscsi_session_name *name, uint32_t command_sn, struct iscsi_session **ret)
{
    struct iscsi_target *target = connection->target;
    struct iscsi_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->target = target;
    session->connection = connection;
    session->lun = lun;
    strncpy(session->initiator, initiator, sizeof(session->initiator) - 1);
    session->name = *name;
    if (name->tsih == 0)
        session->name.tsih = next_tsih(target);
    session->expected_command_sn = command_sn;
    list_init(&session->free_tasks);
    list_init(&session->active_tasks);
    for (size_t i = 0; i < ISCSI_TAG_BUCKETS; i++)
        list_init(&session->tags[i]);
    for (size_t i = 0; i < ISCSI_WINDOW + ISCSI_IMMEDIATE_TASKS; i++) {
        session->tasks[i].session = session;
        iscsi_command_init_task(&session->tasks[i]);
        list_append(&session->free_tasks, &session->tasks[i].link);
    }
    list_append(&target->sessions, &session->link);
    target->session_count++;
    target->discovery_count += lun == NULL;
    connection->reject.sent = connection->ping.sent = connection->text_send.sent = sent_nothing_to_do;
    if (lun) {
        memcpy(session->nexus.initiator, session->initiator, sizeof(session->nexus.initiator));
        snprintf(session->nexus.address, sizeof(session->nexus.address), "%s", connection->peer);
        session->nexus.close = close_nexus;
        session->nexus.changed = nexus_changed;
        lun_nexus_open(&session->nexus, lun);
        session->scsi = (struct scsi_nexus){
            .lun = lun, .lun_nexus = &session->nexus, .port_group = target->options.port_group};
        memcpy(session->scsi.isid, name->isid, sizeof(session->scsi.isid));
        check(scsi_nexus_open(&session->scsi) == 0);
    }
    *ret = session;
    return 0;
}

struct iscsi_session *iscsi_session_find(struct iscsi_target *target, const struct lun *lun, const char *initiator,
                                         const uint8_t isid[static ISCSI_ISID_SIZE])
{
    list_for_each(item, &target->sessions) {
        struct iscsi_session *session = list_entry(item, struct iscsi_session, link);
        if (session->lun == lun && strcmp(session->initiator, initiator) == 0 &&
            memcmp(session->name.isid, isid, ISCSI_ISID_SIZE) == 0)
            return session;
    }
    return NULL;
}

void iscsi_session_close_oldest_discovery(struct iscsi_target *target)
{
    list_for_each(item, &target->sessions) {
        struct iscsi_session *session = list_entry(item, struct iscsi_session, link);
        if (session->lun || !session->connection || session->connection->state == ISCSI_CONNECTION_CLOSED)
            continue;
        iscsi_connection_close(session->connection, "others want to discover, too");
        return;
    }
}

static bool is_aborted_ahead(const struct iscsi_session *session, uint32_t command_sn)
{
    unsigned bit = command_sn % ISCSI_WINDOW;
    return session->aborted_ahead[bit / 64] >> bit % 64 & 1;
}

/* One more was received; those aborted ahead count, too. */
static void advance_number(struct iscsi_session *session)
{
    while (is_aborted_ahead(session, ++session->expected_command_sn)) {
        unsigned bit = session->expected_command_sn % ISCSI_WINDOW;
        session->aborted_ahead[bit / 64] &= ~(UINT64_C(1) << bit % 64);
    }
}

bool iscsi_session_abort_ahead(struct iscsi_session *session, uint32_t command_sn)
{
    uint32_t ahead = command_sn - session->expected_command_sn;
    if (ahead >= ISCSI_WINDOW - session->window_used)
        return false;
    unsigned bit = command_sn % ISCSI_WINDOW;
    if (ahead == 0)
        advance_number(session);
    else
        session->aborted_ahead[bit / 64] |= UINT64_C(1) << bit % 64;
    return true;
}

int iscsi_session_accept_number(struct iscsi_session *session, const struct iscsi_pdu *pdu)
{
    uint32_t ahead = pdu->command_sn - session->expected_command_sn;
    if (pdu->immediate)
        return 1;
    if (ahead >= ISCSI_WINDOW - session->window_used)
        return 0;
    if (ahead > 0) /* a gap cannot be: one connection, in order */
        return is_aborted_ahead(session, pdu->command_sn) ? 0 : -EPROTO;
    advance_number(session);
    return 1;
}

void iscsi_session_stamp(struct iscsi_session *session, uint8_t *header, bool status)
{
    struct iscsi_connection *connection = session->connection;
    put_be32(header + 24, connection->stat_sn);
    if (status)
        connection->stat_sn++;
    put_be32(header + 28, session->expected_command_sn);
    put_be32(header + 32, session->expected_command_sn - 1 + (ISCSI_WINDOW - session->window_used));
}

static void free_session(struct iscsi_session *session)
{
    if (session->lun) {
        log_info("iscsi: session of %s at volume '%s' ended", session->initiator, session->lun->name);
        scsi_nexus_close(&session->scsi);
        lun_nexus_close(&session->nexus);
    }
    list_remove(&session->link);
    session->target->session_count--;
    session->target->discovery_count -= session->lun == NULL;
    free(session);
}

void iscsi_session_check_drained(struct iscsi_session *session)
{
    if (!session->connection && !session->dropping && list_is_empty(&session->active_tasks))
        free_session(session);
}

void iscsi_session_lose(struct iscsi_session *session)
{
    check(session->connection && !session->dropping);
    session->dropping = true; /* tasks end inside; the session is looked at afterwards */
    session->connection = NULL;
    for (size_t i = 0; i < ISCSI_WINDOW + ISCSI_IMMEDIATE_TASKS; i++) {
        if (session->tasks[i].state != ISCSI_TASK_FREE && !session->tasks[i].aborted)
            iscsi_task_abort(&session->tasks[i], NULL);
        else if (session->tasks[i].state == ISCSI_TASK_SENDING) {
            session->tasks[i].send.queued = false;
            iscsi_task_release(&session->tasks[i]);
        }
    }
    if (session->lun)
        lun_nexus_drop(&session->nexus);
    session->dropping = false;
    iscsi_session_check_drained(session);
}

int iscsi_session_reject(struct iscsi_session *session, const struct iscsi_pdu *pdu, enum iscsi_reject reason)
{
    struct iscsi_connection *connection = session->connection;
    struct iscsi_send *send = &connection->reject;
    if (send->queued)
        return -EPROTO;
    memcpy(connection->rejected, pdu->bhs, ISCSI_BHS_SIZE);
    iscsi_pdu_begin(send->header, ISCSI_REJECT, ISCSI_FINAL, ISCSI_TAG_NONE);
    send->header[2] = (uint8_t)reason;
    send->data = connection->rejected;
    send->data_size = ISCSI_BHS_SIZE;
    iscsi_session_stamp(session, send->header, true);
    iscsi_connection_send(connection, send);
    return 0;
}
