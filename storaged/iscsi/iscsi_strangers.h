/* Connections that have not logged in: how many there may be, and who has to go for a newcomer. */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

struct iscsi_connection;
struct iscsi_target;

/* The connection is a stranger until iscsi_strangers_remove: at its login or its end. */
void iscsi_strangers_add(struct iscsi_connection *connection, const struct sockaddr_storage *peer);
void iscsi_strangers_remove(struct iscsi_connection *connection);
/* There are too many: closes one of them. */
void iscsi_strangers_evict(struct iscsi_target *target);
/* May another refused login be logged? A flood of them must not fill the journal. */
bool iscsi_strangers_may_log(struct iscsi_target *target);
