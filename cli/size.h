/* Sizes as people write and read them: binary units, whole numbers in, one decimal out. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define SIZE_TEXT_MAX 32

/* "10G", "512M", "1T", "64K" (also lower case, and "10GiB"): 1G is 2^30. Anything else, zero, or more than 2^62 is
 * refused with a sentence; -EINVAL, *ret_bytes untouched. */
int size_parse(const char *text, uint64_t *ret_bytes, struct err *err);
/* "10 GiB", "7.4 GiB", "512 B"; returns `text`. */
const char *size_format(uint64_t bytes, char text[static SIZE_TEXT_MAX]);
