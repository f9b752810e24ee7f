/* Login (RFC 7143 §6, §11.12): who it is, what it wants, whether it may; bounded in time and in bytes. */
#pragma once

#include "storaged/iscsi/iscsi_pdu.h"

struct iscsi_connection;

/* A connection was accepted: it must log in within the target's login_ms. -ENOMEM. */
int iscsi_login_start(struct iscsi_connection *connection);
int iscsi_login_begin(struct iscsi_connection *connection, const struct iscsi_pdu *pdu);
int iscsi_login_end(struct iscsi_connection *connection, const struct iscsi_pdu *pdu);
void iscsi_login_free(struct iscsi_connection *connection); /* harmless when there is none */
