/* `hcictl volume …`: the volumes. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/size.h"

static const struct output_column list_columns[] = {
    {"name", "VOLUME", OUTPUT_TEXT},   {"size_bytes", "SIZE", OUTPUT_BYTES}, {"used_bytes", "USED", OUTPUT_BYTES},
    {"primary_node", "PRIMARY", OUTPUT_TEXT}, {"role", "HERE", OUTPUT_TEXT}, {"members", "COPIES", OUTPUT_LIST},
    {"state", "STATE", OUTPUT_TEXT},   {NULL, NULL, OUTPUT_TEXT},
};

static const struct output_column show_fields[] = {
    {"name", "volume", OUTPUT_TEXT},          {"state", "state", OUTPUT_TEXT},
    {"size_bytes", "size", OUTPUT_BYTES},     {"used_bytes", "used", OUTPUT_BYTES},
    {"iqn", "iSCSI name", OUTPUT_TEXT},       {"primary_node", "primary", OUTPUT_TEXT},
    {"role", "role of this node", OUTPUT_TEXT}, {"serving", "served here", OUTPUT_YES},
    {"members", "current copies", OUTPUT_LIST}, {"epoch", "epoch", OUTPUT_TEXT},
    {"behind_bytes", "other copy is behind by", OUTPUT_BYTES}, {"lost_bytes", "lost here", OUTPUT_BYTES},
    {"group", "group", OUTPUT_TEXT},
    {"id", "id", OUTPUT_TEXT},                {NULL, NULL, OUTPUT_TEXT},
};

int volume_create_run(struct cli *cli, struct err *err)
{
    const char *name = cli->arguments[0], *size = cli_option_value(cli, "size", 0),
               *group = cli_option_value(cli, "group", 0);
    json_owner json_t *answer = NULL;
    uint64_t bytes = 0;
    if (!size)
        return cli_usage(err, "volume '%.80s': say how large it shall be: --size 10G", name);
    if (size_parse(size, &bytes, err) < 0)
        return cli_usage_keep(err);
    int result =
        client_ask(cli, &client_storaged, "volume.create",
                   json_pack("{s:s, s:I, s:s*}", "name", name, "size_bytes", (json_int_t)bytes, "group", group),
                   CLIENT_SLOW_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    char text[SIZE_TEXT_MAX];
    printf("Volume '%s' (%s) is made%s.\n", name, size_format(bytes, text),
           cli_stands_alone(cli) ? "; this node has the only copy" : ", on both nodes");
    return 0;
}

int volume_grow_run(struct cli *cli, struct err *err)
{
    const char *name = cli->arguments[0], *size = cli_option_value(cli, "size", 0);
    json_owner json_t *answer = NULL;
    char text[SIZE_TEXT_MAX];
    uint64_t bytes = 0;
    if (!size)
        return cli_usage(err, "volume '%.80s': say how large it shall become: --size 20G", name);
    if (size_parse(size, &bytes, err) < 0)
        return cli_usage_keep(err);
    int result = client_ask(cli, &client_storaged, "volume.grow",
                            json_pack("{s:s, s:I}", "name", name, "size_bytes", (json_int_t)bytes), CLIENT_SLOW_MS,
                            &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    printf("Volume '%s' has %s now; its initiators are told. The file system in it grows by its own tool (resize2fs,\n"
           "xfs_growfs, …).\n", name, size_format(bytes, text));
    return 0;
}

int volume_list_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_storaged, "volume.list", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    output_table(output_find(answer, "volumes"), list_columns,
                 "No volumes yet; `hcictl volume create NAME --size SIZE` makes one.");
    return 0;
}

int volume_show_run(struct cli *cli, struct err *err)
{
    json_owner json_t *volume = NULL;
    int result = client_ask(cli, &client_storaged, "volume.show", json_pack("{s:s}", "name", cli->arguments[0]),
                            CLIENT_QUICK_MS, &volume, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(volume), err);
    static const char *const rare[] = {"behind_bytes", "lost_bytes"}; /* worth a line only when there is something */
    for (unsigned i = 0; i < 2; i++)
        if (output_number(volume, rare[i], 0) == 0)
            json_object_del(volume, rare[i]);
    output_fields(volume, show_fields);
    return 0;
}

int volume_delete_run(struct cli *cli, struct err *err)
{
    const char *name = cli->arguments[0];
    return client_do(cli, &client_storaged, "volume.delete", json_pack("{s:s}", "name", name), CLIENT_SLOW_MS,
                     cli_stands_alone(cli) ? "deleted" : "deleted on both nodes", name, err);
}
