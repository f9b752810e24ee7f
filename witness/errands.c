/* The operator's errands at the witness: alert test, backup and restore, forgetting a cluster. */
#include "witness/errands.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/control.h"
#include "witness/store.h"

#define QUICK_MS 5000
#define BACKUP_MS 600000

static int ask(const char *run_folder, const char *method, json_t *params, int timeout_ms, json_t **ret, struct err *err)
{
    char path[256];
    if ((size_t)snprintf(path, sizeof path, "%s/witnessd.sock", run_folder) >= sizeof path) {
        json_decref(params);
        return err_set(err, -ENAMETOOLONG, "invalid", "run folder '%s': the path is too long", run_folder);
    }
    return control_call(path, "hci-witnessd", method, params, timeout_ms, ret, err);
}

int errand_alert_test(const char *run_folder, struct err *err)
{
    json_t *answer = NULL;
    int error = ask(run_folder, "alert.test", NULL, QUICK_MS, &answer, err);
    if (error == 0)
        puts(json_string_value(json_object_get(answer, "text")));
    json_decref(answer);
    return error;
}

int errand_forget(const char *run_folder, const char *cluster, struct err *err)
{
    json_t *answer = NULL;
    int error = ask(run_folder, "cluster.forget", json_pack("{s:s}", "cluster", cluster), QUICK_MS, &answer, err);
    if (error == 0)
        printf("cluster '%s' is forgotten: its nodes are not answered any more, and it may be enrolled anew\n", cluster);
    json_decref(answer);
    return error;
}

int errand_backup(const char *run_folder, const char *file, struct err *err)
{
    json_t *answer = NULL;
    int error = ask(run_folder, "backup", NULL, BACKUP_MS, &answer, err);
    const char *copy = json_string_value(json_object_get(answer, "path"));
    if (error == 0 && copy == NULL)
        error = err_set(err, -EPROTO, "protocol", "hci-witnessd named no file; use the same version of program and daemon");
    /* The daemon may write into its own folder only; whoever asked may write where it wants. */
    if (error == 0)
        error = store_copy_out(copy, file, err);
    if (copy != NULL)
        unlink(copy);
    if (error == 0)
        printf("'%s' holds every cluster with its keys: keep it where only you read it; a store restored from it grants "
               "nothing until its clusters are enrolled anew\n", file);
    json_decref(answer);
    return error;
}

int errand_restore(const char *state_folder, const char *file, struct err *err)
{
    int error = store_restore(file, state_folder, err);
    if (error == 0)
        printf("the store is restored from '%s': when hci-witnessd runs, every cluster is known and granted nothing, because "
               "what was granted after the backup is not in it; see \"The witness's store\" in operations.md\n", file);
    return error;
}
