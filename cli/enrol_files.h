/* The files that make a host a node: where they are, that none is overwritten, that a failed enrolment leaves none. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "cli/cli.h"
#include "common/site.h"

#define ENROL_FILES_MAX 12

struct enrol_files {
    char config[CLI_PATH_MAX];     /* hci.conf, written last: with it the host is a node */
    char secrets[CLI_PATH_MAX];    /* 0600 */
    char pki_folder[CLI_PATH_MAX]; /* 0700 */
    char ca_certificate[CLI_PATH_MAX], node_certificate[CLI_PATH_MAX];
    char node_key[CLI_PATH_MAX], ca_key[CLI_PATH_MAX]; /* 0600 */
    char corosync_folder[CLI_PATH_MAX];
    char corosync_conf[CLI_PATH_MAX], corosync_before[CLI_PATH_MAX];
    char corosync_authkey[CLI_PATH_MAX]; /* 0400 */
    char state_folder[CLI_PATH_MAX];     /* 0700 */
    char join[CLI_PATH_MAX];             /* join.json, see join_state.h */
    unsigned made_count;
    const char *made[ENROL_FILES_MAX]; /* for undo */
};

/* Fills the paths for this host from --config-folder, --corosync-folder and `state_folder`. */
int enrol_files_plan(const struct cli *cli, const char *state_folder, struct enrol_files *ret, struct err *err);
/* -EEXIST with the remedy when this host carries anything of a cluster. */
int enrol_files_refuse_existing(const struct enrol_files *files, bool with_corosync, struct err *err);
int enrol_files_make_folders(const struct enrol_files *files, struct err *err);
/* Those of a node that stands alone: neither pki/ nor corosync's. */
int enrol_files_make_own_folders(const struct enrol_files *files, struct err *err);
/* Writes one file durably and remembers it. `path` must be one of *files. */
int enrol_files_write(struct enrol_files *files, const char *path, const void *data, size_t size, mode_t mode,
                      struct err *err);
/* Remembers a file that another function writes. */
void enrol_files_will_make(struct enrol_files *files, const char *path);
/* corosync.conf and authkey; the distribution's corosync.conf is kept as corosync.conf.before-hci. */
int enrol_files_write_corosync(struct enrol_files *files, const char *conf, const void *authkey, size_t authkey_size,
                               struct err *err);
/* Writes hci.conf; a watchdog period that is the profile's is left out, so that it follows the profile. */
int enrol_files_write_config(const struct enrol_files *files, const struct site *site, struct err *err);
/* Removes what was written, newest first, so that the command can be given again. */
void enrol_files_undo(struct enrol_files *files);

/* The paths that hci.conf names for this host: pki, state and run folder. -ENAMETOOLONG with a sentence. */
int enrol_site_set_folders(const struct cli *cli, struct site *site, struct err *err);
/* --watchdog-device or --watchdog-socket of init and join into the site. */
int enrol_site_set_watchdog(const struct cli *cli, struct site *site, struct err *err);
