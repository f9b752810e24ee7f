/* Secrets that a person types or a program pipes in; never on a command line, which every user of the host can read. */
#pragma once

#include <stddef.h>

#include "common/err.h"

#define PASSWORD_MAX 128

/* Reads one secret from the terminal, twice, without showing it. `whose` names it in the prompt. Wipe it. */
int password_ask(const char *whose, char ret[static PASSWORD_MAX], struct err *err);
/* Reads the first `count` lines of a file, or of stdin ("-"), as secrets. Refuses a file that others may read. Wipe
 * them. */
int password_read(const char *path, char (*ret)[PASSWORD_MAX], unsigned count, struct err *err);
