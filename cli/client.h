/* Asking the daemons of this host: where their sockets are and what their answers mean for the exit code. */
#pragma once

#include <jansson.h>

#include "cli/cli.h"

struct client_daemon {
    const char *name;   /* "hci-storaged" */
    const char *socket; /* "storaged.sock" in the run folder */
};

extern const struct client_daemon client_storaged, client_quorumd, client_vmhad, client_witnessd;

#define CLIENT_QUICK_MS 3000 /* questions that a daemon answers from memory */
#define CLIENT_SLOW_MS 60000 /* what waits for the other node, the witness or a disk */

/* The socket's path: --run-folder, else what hci.conf says, else /run/hci. */
int client_socket_path(const struct cli *cli, const struct client_daemon *daemon, char ret_path[static CLI_PATH_MAX],
                       struct err *err);
/* One question; steals `params`. The daemon's refusal is -EREMOTEIO with its sentence. */
int client_ask(const struct cli *cli, const struct client_daemon *daemon, const char *method, json_t *params,
               int timeout_ms, json_t **ret_result, struct err *err);
/* For verbs that only do something: prints the answer with --json, else the daemon's own sentence when it gives one
 * ("message"), else "volume 'NAME': DONE" (of vmhad: "guest", of target.…: "target"). */
int client_do(const struct cli *cli, const struct client_daemon *daemon, const char *method, json_t *params,
              int timeout_ms, const char *done, const char *name, struct err *err);
