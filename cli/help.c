/* Help for people, generated from the verb table so that it cannot lag behind it. */
#include "cli/help.h"

#include <stdio.h>
#include <string.h>

#define HELP_COLUMN 34

static void print_verb_line(FILE *file, const struct cli_verb *verb)
{
    char left[128];
    snprintf(left, sizeof left, "%s%s%s%s%s", verb->noun, verb->name ? " " : "", verb->name ? verb->name : "",
             verb->arguments[0] ? " " : "", verb->arguments);
    fprintf(file, "  %-*s%s\n", HELP_COLUMN, left, verb->help);
}

static void print_options(FILE *file, const struct cli_option *option)
{
    for (; option && option->name; option++) {
        char left[128];
        snprintf(left, sizeof left, "--%s%s%s", option->name, option->value ? " " : "",
                 option->value ? option->value : "");
        fprintf(file, "  %-*s%s%s\n", HELP_COLUMN, left, option->help, option->most > 1 ? " (may be repeated)" : "");
    }
}

static void print_exit_codes(FILE *file)
{
    fputs("\nExit codes: 0 done; 1 refused or failed; 2 the command line is wrong;\n"
         "            3 a daemon is not running or the other host cannot be reached.\n", file);
}

void help_all(FILE *file)
{
    fputs("hcictl: storage of a node that stands alone, or of a pair that mirrors it, with guests that survive the loss\n"
          "of one node.\n\n", file);
    for (const struct cli_verb *verb = cli_verbs; verb->noun; verb++) {
        if (verb != cli_verbs && strcmp(verb->noun, verb[-1].noun))
            fputc('\n', file);
        print_verb_line(file, verb);
    }
    fputs("\nEverywhere:\n", file);
    print_options(file, cli_global_options);
    print_exit_codes(file);
}

void help_noun(FILE *file, const char *noun)
{
    for (const struct cli_verb *verb = cli_verbs; verb->noun; verb++)
        if (!strcmp(verb->noun, noun))
            print_verb_line(file, verb);
    fprintf(file, "\n`hcictl %s VERB --help` says more.\n", noun);
}

void help_verb(FILE *file, const struct cli_verb *verb)
{
    fprintf(file, "hcictl %s%s%s%s%s%s\n\n  %s\n", verb->noun, verb->name ? " " : "", verb->name ? verb->name : "",
           verb->arguments[0] ? " " : "", verb->arguments, verb->options ? " [OPTION...]" : "", verb->help);
    if (verb->options) {
        fputs("\nOptions:\n", file);
        print_options(file, verb->options);
    }
    fputs("\nEverywhere:\n", file);
    print_options(file, cli_global_options);
    print_exit_codes(file);
}
