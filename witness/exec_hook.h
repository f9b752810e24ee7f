/* Runs an operator's program for each alert. */
#pragma once

#include "witness/courier.h"

#define EXEC_HOOK_TIMEOUT_S 30

struct exec_hook {
    char path[256]; /* absolute */
};

/* A courier_deliver; userdata: struct exec_hook. The program gets KIND, "raised" or "ended", SITE and NODE as arguments
 * (arguments are seen by everybody on the host: no sentence, no secret), the JSON document on its standard input, and no
 * environment but PATH. It is delivered when it ends with 0; after the time limit its whole process group is killed. */
int exec_hook_deliver(const struct alert *alert, const atomic_bool *stopping, void *userdata, struct err *err);
