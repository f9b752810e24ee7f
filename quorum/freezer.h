/* Freezes and thaws a guest's cgroup2 folder and reads back what the kernel says. */
#pragma once

#include "quorum/freeze_core.h"

/* 0 or a negative errno; -ENOENT when the folder is gone. */
int freezer_order(const char *cgroup, bool freeze);
/* FREEZE_FROZEN only when the kernel says "frozen 1" (an empty folder too: what enters it later is frozen); FREEZE_GONE
 * when the folder is gone; otherwise, and when it cannot be read, FREEZE_RUNNING. */
enum freeze_state freezer_read(const char *cgroup);
