/* What `hci-witnessd --…` does beside serving: asks the running daemon, or handles its store while none runs. */
#pragma once

#include "common/err.h"

/* Each prints what it did. The first three ask the daemon whose control socket is in `run_folder`. */
int errand_alert_test(const char *run_folder, struct err *err);
int errand_forget(const char *run_folder, const char *cluster, struct err *err);
/* The finished copy is durable at `file` afterwards. */
int errand_backup(const char *run_folder, const char *file, struct err *err);
int errand_restore(const char *state_folder, const char *file, struct err *err);
