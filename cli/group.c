/* `hcictl group …`: the units of authority and what is kept with them. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/secret.h"

static const struct output_column list_columns[] = {
    {"name", "GROUP", OUTPUT_TEXT},     {"role", "HERE", OUTPUT_TEXT},      {"serving", "SERVED", OUTPUT_YES},
    {"epoch", "EPOCH", OUTPUT_TEXT},    {"members", "COPIES", OUTPUT_LIST}, {"volumes", "VOLUMES", OUTPUT_LIST},
    {NULL, NULL, OUTPUT_TEXT},
};

int group_list_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_storaged, "group.list", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    output_table(output_find(answer, "groups"), list_columns, "No groups yet; a volume makes one of its own.");
    return 0;
}

static void print_entries(const json_t *entries)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)entries, key, value)
        printf("%s: %s\n", key, json_is_string(value) ? json_string_value(value) : "-");
}

int group_meta_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_storaged, "meta.get", json_pack("{s:s}", "group", cli->arguments[0]),
                            CLIENT_SLOW_MS, &answer, err);
    if (result == 0)
        result = secret_hide_in_entries(cli, answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    printf("group %s, version %lld\n", output_text(answer, "group", cli->arguments[0]),
           (long long)output_number(answer, "version", 0));
    print_entries(output_find(answer, "entries"));
    return 0;
}
