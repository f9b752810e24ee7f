/* `hcictl status`: asks every daemon of this node and shows the site on one screen. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/status.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/site_json.h"

/* Adds the daemon's answer, or why there is none: the screen must work when a part of the site does not. */
static void gather(const struct cli *cli, json_t *document, const char *key, const struct client_daemon *daemon,
                   const char *method)
{
    json_t *answer = NULL;
    struct err err = {0};
    if (client_ask(cli, daemon, method, NULL, CLIENT_QUICK_MS, &answer, &err) < 0)
        answer = json_pack("{s:{s:s, s:s}}", "error", "code", err.code, "message", err.text);
    json_object_set_new(document, key, answer);
}

int status_run(struct cli *cli, struct err *err)
{
    struct site site;
    int result = cli_load_site(cli, &site, err);
    if (result < 0)
        return result;
    json_owner json_t *document = json_pack("{s:o, s:I}", "cluster", site_json_encode(&site, site.self), "time",
                                            (json_int_t)time(NULL));
    gather(cli, document, "storaged", &client_storaged, "status");
    gather(cli, document, "volumes", &client_storaged, "volume.list");
    if (!site.standalone) {
        gather(cli, document, "quorumd", &client_quorumd, "status");
        gather(cli, document, "vmhad", &client_vmhad, "status");
        gather(cli, document, "guests", &client_vmhad, "vm.list");
    }
    status_judge(document);
    if (cli_option_count(cli, "check") && !output_is_true(document, "well"))
        cli->exit_code = CLI_EXIT_FAILED;
    if (cli->json)
        return output_json(json_incref(document), err);
    status_print(document);
    return 0;
}
