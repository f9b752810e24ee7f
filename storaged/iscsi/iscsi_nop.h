/* NOP-Out, NOP-In and Logout (RFC 7143 §11.14, 11.18, 11.19). */
#pragma once

#include "storaged/iscsi/iscsi_pdu.h"
#include "storaged/ring.h"

struct iscsi_session;
struct iscsi_connection;

int iscsi_nop_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu);
int iscsi_nop_end(struct iscsi_session *session, const struct iscsi_pdu *pdu);
/* Pings an idle initiator and closes the connection of one that stays silent. */
void iscsi_nop_start_pinging(struct iscsi_connection *connection);
int iscsi_logout_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu);
int iscsi_logout_end(struct iscsi_session *session, const struct iscsi_pdu *pdu);
