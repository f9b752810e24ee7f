/* Waits until a disk is drained and out of the pool, and shows how far it is. */
#pragma once

#include "cli/cli.h"

/* Shows progress on stdout unless --json. 0 when the disk `id` has left the pool. -EINTR with a sentence when the
 * person interrupts: the draining goes on. -EIO when it ended otherwise. `path` is what it is called. */
int disk_wait_removed(const struct cli *cli, const char *id, const char *path, struct err *err);
