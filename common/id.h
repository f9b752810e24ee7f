/* A 128-bit identity (node, cluster, group, volume, session): a random UUID. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct id {
    uint8_t bytes[16];
};

#define ID_TEXT_SIZE 37 /* 36 characters and the terminating NUL */

struct id id_random(void);
bool id_is_null(const struct id *id);
bool id_equal(const struct id *left, const struct id *right);
/* memcmp order: decides which of two nodes comes first wherever a tie must be broken. */
int id_compare(const struct id *left, const struct id *right);
/* Writes the canonical lower-case text and returns `text`. */
const char *id_format(const struct id *id, char text[static ID_TEXT_SIZE]);
/* 0, or -EINVAL with *ret untouched when text is not a canonical UUID. */
int id_parse(const char *text, struct id *ret);
