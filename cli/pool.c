/* `hcictl pool …`: this node's disks. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/size.h"

/* Formatting asks for every path's surface once and for a journal on each: minutes on large slow disks. */
#define POOL_CREATE_MS 600000

/* The daemon has another working folder, so a path given relative to this one is completed here. */
static int absolute_path(const char *path, json_t *paths, struct err *err)
{
    char here[PATH_MAX], whole[2 * PATH_MAX];
    if (path[0] == '/') {
        json_array_append_new(paths, json_string(path));
        return 0;
    }
    if (!getcwd(here, sizeof here))
        return err_set(err, -errno, "io", "path '%s': the current folder is not known: %m; write it from the root",
                       path);
    if ((size_t)snprintf(whole, sizeof whole, "%s/%s", here, path) >= PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "invalid", "path '%.120s' is too long; use a shorter one", path);
    json_array_append_new(paths, json_string(whole));
    return 0;
}

int pool_create_run(struct cli *cli, struct err *err)
{
    const char *size = cli_option_value(cli, "size", 0);
    json_owner json_t *paths = json_array(), *answer = NULL;
    uint64_t bytes = 0;
    if (size && size_parse(size, &bytes, err) < 0)
        return cli_usage_keep(err);
    int result = 0;
    for (unsigned i = 0; i < cli->argument_count && result == 0; i++)
        result = absolute_path(cli->arguments[i], paths, err);
    if (result == 0)
        result = client_ask(cli, &client_storaged, "pool.create",
                            json_pack("{s:O, s:I, s:b}", "paths", paths, "file_bytes", (json_int_t)bytes, "force",
                                      (int)cli_option_count(cli, "force")), POOL_CREATE_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    printf("Pool %s is made of %u path%s and open. Do the same on the other node, then `hcictl volume create`.\n",
           output_text(answer, "pool", ""), cli->argument_count, cli->argument_count == 1 ? "" : "s");
    return 0;
}

int pool_show_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_storaged, "pool.show", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    output_tree(answer, 0);
    return 0;
}
