/* Small files that must survive a power cut: read with a limit, replaced atomically. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

struct err;

/* Reads a whole file of at most `limit` bytes into a NUL-terminated buffer that the caller frees.
 * 0, or a negative errno with a sentence in err. */
int files_read(const char *path, size_t limit, char **ret_data, size_t *ret_size, struct err *err);

/* Replaces a file durably: temporary file beside it with `mode`, write, fsync, rename, fsync of the
 * folder. After a crash either the old or the new content is there. */
int files_replace(const char *path, const void *data, size_t size, mode_t mode, struct err *err);

/* mkdir -p with `mode` for the last folder. An existing folder is fine. */
int files_make_folder(const char *path, mode_t mode, struct err *err);
