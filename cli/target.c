/* `hcictl target …`: how a volume is reached over iSCSI, and who may log in. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/password.h"
#include "common/seal.h"

static const struct output_column session_columns[] = {
    {"initiator", "INITIATOR", OUTPUT_TEXT},
    {"address", "FROM", OUTPUT_TEXT},
    {NULL, NULL, OUTPUT_TEXT},
};

static int ask_target(const struct cli *cli, json_t **ret, struct err *err)
{
    return client_ask(cli, &client_storaged, "target.show", json_pack("{s:s}", "name", cli->arguments[0]),
                      CLIENT_QUICK_MS, ret, err);
}

/* ---- show ------------------------------------------------------------------------------------------------------- */

static void print_initiators(const char *name, const json_t *initiators)
{
    size_t index;
    json_t *item;
    if (!json_is_array(initiators)) {
        puts("initiators: any that reaches a portal");
        return;
    }
    if (json_array_size(initiators) == 0)
        printf("initiators: NOBODY may log in: the list is empty. `hcictl target acl %s --add IQN` adds one, --any\n"
               "            lets everybody in.\n",
               name);
    json_array_foreach(initiators, index, item)
        printf("%s%s\n", index ? "            " : "initiators: ", json_is_string(item) ? json_string_value(item) : "?");
}

static void print_chap(const json_t *chap)
{
    const char *user = output_text(chap, "user", NULL), *mutual = output_text(chap, "mutual_user", NULL);
    if (!json_is_object(chap))
        puts("password:   none");
    else if (!user)
        puts("password:   cannot be read, so nobody may log in; set it anew with `hcictl target chap`");
    else
        printf("password:   CHAP, user '%s'%s%s%s\n", user, mutual ? "; the target proves itself as '" : "",
               mutual ? mutual : "", mutual ? "'" : "");
}

static void print_target(const json_t *target, const char *name)
{
    size_t index;
    json_t *portal;
    const char *guest = output_text(target, "guest", NULL), *group = output_text(target, "group_name", name);
    printf("target:     %s\n", output_text(target, "iqn", "?"));
    json_array_foreach(output_find(target, "portals"), index, portal)
        printf("%s%s, LUN 0\n",
               index ? "            " : "portals:    ", json_is_string(portal) ? json_string_value(portal) : "?");
    if (guest) {
        printf("initiators: only the guest '%s', with the password that its definition carries\n", guest);
    } else {
        print_initiators(name, output_find(target, "initiators"));
        print_chap(output_find(target, "chap"));
    }
    if (strcmp(group, name))
        printf("            (the same for all volumes of group '%s')\n", group);
    putchar('\n');
    output_table(output_find(target, "sessions"), session_columns, "Nobody is logged in.");
}

int target_show_run(struct cli *cli, struct err *err)
{
    json_owner json_t *target = NULL;
    int result = ask_target(cli, &target, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(target), err);
    print_target(target, cli->arguments[0]);
    return 0;
}

/* ---- acl -------------------------------------------------------------------------------------------------------- */

static size_t find_name(const json_t *list, const char *name)
{
    size_t index;
    json_t *item;
    json_array_foreach((json_t *)list, index,
                       item) if (json_is_string(item) && !strcmp(json_string_value(item), name)) break;
    return index;
}

/* The new list, from the old one and the options; JSON null: anyone. */
static int change_list(const struct cli *cli, const json_t *before, json_t **ret, struct err *err)
{
    if (cli_option_count(cli, "any")) {
        *ret = json_null();
        return 0;
    }
    json_owner json_t *list = json_is_array(before) ? json_copy((json_t *)before) : json_array();
    for (unsigned i = 0; i < cli_option_count(cli, "remove"); i++) {
        const char *name = cli_option_value(cli, "remove", i);
        size_t index = find_name(list, name);
        if (index == json_array_size(list))
            return err_set(err, -ENOENT, "not_found",
                           "initiator '%.223s' is not on the list of '%s'; `hcictl target show %s` shows it", name,
                           cli->arguments[0], cli->arguments[0]);
        json_array_remove(list, index);
    }
    for (unsigned i = 0; i < cli_option_count(cli, "add"); i++)
        if (find_name(list, cli_option_value(cli, "add", i)) == json_array_size(list))
            json_array_append_new(list, json_string(cli_option_value(cli, "add", i)));
    *ret = json_incref(list);
    return 0;
}

int target_acl_run(struct cli *cli, struct err *err)
{
    json_owner json_t *target = NULL, *list = NULL, *answer = NULL;
    unsigned any = cli_option_count(cli, "any"), named = cli_option_count(cli, "add") + cli_option_count(cli, "remove");
    if (!any == !named)
        return cli_usage(err, "target '%.80s': say --add IQN, --remove IQN or --any%s", cli->arguments[0],
                         any ? ", not both" : "");
    int result = ask_target(cli, &target, err);
    json_t *before = output_find(target, "initiators");
    if (result == 0)
        result = change_list(cli, before, &list, err);
    if (result == 0)
        result = client_ask(cli, &client_storaged, "target.set",
                            json_pack("{s:s, s:O, s:O}", "name", cli->arguments[0], "initiators", list, "expected",
                                      before ? before : json_null()),
                            CLIENT_SLOW_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_pack("{s:s, s:O}", "name", cli->arguments[0], "initiators", list), err);
    print_initiators(cli->arguments[0], list);
    return 0;
}

/* ---- chap ------------------------------------------------------------------------------------------------------- */

static int get_secrets(const struct cli *cli, const char *user, const char *mutual, char (*secrets)[PASSWORD_MAX],
                       struct err *err)
{
    const char *file = cli_option_value(cli, "secret-file", 0);
    if (!file && !isatty(STDIN_FILENO))
        file = "-";
    if (file)
        return password_read(file, secrets, mutual ? 2 : 1, err);
    int result = password_ask(user, secrets[0], err);
    return result == 0 && mutual ? password_ask(mutual, secrets[1], err) : result;
}

static int set_chap(struct cli *cli, json_t *params, const char *done, struct err *err)
{
    return client_do(cli, &client_storaged, "target.chap", params, CLIENT_SLOW_MS, done, cli->arguments[0], err);
}

int target_chap_run(struct cli *cli, struct err *err)
{
    const char *name = cli->arguments[0], *user = cli_option_value(cli, "user", 0),
               *mutual = cli_option_value(cli, "mutual-user", 0);
    char secrets[2][PASSWORD_MAX] = {"", ""};
    if (cli_option_count(cli, "off") && !user && !mutual)
        return set_chap(cli, json_pack("{s:s, s:b}", "name", name, "off", 1), "no password any more", err);
    if (!user || cli_option_count(cli, "off"))
        return cli_usage(err, "target '%.80s': say --user NAME (and --mutual-user NAME), or only --off", name);
    int result = get_secrets(cli, user, mutual, secrets, err);
    json_t *params = NULL;
    if (result == 0)
        params = json_pack("{s:s, s:s, s:s, s:s*, s:s*}", "name", name, "user", user, "secret", secrets[0],
                           "mutual_user", mutual, "mutual_secret", mutual ? secrets[1] : NULL);
    seal_wipe(secrets, sizeof secrets);
    if (result == 0 && !params)
        return err_set(err, -EINVAL, "invalid", "target '%.80s': users and secrets must be text in UTF-8", name);
    return result < 0 ? result : set_chap(cli, params, "the new password holds from the next login on", err);
}
