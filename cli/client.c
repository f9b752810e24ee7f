/* Asking the daemons of this host. */
#include "cli/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/json_owner.h"
#include "cli/output.h"
#include "common/control.h"
#include "common/site.h"

const struct client_daemon client_storaged = {"hci-storaged", "storaged.sock"};
const struct client_daemon client_quorumd = {"hci-quorumd", "quorumd.sock"};
const struct client_daemon client_vmhad = {"hci-vmhad", "vmhad.sock"};
const struct client_daemon client_witnessd = {"hci-witnessd", "witnessd.sock"};

/* A witness host has no hci.conf, so a missing one is no error here; a broken one is. */
static int run_folder(const struct cli *cli, struct site *site, const char **ret, struct err *err)
{
    char path[CLI_PATH_MAX];
    *ret = cli_option_or(cli, "run-folder", "/run/hci");
    if (cli_option_count(cli, "run-folder"))
        return 0;
    int result = cli_path(path, cli_config_folder(cli), "hci.conf", err);
    if (result < 0 || (access(path, F_OK) < 0 && errno == ENOENT))
        return result;
    result = site_load(path, site, err);
    if (result == 0)
        *ret = site->run_folder;
    return result;
}

int client_socket_path(const struct cli *cli, const struct client_daemon *daemon, char ret_path[static CLI_PATH_MAX],
                       struct err *err)
{
    struct site site;
    const char *folder = NULL;
    int result = run_folder(cli, &site, &folder, err);
    return result < 0 ? result : cli_path(ret_path, folder, daemon->socket, err);
}

int client_ask(const struct cli *cli, const struct client_daemon *daemon, const char *method, json_t *params,
               int timeout_ms, json_t **ret_result, struct err *err)
{
    char path[CLI_PATH_MAX];
    int result = client_socket_path(cli, daemon, path, err);
    if (result < 0) {
        json_decref(params);
        return result;
    }
    return control_call(path, daemon->name, method, params, timeout_ms, ret_result, err);
}

static const char *what_of(const struct client_daemon *daemon, const char *method)
{
    if (daemon == &client_vmhad)
        return "guest";
    return !strncmp(method, "target.", 7) ? "target" : "volume";
}

int client_do(const struct cli *cli, const struct client_daemon *daemon, const char *method, json_t *params,
              int timeout_ms, const char *done, const char *name, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, daemon, method, params, timeout_ms, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    const char *message = output_text(answer, "message", NULL);
    if (message)
        puts(message);
    else
        printf("%s '%s': %s\n", what_of(daemon, method), name, done);
    return 0;
}
