/* What every verb of hcictl gets: its arguments and options, where the files and sockets are, how to answer. */
#pragma once

#include <stdbool.h>

#include "common/err.h"

#define CLI_PATH_MAX 256
#define CLI_OPTIONS_MAX 16 /* of one verb, the global ones included */
#define CLI_VALUES_MAX 8   /* of one option that may be repeated */

/* Exit codes, documented by --help and README.md. */
enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1,      /* the operation was refused or failed */
    CLI_EXIT_USAGE = 2,       /* the command line is wrong; nothing was tried */
    CLI_EXIT_UNREACHABLE = 3, /* a daemon is not running, or the other host cannot be reached */
};

struct cli_option {
    const char *name;  /* without the dashes; NULL ends a table */
    const char *value; /* what help calls the value; NULL: a flag */
    unsigned most;     /* how often it may be given; 0 means once */
    const char *help;
};

struct cli;

struct cli_verb {
    const char *noun; /* NULL ends the table */
    const char *name; /* NULL when the noun is the whole command ("status") */
    const char *arguments;
    unsigned least, most; /* how many arguments */
    const struct cli_option *options;
    /* 0, or a negative errno with a sentence in err. -EDESTADDRREQ is reserved for wrong usage (exit 2). */
    int (*run)(struct cli *cli, struct err *err);
    const char *help;
};

struct cli {
    const struct cli_verb *verb;
    bool json;
    unsigned argument_count;
    char **arguments;
    unsigned option_count;
    struct {
        const struct cli_option *option;
        unsigned count;
        const char *values[CLI_VALUES_MAX]; /* "" for a flag */
    } options[CLI_OPTIONS_MAX];
    int exit_code; /* what to exit with when run() succeeded; status --check sets it */
};

/* The table that drives dispatch and help, in the order of the help; ends with a NULL noun. */
extern const struct cli_verb cli_verbs[];
extern const struct cli_option cli_global_options[];

/* Runs one command line; returns an exit code. */
int cli_main(int argc, char **argv);

/* How often the option was given, and its value (NULL when fewer were given). */
unsigned cli_option_count(const struct cli *cli, const char *name);
const char *cli_option_value(const struct cli *cli, const char *name, unsigned index);
/* The first value, or `otherwise`. */
const char *cli_option_or(const struct cli *cli, const char *name, const char *otherwise);

/* Overwrites an argument that is a secret: other users of the host can read the command line of a process. */
void cli_hide_argument(struct cli *cli, unsigned index);

/* One sentence for a wrong command line; returns what run() shall return (exit 2). */
int cli_usage(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for the sentence that err already holds. */
int cli_usage_keep(struct err *err);

/* Where the configuration lives: --config-folder or /etc/hci. The other folders come from --corosync-folder,
 * --state-folder, --run-folder, else from hci.conf, else from the defaults. */
struct site;
int cli_path(char ret_path[static CLI_PATH_MAX], const char *folder, const char *file, struct err *err);
const char *cli_config_folder(const struct cli *cli);
const char *cli_corosync_folder(const struct cli *cli);
/* Loads hci.conf of this host; says "this host is in no cluster" with the remedy when there is none. */
int cli_load_site(const struct cli *cli, struct site *ret, struct err *err);
/* The same, and refuses a node that stands alone: `what` is "a witness" or "an invitation", which only a pair has. */
int cli_load_pair(const struct cli *cli, const char *what, struct site *ret, struct err *err);
/* Does this host's hci.conf name one node only? False when there is none. */
bool cli_stands_alone(const struct cli *cli);
/* Completes a path that does not begin at the root: a daemon has another working folder. */
int cli_absolute_path(char ret_path[static CLI_PATH_MAX], const char *path, struct err *err);

/* The verbs, one file per noun (cluster: one per verb). */
int cluster_init_run(struct cli *cli, struct err *err);
int cluster_invite_run(struct cli *cli, struct err *err);
int cluster_join_run(struct cli *cli, struct err *err);
int cluster_show_run(struct cli *cli, struct err *err);
int witness_token_run(struct cli *cli, struct err *err);
int witness_enroll_run(struct cli *cli, struct err *err);
int witness_show_run(struct cli *cli, struct err *err);
int witness_rekey_run(struct cli *cli, struct err *err);
int pool_create_run(struct cli *cli, struct err *err);
int pool_show_run(struct cli *cli, struct err *err);
int disk_add_run(struct cli *cli, struct err *err);
int disk_list_run(struct cli *cli, struct err *err);
int disk_remove_run(struct cli *cli, struct err *err);
int disk_replace_run(struct cli *cli, struct err *err);
int volume_create_run(struct cli *cli, struct err *err);
int volume_list_run(struct cli *cli, struct err *err);
int volume_show_run(struct cli *cli, struct err *err);
int volume_grow_run(struct cli *cli, struct err *err);
int volume_delete_run(struct cli *cli, struct err *err);
int target_show_run(struct cli *cli, struct err *err);
int target_acl_run(struct cli *cli, struct err *err);
int target_chap_run(struct cli *cli, struct err *err);
int vm_add_run(struct cli *cli, struct err *err);
int vm_start_run(struct cli *cli, struct err *err);
int vm_stop_run(struct cli *cli, struct err *err);
int vm_list_run(struct cli *cli, struct err *err);
int vm_show_run(struct cli *cli, struct err *err);
int vm_remove_run(struct cli *cli, struct err *err);
int group_list_run(struct cli *cli, struct err *err);
int group_meta_run(struct cli *cli, struct err *err);
int status_run(struct cli *cli, struct err *err);
int events_run(struct cli *cli, struct err *err);
