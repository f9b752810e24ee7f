/* The files that make a host a node. */
#include "cli/enrol_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/files.h"

int enrol_files_plan(const struct cli *cli, const char *state_folder, struct enrol_files *ret, struct err *err)
{
    const char *config = cli_config_folder(cli), *corosync = cli_corosync_folder(cli);
    const struct {
        char *path;
        const char *folder, *file;
    } plan[] = {
        {ret->config, config, "hci.conf"},
        {ret->secrets, config, "secrets.conf"},
        {ret->pki_folder, config, "pki"},
        {ret->ca_certificate, config, "pki/ca.crt"},
        {ret->node_certificate, config, "pki/node.crt"},
        {ret->node_key, config, "pki/node.key"},
        {ret->ca_key, config, "pki/ca.key"},
        {ret->corosync_conf, corosync, "corosync.conf"},
        {ret->corosync_before, corosync, "corosync.conf.before-hci"},
        {ret->corosync_authkey, corosync, "authkey"},
        {ret->join, state_folder, "join.json"},
    };
    memset(ret, 0, sizeof *ret);
    for (unsigned i = 0; i < sizeof plan / sizeof plan[0]; i++) {
        int result = cli_path(plan[i].path, plan[i].folder, plan[i].file, err);
        if (result < 0)
            return result;
    }
    snprintf(ret->corosync_folder, sizeof ret->corosync_folder, "%s", corosync);
    snprintf(ret->state_folder, sizeof ret->state_folder, "%s", state_folder);
    return 0;
}

int enrol_files_refuse_existing(const struct enrol_files *files, bool with_corosync, struct err *err)
{
    const char *ours[] = {files->config, files->secrets, files->ca_certificate, files->node_certificate,
                          files->node_key, files->ca_key, files->join};
    for (unsigned i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (access(ours[i], F_OK) == 0)
            return err_set(
                err, -EEXIST, "exists",
                "%s exists: this host already belongs to a cluster; `hcictl cluster show` says which, and to leave "
                "it stop the daemons and move %s, %s and %s away",
                ours[i], files->config, files->pki_folder, files->state_folder);
    if (with_corosync && access(files->corosync_authkey, F_OK) == 0)
        return err_set(err, -EEXIST, "exists",
                       "%s exists: this host already belongs to a corosync cluster; if it shall leave that one, move "
                       "this file away", files->corosync_authkey);
    return 0;
}

int enrol_files_make_own_folders(const struct enrol_files *files, struct err *err)
{
    char config_folder[CLI_PATH_MAX];
    snprintf(config_folder, sizeof config_folder, "%s", files->config);
    *strrchr(config_folder, '/') = 0;
    int result = files_make_folder(config_folder, 0755, err);
    return result == 0 ? files_make_folder(files->state_folder, 0700, err) : result;
}

int enrol_files_make_folders(const struct enrol_files *files, struct err *err)
{
    int result = enrol_files_make_own_folders(files, err);
    if (result == 0)
        result = files_make_folder(files->pki_folder, 0700, err);
    if (result == 0)
        result = files_make_folder(files->corosync_folder, 0755, err);
    return result;
}

void enrol_files_will_make(struct enrol_files *files, const char *path)
{
    check(files->made_count < ENROL_FILES_MAX);
    files->made[files->made_count++] = path;
}

int enrol_files_write(struct enrol_files *files, const char *path, const void *data, size_t size, mode_t mode,
                      struct err *err)
{
    enrol_files_will_make(files, path);
    return files_replace(path, data, size, mode, err);
}

int enrol_files_write_corosync(struct enrol_files *files, const char *conf, const void *authkey, size_t authkey_size,
                               struct err *err)
{
    unlink(files->corosync_before);
    if (link(files->corosync_conf, files->corosync_before) < 0 && errno != ENOENT)
        return err_set(err, -errno, "io", "%s: cannot keep a copy of it as %s: %m", files->corosync_conf,
                       files->corosync_before);
    int result = enrol_files_write(files, files->corosync_conf, conf, strlen(conf), 0644, err);
    if (result == 0)
        result = enrol_files_write(files, files->corosync_authkey, authkey, authkey_size, 0400, err);
    return result;
}

int enrol_files_write_config(const struct enrol_files *files, const struct site *site, struct err *err)
{
    struct site config = *site;
    if (config.watchdog_ms == config.profile.watchdog_ms)
        config.watchdog_ms = 0;
    return site_save(files->config, &config, err);
}

void enrol_files_undo(struct enrol_files *files)
{
    while (files->made_count > 0) {
        const char *path = files->made[--files->made_count];
        unlink(path);
        if (path == files->corosync_conf)
            rename(files->corosync_before, files->corosync_conf); /* nothing to do when there was none */
    }
}

static int set_folder(char *ret, size_t size, const char *folder, const char *below, struct err *err)
{
    if (folder[0] != '/')
        return err_set(err, -EINVAL, "invalid", "folder '%s': write it from the root, such as /etc/hci", folder);
    if ((size_t)snprintf(ret, size, "%s%s", folder, below) >= size)
        return err_set(err, -ENAMETOOLONG, "invalid", "folder '%s' is longer than %zu characters; use a shorter one",
                       folder, size - 1 - strlen(below));
    return 0;
}

int enrol_site_set_folders(const struct cli *cli, struct site *site, struct err *err)
{
    int result = set_folder(site->pki_folder, sizeof site->pki_folder, cli_config_folder(cli), "/pki", err);
    if (result == 0)
        result = set_folder(site->state_folder, sizeof site->state_folder,
                            cli_option_or(cli, "state-folder", "/var/lib/hci"), "", err);
    if (result == 0)
        result = set_folder(site->run_folder, sizeof site->run_folder, cli_option_or(cli, "run-folder", "/run/hci"), "",
                            err);
    return result;
}

int enrol_site_set_watchdog(const struct cli *cli, struct site *site, struct err *err)
{
    const char *device = cli_option_value(cli, "watchdog-device", 0);
    const char *socket = cli_option_value(cli, "watchdog-socket", 0);
    if (!device && !socket)
        return 0;
    if (device && socket)
        return cli_usage(err, "give --watchdog-device or --watchdog-socket, not both");
    const char *path = device ? device : socket;
    if (path[0] != '/' || strlen(path) >= sizeof site->watchdog_device)
        return cli_usage(err, "watchdog '%.120s': write a path from the root of at most %zu characters", path,
                         sizeof site->watchdog_device - 1);
    snprintf(site->watchdog_device, sizeof site->watchdog_device, "%s", device ? device : "");
    snprintf(site->watchdog_socket, sizeof site->watchdog_socket, "%s", socket ? socket : "");
    return 0;
}
