/* One cgroup2 folder per guest: hci-quorumd freezes it, a kill of it leaves no process behind (R11). */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

#define CGROUP_PATH_MAX 256u

/* Makes the root folder. Refuses one that is not on a cgroup2 file system. */
int cgroup_prepare(const char *root, struct err *err);
/* "ROOT/NAME"; names are checked by domain_xml_check_name before they come here. */
void cgroup_path(const char *root, const char *name, char ret[static CGROUP_PATH_MAX]);
/* Makes the folder of a guest and moves the process with all its threads there. */
int cgroup_add(const char *root, const char *name, pid_t pid, struct err *err);
/* SIGKILL to everything in it, also when frozen; returns at once. -ENOENT when there is no such folder. */
int cgroup_kill(const char *root, const char *name);
/* -ENOENT when there is no such folder. */
int cgroup_state(const char *root, const char *name, bool *ret_populated, bool *ret_frozen);
/* -EBUSY while a process is in it; 0 when it is not there. */
int cgroup_remove(const char *root, const char *name);
/* Calls `found` for each guest folder of the root. */
int cgroup_list(const char *root, void (*found)(const char *name, void *userdata), void *userdata);
