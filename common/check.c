/* Ends the process when a programmer's assumption does not hold. */
#include "common/check.h"

#include <stdlib.h>

#include "common/log.h"

_Noreturn void check_failed(const char *expression, const char *file, int line, const char *function)
{
    log_error("check failed: %s at %s:%d in %s; this is a defect of the program, it stops rather than go on wrongly",
              expression, file, line, function);
    abort();
}
