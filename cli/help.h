/* Help for people, generated from the verb table. */
#pragma once

#include <stdio.h>

#include "cli/cli.h"

/* To stdout when it was asked for, to stderr when the command line was wrong. */
void help_all(FILE *file);
void help_noun(FILE *file, const char *noun);
void help_verb(FILE *file, const struct cli_verb *verb);
