/* hcictl: one verb per operation, for people and as JSON for programs. It owns no state. */
#include <signal.h>

#include "cli/cli.h"

int main(int argc, char **argv)
{
    /* A peer that closes its end is an error to report, not a reason to die silently. */
    signal(SIGPIPE, SIG_IGN);
    return cli_main(argc, argv);
}
