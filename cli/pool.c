/* `hcictl pool …`: this node's pool. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/disk.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/size.h"

static const struct output_column show_fields[] = {
    {"pool", "pool", OUTPUT_TEXT},
    {"total_bytes", "size", OUTPUT_BYTES},
    {"reserved_bytes", "promised to volumes", OUTPUT_BYTES},
    {"free_bytes", "free for volumes", OUTPUT_BYTES},
    {"used_bytes", "used by data", OUTPUT_BYTES},
    {"checksum_errors", "rotten blocks met", OUTPUT_TEXT},
    {"health", "health", OUTPUT_TEXT},
    {NULL, NULL, OUTPUT_TEXT},
};

int pool_create_run(struct cli *cli, struct err *err)
{
    const char *size = cli_option_value(cli, "size", 0);
    json_owner json_t *paths = json_array(), *answer = NULL;
    uint64_t bytes = 0;
    if (size && size_parse(size, &bytes, err) < 0)
        return cli_usage_keep(err);
    for (unsigned i = 0; i < cli->argument_count; i++) {
        char path[CLI_PATH_MAX];
        int result = cli_absolute_path(path, cli->arguments[i], err);
        if (result < 0)
            return result;
        json_array_append_new(paths, json_string(path));
    }
    int result = client_ask(cli, &client_storaged, "pool.create",
                            json_pack("{s:O, s:I, s:b}", "paths", paths, "file_bytes", (json_int_t)bytes, "force",
                                      (int)cli_option_count(cli, "force")),
                            DISK_FORMAT_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    printf("Pool %s is made of %u disk%s and open. %s`hcictl volume create NAME --size SIZE` makes a volume.\n",
           output_text(answer, "pool", ""), cli->argument_count, cli->argument_count == 1 ? "" : "s",
           cli_stands_alone(cli) ? "" : "Do the same on the other node; then ");
    return 0;
}

/* Adds what people ask of a pool and its numbers only imply. */
static void add_derived(json_t *pool)
{
    const char *failure = output_text(pool, "failure", NULL);
    json_int_t total = output_number(pool, "total_bytes", 0), reserved = output_number(pool, "reserved_bytes", 0);
    char health[256] = "good";
    if (failure)
        snprintf(health, sizeof health, "FAILED (%s): nothing is served; see the log of hci-storaged", failure);
    else if (reserved > total)
        snprintf(health, sizeof health, "SHORT: more is promised than the disks can hold; `hcictl disk add` one");
    json_object_set_new(pool, "free_bytes", json_integer(total > reserved ? total - reserved : 0));
    json_object_set_new(pool, "health", json_string(health));
}

int pool_show_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_storaged, "pool.show", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    if (!output_text(answer, "pool", NULL))
        return err_set(err, -ENODEV, "no_pool", "%s",
                       output_text(answer, "message", "this node has no pool; `hcictl pool create PATH...` makes one"));
    add_derived(answer);
    output_fields(answer, show_fields);
    putchar('\n');
    disk_print_table(output_find(answer, "disks"));
    return 0;
}
