/* `hcictl vm …`: the protected guests. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/secret.h"
#include "common/files.h"

/* A request is one line of at most 256 KiB, in which quotes and line ends take two bytes. */
#define XML_MAX (96u * 1024)

static const struct output_column list_columns[] = {
    {"name", "GUEST", OUTPUT_TEXT},  {"state", "STATE", OUTPUT_TEXT},   {"node", "NODE", OUTPUT_TEXT},
    {"here", "HERE", OUTPUT_YES},    {"incarnation", "STARTS", OUTPUT_TEXT}, {"reason", "WHY", OUTPUT_TEXT},
    {NULL, NULL, OUTPUT_TEXT},
};

static const struct output_column show_fields[] = {
    {"name", "guest", OUTPUT_TEXT},      {"state", "state", OUTPUT_TEXT},  {"node", "node", OUTPUT_TEXT},
    {"here", "runs here", OUTPUT_YES},   {"reason", "why", OUTPUT_TEXT},   {"group", "group", OUTPUT_TEXT},
    {"incarnation", "incarnation", OUTPUT_TEXT}, {NULL, NULL, OUTPUT_TEXT},
};

int vm_add_run(struct cli *cli, struct err *err)
{
    const char *name = cli->arguments[0], *path = cli_option_value(cli, "xml", 0);
    cleanup_free char *xml = NULL;
    size_t size = 0;
    if (!path)
        return cli_usage(err, "guest '%.80s': name its libvirt domain: --xml FILE", name);
    int result = files_read(path, XML_MAX, &xml, &size, err);
    if (result < 0)
        return result;
    json_t *params = json_pack("{s:s, s:s}", "name", name, "xml", xml);
    if (!params || strlen(xml) != size) {
        json_decref(params);
        return err_set(err, -EINVAL, "invalid", "%s: it is not text in UTF-8; give the domain's XML", path);
    }
    return client_do(cli, &client_vmhad, "vm.add", params, CLIENT_SLOW_MS, "protected; `hcictl vm start` starts it",
                     name, err);
}

static int do_named(struct cli *cli, const char *method, const char *done, struct err *err)
{
    const char *name = cli->arguments[0];
    return client_do(cli, &client_vmhad, method, json_pack("{s:s}", "name", name), CLIENT_SLOW_MS, done, name, err);
}

int vm_start_run(struct cli *cli, struct err *err) { return do_named(cli, "vm.start", "started", err); }
int vm_remove_run(struct cli *cli, struct err *err)
{
    return do_named(cli, "vm.remove", "no longer protected; its volumes are still there", err);
}

int vm_stop_run(struct cli *cli, struct err *err)
{
    const char *name = cli->arguments[0];
    int force = cli_option_count(cli, "force") > 0;
    return client_do(cli, &client_vmhad, "vm.stop", json_pack("{s:s, s:b}", "name", name, "force", force),
                     CLIENT_SLOW_MS, force ? "stopped" : "asked to stop", name, err);
}

int vm_list_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_vmhad, "vm.list", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    output_table(output_find(answer, "guests"), list_columns,
                 "No guests yet; `hcictl vm add NAME --xml FILE` protects one.");
    return 0;
}

int vm_show_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_vmhad, "vm.show", json_pack("{s:s}", "name", cli->arguments[0]),
                            CLIENT_QUICK_MS, &answer, err);
    if (result == 0)
        result = secret_hide_in_xml(cli, answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    output_fields(answer, show_fields);
    if (output_text(answer, "xml", NULL))
        printf("\n%s\n", output_text(answer, "xml", ""));
    return 0;
}
