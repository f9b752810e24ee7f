/* One sentence for a person, carried beside the negative errno that a function returns. */
#pragma once

#include <stdarg.h>

/* A sentence names the object, its value and the remedy:
 * "volume 'db1': size 10 GiB exceeds free space 7.4 GiB on node b; choose a smaller size". */
struct err {
    char code[24];   /* stable word for programs: "exists", "invalid", "unavailable", … */
    char text[1024]; /* the sentence, no newline, never a secret */
};

/* Fills err (which may be NULL) and returns `negative_errno` (must be < 0), so that callers write
 * `return err_set(err, -EEXIST, "exists", "volume '%s': …", name);`. */
int err_set(struct err *err, int negative_errno, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "PREFIX: " before the sentence that err already holds; returns `negative_errno`. */
int err_prefix(struct err *err, int negative_errno, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
