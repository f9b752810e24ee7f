/* `hcictl disk …`: the disks of this node's pool, while it serves. */
#include "cli/disk.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/disk_wait.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/size.h"
#include "common/id.h"

static const struct output_column columns[] = {
    {"path", "DISK", OUTPUT_TEXT},
    {"state", "STATE", OUTPUT_TEXT},
    {"total_bytes", "SIZE", OUTPUT_BYTES},
    {"used_bytes", "USED", OUTPUT_BYTES},
    {"errors", "ERRORS", OUTPUT_TEXT},
    {"id", "ID", OUTPUT_TEXT},
    {NULL, NULL, OUTPUT_TEXT},
};

const char *disk_name(const json_t *disk)
{
    const char *path = output_text(disk, "path", "");
    return path[0] ? path : output_text(disk, "id", "?");
}

static void describe_errors(json_t *row)
{
    static const char *const kinds[] = {"read", "write", "checksum"};
    char text[128] = "", key[32];
    size_t used = 0;
    for (unsigned i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%s_errors", kinds[i]);
        json_int_t count = output_number(row, key, 0);
        if (count > 0)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld %s", used ? ", " : "", (long long)count,
                                     kinds[i]);
    }
    json_object_set_new(row, "errors", json_string(used ? text : "none"));
}

static void describe_state(json_t *row)
{
    char text[96], size[SIZE_TEXT_MAX];
    const char *state = output_text(row, "state", "?");
    if (!strcmp(state, "draining"))
        snprintf(text, sizeof text, "draining, %s left",
                 size_format((uint64_t)output_number(row, "drain_left_bytes", 0), size));
    else
        snprintf(text, sizeof text, "%s",
                 !strcmp(state, "failed")    ? "FAILED"
                 : !strcmp(state, "missing") ? "MISSING"
                                             : state);
    json_object_set_new(row, "state", json_string(text));
}

void disk_print_table(const json_t *disks)
{
    json_owner json_t *rows = json_deep_copy(disks);
    size_t index;
    json_t *row;
    json_array_foreach(rows, index, row)
    {
        json_object_set_new(row, "path", json_string(disk_name(row)));
        describe_errors(row);
        describe_state(row);
    }
    output_table(rows, columns, "No disks: `hcictl pool create PATH...` makes a pool of some.");
}

int disk_list_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_storaged, "disk.list", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    disk_print_table(output_find(answer, "disks"));
    return 0;
}

/* ---- which one is meant ------------------------------------------------------------------------------------------ */

/* By id, by the path it was given, or by another name of the same file (/dev/disk/by-id/… and /dev/sdb). */
static bool is_meant(const json_t *disk, const char *name, const char *path, const char *real)
{
    char other[PATH_MAX];
    const char *its = disk_name(disk);
    if (!strcmp(output_text(disk, "id", ""), name) || !strcmp(its, path))
        return true;
    return real && realpath(its, other) && !strcmp(other, real);
}

static int find_disk(const struct cli *cli, const char *name, json_t **ret_disk, struct err *err)
{
    json_owner json_t *answer = NULL;
    char path[CLI_PATH_MAX], resolved[PATH_MAX];
    size_t index;
    json_t *disk;
    int result = cli_absolute_path(path, name, err);
    if (result == 0)
        result = client_ask(cli, &client_storaged, "disk.list", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    const char *real = realpath(path, resolved);
    json_array_foreach(output_find(answer, "disks"), index, disk)
    {
        if (!is_meant(disk, name, path, real))
            continue;
        *ret_disk = json_incref(disk);
        return 0;
    }
    return err_set(err, -ENOENT, "not_found",
                   "disk '%.200s': the pool has none of that path or id; `hcictl disk list` shows all", name);
}

/* ---- the verbs --------------------------------------------------------------------------------------------------- */

/* "path", "file_bytes" and "force" of a new disk. */
static int new_disk(struct cli *cli, const char *argument, json_t *params, struct err *err)
{
    const char *size = cli_option_value(cli, "size", 0);
    char path[CLI_PATH_MAX];
    uint64_t bytes = 0;
    if (size && size_parse(size, &bytes, err) < 0)
        return cli_usage_keep(err);
    int result = cli_absolute_path(path, argument, err);
    if (result < 0)
        return result;
    json_object_set_new(params, "path", json_string(path));
    json_object_set_new(params, "file_bytes", json_integer((json_int_t)bytes));
    json_object_set_new(params, "force", json_boolean(cli_option_count(cli, "force") > 0));
    return 0;
}

int disk_add_run(struct cli *cli, struct err *err)
{
    json_owner json_t *params = json_object(), *answer = NULL;
    int result = new_disk(cli, cli->arguments[0], params, err);
    if (result == 0)
        result = client_ask(cli, &client_storaged, "disk.add", json_incref(params), DISK_FORMAT_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    printf("Disk '%s' is in the pool; new data goes to it from now on.\n", output_text(params, "path", "?"));
    return 0;
}

/* Draining has begun; `begun` is the daemon's answer. */
static int wait_until_out(struct cli *cli, const json_t *disk, json_t *begun, struct err *err)
{
    const char *path = disk_name(disk);
    bool waits = !cli_option_count(cli, "no-wait");
    int result = waits ? disk_wait_removed(cli, output_text(disk, "id", ""), path, err) : 0;
    if (result < 0)
        return result;
    if (cli->json) {
        json_object_set_new(begun, "state", json_string(waits ? "removed" : "draining"));
        return output_json(json_incref(begun), err);
    }
    if (waits && cli_option_count(cli, "lost"))
        printf("Disk '%s' is out of the pool; what only it held is lost.\n", path);
    else if (waits)
        printf("Disk '%s' is empty and out of the pool; it may be taken away.\n", path);
    else
        printf("Disk '%s' is being drained; `hcictl disk list` shows how far it is.\n", path);
    return 0;
}

/* A pool that does not open lists no disks; the id that its sentence names is taken as it is. */
static int find_lost_disk(const struct cli *cli, const char *name, json_t **ret_disk, struct err *err)
{
    struct id id;
    int result = find_disk(cli, name, ret_disk, err);
    if (result == 0 || strcmp(err->code, "missing_disks") || !cli_option_count(cli, "lost") || id_parse(name, &id) < 0)
        return result;
    *ret_disk = json_pack("{s:s, s:s}", "id", name, "path", name);
    return 0;
}

int disk_remove_run(struct cli *cli, struct err *err)
{
    json_owner json_t *disk = NULL, *answer = NULL;
    int result = find_lost_disk(cli, cli->arguments[0], &disk, err);
    if (result == 0)
        result = client_ask(cli, &client_storaged, "disk.remove",
                            json_pack("{s:s, s:b}", "disk", output_text(disk, "id", ""), "lost",
                                      (int)(cli_option_count(cli, "lost") > 0)),
                            CLIENT_SLOW_MS, &answer, err);
    return result < 0 ? result : wait_until_out(cli, disk, answer, err);
}

int disk_replace_run(struct cli *cli, struct err *err)
{
    json_owner json_t *disk = NULL, *params = json_object(), *answer = NULL;
    int result = new_disk(cli, cli->arguments[1], params, err);
    if (result == 0)
        result = find_disk(cli, cli->arguments[0], &disk, err);
    if (result < 0)
        return result;
    json_object_set(params, "disk", output_find(disk, "id"));
    json_object_set_new(params, "lost", json_boolean(cli_option_count(cli, "lost") > 0));
    result = client_ask(cli, &client_storaged, "disk.replace", json_incref(params), DISK_FORMAT_MS, &answer, err);
    if (result < 0)
        return result;
    if (!cli->json)
        printf("Disk '%s' is in the pool; now what '%s' holds moves to the others.\n", output_text(params, "path", "?"),
               output_text(disk, "path", "?"));
    return wait_until_out(cli, disk, answer, err);
}
