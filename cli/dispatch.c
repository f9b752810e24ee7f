/* From a command line to a verb of the table: options, arguments, help, exit code. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/help.h"
#include "common/check.h"
#include "common/site.h"

/* errno for "the command line is wrong": none that a daemon, a file or a socket gives back. */
#define USAGE_ERRNO EDESTADDRREQ

int cli_usage(struct err *err, const char *format, ...)
{
    char text[sizeof err->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return err_set(err, -USAGE_ERRNO, "usage", "%s", text);
}

int cli_usage_keep(struct err *err)
{
    snprintf(err->code, sizeof err->code, "usage");
    return -USAGE_ERRNO;
}

unsigned cli_option_count(const struct cli *cli, const char *name)
{
    for (unsigned i = 0; i < cli->option_count; i++)
        if (!strcmp(cli->options[i].option->name, name))
            return cli->options[i].count;
    return 0;
}

const char *cli_option_value(const struct cli *cli, const char *name, unsigned index)
{
    for (unsigned i = 0; i < cli->option_count; i++)
        if (!strcmp(cli->options[i].option->name, name))
            return index < cli->options[i].count ? cli->options[i].values[index] : NULL;
    return NULL;
}

const char *cli_option_or(const struct cli *cli, const char *name, const char *otherwise)
{
    const char *value = cli_option_value(cli, name, 0);
    return value ? value : otherwise;
}

int cli_path(char ret_path[static CLI_PATH_MAX], const char *folder, const char *file, struct err *err)
{
    if (snprintf(ret_path, CLI_PATH_MAX, "%s/%s", folder, file) >= CLI_PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "invalid", "folder '%s': the path is too long; use a shorter one", folder);
    return 0;
}

void cli_hide_argument(struct cli *cli, unsigned index)
{
    check(index < cli->argument_count);
    memset(cli->arguments[index], '*', strlen(cli->arguments[index]));
}

const char *cli_config_folder(const struct cli *cli) { return cli_option_or(cli, "config-folder", "/etc/hci"); }
const char *cli_corosync_folder(const struct cli *cli)
{
    return cli_option_or(cli, "corosync-folder", "/etc/corosync");
}

int cli_load_site(const struct cli *cli, struct site *ret, struct err *err)
{
    char path[CLI_PATH_MAX];
    int result = cli_path(path, cli_config_folder(cli), "hci.conf", err);
    if (result < 0)
        return result;
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return err_set(err, -ENOENT, "no_cluster",
                       "%s: this host is in no cluster yet; run `hcictl cluster init` on the first node or "
                       "`hcictl cluster join` on the second", path);
    return site_load(path, ret, err);
}

int cli_load_pair(const struct cli *cli, const char *what, struct site *ret, struct err *err)
{
    int result = cli_load_site(cli, ret, err);
    if (result == 0 && ret->standalone)
        return err_set(err, -ENOTSUP, "standalone",
                       "node '%s' stands alone, and %s is for pairs; a second node cannot be added to it in this "
                       "version", ret->nodes[0].name, what);
    return result;
}

bool cli_stands_alone(const struct cli *cli)
{
    struct site site;
    struct err err;
    return cli_load_site(cli, &site, &err) == 0 && site.standalone;
}

int cli_absolute_path(char ret_path[static CLI_PATH_MAX], const char *path, struct err *err)
{
    char here[CLI_PATH_MAX];
    if (path[0] != '/' && !getcwd(here, sizeof here))
        return err_set(err, -errno, "io", "path '%s': the current folder is not known: %m; write it from the root",
                       path);
    int size = path[0] == '/' ? snprintf(ret_path, CLI_PATH_MAX, "%s", path)
                              : snprintf(ret_path, CLI_PATH_MAX, "%s/%s", here, path);
    if (size >= CLI_PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "invalid", "path '%.120s' is too long; use a shorter one", path);
    return 0;
}

static void report(const struct err *err)
{
    fprintf(stderr, "hcictl: %s\n", err->text[0] ? err->text : "failed without a reason");
}

static int exit_code_of(int result)
{
    switch (-result) {
    case USAGE_ERRNO:
        return CLI_EXIT_USAGE;
    case ECONNREFUSED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ECONNRESET:
    case EPIPE:
    case ENOTCONN:
        return CLI_EXIT_UNREACHABLE;
    default:
        return CLI_EXIT_FAILED;
    }
}

/* Adds the options of one table to the parser's. */
static void add_options(struct cli *cli, const struct cli_option *table, struct option *parser)
{
    for (; table && table->name; table++) {
        check(cli->option_count < CLI_OPTIONS_MAX);
        unsigned index = cli->option_count++;
        cli->options[index].option = table;
        parser[index] =
            (struct option){table->name, table->value ? required_argument : no_argument, NULL, (int)index + 1};
        parser[index + 1] = (struct option){0};
    }
}

static int take_option(struct cli *cli, unsigned index, const char *value, struct err *err)
{
    const struct cli_option *option = cli->options[index].option;
    unsigned most = option->most ? option->most : 1;
    check(most <= CLI_VALUES_MAX);
    if (cli->options[index].count == most && !option->value)
        return 0; /* a flag said twice says the same */
    if (cli->options[index].count == most)
        return cli_usage(err, "--%s may be given %u time%s", option->name, most, most == 1 ? "" : "s");
    cli->options[index].values[cli->options[index].count++] = value ? value : "";
    return 0;
}

static unsigned option_index(const struct cli *cli, const char *name)
{
    unsigned index = 0;
    while (strcmp(cli->options[index].option->name, name))
        check(++index < cli->option_count);
    return index;
}

/* Parses options of cli->options from argv; on success *ret_rest is the first argument that is no option. */
static int parse_options(struct cli *cli, const struct option *parser, const char *mode, int argc, char **argv,
                         int *ret_rest, struct err *err)
{
    optind = 0; /* glibc: starts over */
    opterr = 0;
    for (;;) {
        int found = getopt_long(argc, argv, mode, parser, NULL);
        if (found == -1)
            break;
        if (found == ':')
            return cli_usage(err, "option '%s' needs a value", argv[optind - 1]);
        if (found == '?' && optopt >= ' ')
            return cli_usage(err, "option '-%c' is not known here", optopt);
        if (found == '?')
            return cli_usage(err, "option '%s' is not known here", argv[optind - 1]);
        unsigned index = found == 'h' ? option_index(cli, "help") : (unsigned)found - 1;
        int result = take_option(cli, index, optarg, err);
        if (result < 0)
            return result;
    }
    *ret_rest = optind;
    return 0;
}

static const struct cli_verb *find_verb(const char *noun, const char *name)
{
    for (const struct cli_verb *verb = cli_verbs; verb->noun; verb++)
        if (!strcmp(verb->noun, noun) && (!verb->name || (name && !strcmp(verb->name, name))))
            return verb;
    return NULL;
}

static bool noun_is_known(const char *noun)
{
    for (const struct cli_verb *verb = cli_verbs; verb->noun; verb++)
        if (!strcmp(verb->noun, noun))
            return true;
    return false;
}

static int check_arguments(const struct cli *cli, struct err *err)
{
    const struct cli_verb *verb = cli->verb;
    if (cli->argument_count < verb->least)
        return cli_usage(err, "%s%s%s needs %s", verb->noun, verb->name ? " " : "", verb->name ? verb->name : "",
                         verb->arguments);
    if (cli->argument_count > verb->most)
        return cli_usage(err, "'%s' is one argument too many", cli->arguments[verb->most]);
    return 0;
}

static int fail(const struct cli *cli, int result, const struct err *err)
{
    report(err);
    if (exit_code_of(result) == CLI_EXIT_USAGE)
        fprintf(stderr, "hcictl: `hcictl %s%s%s%s--help` says how it is used\n", cli->verb ? cli->verb->noun : "",
                cli->verb ? " " : "", cli->verb && cli->verb->name ? cli->verb->name : "",
                cli->verb && cli->verb->name ? " " : "");
    return exit_code_of(result);
}

static int say_version(void)
{
    printf("hcictl %s\n", HCI_VERSION);
    return CLI_EXIT_OK;
}

/* The options and arguments after the verb; `argv[0]` is the verb's own word. */
static int run_verb(struct cli *cli, int argc, char **argv)
{
    struct option parser[CLI_OPTIONS_MAX + 1] = {0};
    struct err err = {0};
    unsigned globals = cli->option_count;
    cli->option_count = 0;
    add_options(cli, cli_global_options, parser);
    check(cli->option_count == globals);
    add_options(cli, cli->verb->options, parser);

    int rest = 0;
    int result = parse_options(cli, parser, ":h", argc, argv, &rest, &err);
    if (result < 0)
        return fail(cli, result, &err);
    if (cli_option_count(cli, "version"))
        return say_version();
    if (cli_option_count(cli, "help")) {
        help_verb(stdout, cli->verb);
        return CLI_EXIT_OK;
    }
    cli->json = cli_option_count(cli, "json") > 0;
    cli->arguments = argv + rest;
    cli->argument_count = (unsigned)(argc - rest);
    result = check_arguments(cli, &err);
    if (result == 0)
        result = cli->verb->run(cli, &err);
    if (result < 0)
        return fail(cli, result, &err);
    return cli->exit_code;
}

int cli_main(int argc, char **argv)
{
    struct cli cli = {0};
    struct err err = {0};
    struct option parser[CLI_OPTIONS_MAX + 1] = {0};
    add_options(&cli, cli_global_options, parser);

    int rest = 0;
    int result = parse_options(&cli, parser, "+:h", argc, argv, &rest, &err);
    if (result < 0)
        return fail(&cli, result, &err);
    if (cli_option_count(&cli, "version"))
        return say_version();
    FILE *file = cli_option_count(&cli, "help") ? stdout : stderr;
    if (rest == argc || file == stdout) {
        if (rest < argc && noun_is_known(argv[rest]))
            help_noun(file, argv[rest]);
        else
            help_all(file);
        return file == stdout ? CLI_EXIT_OK : CLI_EXIT_USAGE;
    }
    const char *noun = argv[rest], *name = rest + 1 < argc ? argv[rest + 1] : NULL;
    cli.verb = find_verb(noun, name);
    if (cli.verb)
        return run_verb(&cli, argc - rest - (cli.verb->name ? 1 : 0), argv + rest + (cli.verb->name ? 1 : 0));
    if (!noun_is_known(noun))
        return fail(&cli, cli_usage(&err, "'%s' is not known", noun), &err);
    bool is_asked = name && (!strcmp(name, "--help") || !strcmp(name, "-h"));
    help_noun(is_asked ? stdout : stderr, noun);
    if (name && !is_asked)
        fprintf(stderr, "hcictl: '%s' is no verb of '%s'\n", name, noun);
    return is_asked ? CLI_EXIT_OK : CLI_EXIT_USAGE;
}
