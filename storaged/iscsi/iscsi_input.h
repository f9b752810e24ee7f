/* The receiving half of a connection. */
#pragma once

#include <stdbool.h>

struct iscsi_connection;

/* Handles what was received, and, if `readable`, reads more. Closes the connection on an error. */
void iscsi_input_run(struct iscsi_connection *connection, bool readable);
