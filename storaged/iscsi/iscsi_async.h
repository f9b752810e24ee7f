/* Asynchronous messages (RFC 7143 §11.9), and connections that are given a moment before they are closed. */
#pragma once

struct iscsi_connection;
struct iscsi_session;

/* Asks the initiator to log out and closes the connection when it does not within a second. Once is enough. */
void iscsi_async_request_logout(struct iscsi_session *session, const char *why);
/* Nothing more is read; what is queued may still go out, for a second. */
void iscsi_async_close_soon(struct iscsi_connection *connection);
