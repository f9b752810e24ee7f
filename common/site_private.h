/* What the parts of common/site*.c share. Private to them. */
#pragma once

#include "common/site.h"

#define SITE_DEFAULT_PROFILE "default"
#define SITE_DEFAULT_WITNESS_PORT 7203
#define SITE_DEFAULT_QUORUM_PORT 7202
#define SITE_DEFAULT_MIRROR_PORT 7201
#define SITE_DEFAULT_PORTAL "127.0.0.1:3260"
#define SITE_DEFAULT_RESET_MS 300
#define SITE_DEFAULT_CGROUP_ROOT "/sys/fs/cgroup/hci-guests"
#define SITE_DEFAULT_LIBVIRT_URI "qemu:///system"
#define SITE_DEFAULT_PKI_FOLDER "/etc/hci/pki"
#define SITE_DEFAULT_STATE_FOLDER "/var/lib/hci"
#define SITE_DEFAULT_RUN_FOLDER "/run/hci"

#define SITE_FILE_MAX (64u * 1024)

/* Whether a configuration makes sense, whoever made it: the file or enrolment. `path` only names it in the error. */
int site_check(const char *path, const struct site *site, struct err *err);
