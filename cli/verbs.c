/* The table of everything hcictl can do; dispatch and every help text come from it. */
#include "cli/cli.h"

#include <stddef.h>

#include "cli/secret.h"

const struct cli_option cli_global_options[] = {
    {"json", NULL, 0, "answer with one JSON document on stdout, for programs"},
    {"config-folder", "DIR", 0, "where hci.conf, secrets.conf and pki/ are (default /etc/hci)"},
    {"corosync-folder", "DIR", 0, "where corosync.conf and authkey are (default /etc/corosync)"},
    {"state-folder", "DIR", 0, "durable state (default: hci.conf's, /var/lib/hci)"},
    {"run-folder", "DIR", 0, "the daemons' sockets (default: hci.conf's, /run/hci)"},
    {"help", NULL, 0, "say what the command does and what it needs"},
    {"version", NULL, 0, "say which version this is"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option cluster_init_options[] = {
    {"name", "NAME", 0, "the cluster's name: letters, digits, dashes"},
    {"node", "NAME=IP[,IP...]", 2,
     "a node and its address on each link; this host first, links in the same order; one alone: no mirror"},
    {"profile", "fast|default|slow", 0, "how quickly a silent node is given up (default: default)"},
    {"portal", "ADDR:PORT", 8, "where the iSCSI target listens (default 127.0.0.1:3260)"},
    {"watchdog-device", "PATH", 0, "the hardware watchdog that resets a node that hangs, such as /dev/watchdog"},
    {"watchdog-socket", "PATH", 0, "a watchdog behind a unix socket, for test sites"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option cluster_invite_options[] = {
    {"listen", "ADDR[:PORT]", 0, "where to wait for the other node (default: this node's first link, port 7204)"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option cluster_join_options[] = {
    {"watchdog-device", "PATH", 0, "this host's hardware watchdog, when it differs from the first node's"},
    {"watchdog-socket", "PATH", 0, "this host's watchdog behind a unix socket, for test sites"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option pool_create_options[] = {
    {"size", "SIZE", 0, "size of each path that is a file to be made, such as 100G"},
    {"force", NULL, 0, "use a disk that carries a file system or other signature; its content is lost"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option disk_add_options[] = {
    {"size", "SIZE", 0, "size of the path when it is a file to be made, such as 100G"},
    {"force", NULL, 0, "use a disk that carries a file system or other signature; its content is lost"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option disk_remove_options[] = {
    {"lost", NULL, 0, "give up what only a failed or missing disk held; it reads as errors until written again"},
    {"no-wait", NULL, 0, "return as soon as draining has begun; without it progress is shown until it is over"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option disk_replace_options[] = {
    {"size", "SIZE", 0, "size of the new path when it is a file to be made, such as 100G"},
    {"force", NULL, 0, "use a new disk that carries a file system or other signature; its content is lost"},
    {"lost", NULL, 0, "give up what only a failed or missing disk held; it reads as errors until written again"},
    {"no-wait", NULL, 0, "return as soon as draining has begun; without it progress is shown until it is over"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option volume_grow_options[] = {
    {"size", "SIZE", 0, "the new size, such as 20G; a volume never shrinks"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option target_acl_options[] = {
    {"add", "IQN", 8, "let this initiator in, and nobody who is not listed"},
    {"remove", "IQN", 8, "take this initiator from the list; when the list is empty nobody is let in"},
    {"any", NULL, 0, "no list: let every initiator in that reaches a portal and passes CHAP, if that is set"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option target_chap_options[] = {
    {"user", "NAME", 0, "the initiator proves that it knows the secret of this user"},
    {"mutual-user", "NAME", 0, "the target proves that it knows the secret of this one (mutual CHAP)"},
    {"secret-file", "FILE", 0, "first line: the user's secret, second: the mutual user's; '-' is stdin (default: ask)"},
    {"off", NULL, 0, "no password: whoever the initiator list lets in may use the volume"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option volume_create_options[] = {
    {"size", "SIZE", 0, "such as 512M, 10G, 1T (binary: 1G is 1 GiB)"},
    {"group", "NAME", 0, "put it into this group, so that it moves with the group's other volumes"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option vm_add_options[] = {
    {"xml", "FILE", 0, "the libvirt domain; its disks name volumes (docs/operations.md shows one)"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option vm_stop_options[] = {
    {"force", NULL, 0, "end it at once instead of asking its operating system to shut down"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option status_options[] = {
    {"check", NULL, 0, "exit with 1 when anything is degraded"},
    {NULL, NULL, 0, NULL},
};

static const struct cli_option events_options[] = {
    {"follow", NULL, 0, "go on until interrupted; without it only the present state is told"},
    {NULL, NULL, 0, NULL},
};

const struct cli_verb cli_verbs[] = {
    {"cluster", "init", "", 0, 0, cluster_init_options, cluster_init_run,
     "make a new cluster on this host, the first of two, or a node that stands alone"},
    {"cluster", "invite", "", 0, 0, cluster_invite_options, cluster_invite_run,
     "on the first node: print a token and let the second node join, once"},
    {"cluster", "join", "ADDR[:PORT] TOKEN", 2, 2, cluster_join_options, cluster_join_run,
     "on the second node: join the cluster that printed the token"},
    {"cluster", "show", "", 0, 0, NULL, cluster_show_run, "show this host's configuration (no secrets)"},
    {"witness", "token", "", 0, 0, NULL, witness_token_run,
     "on the witness host: print a token with which one cluster may enrol"},
    {"witness", "enroll", "ADDR[:PORT] TOKEN", 2, 2, NULL, witness_enroll_run,
     "on the first node, before the second joins: make this witness the cluster's"},
    {"witness", "show", "", 0, 0, NULL, witness_show_run, "say which witness decides and whether it answers"},
    {"witness", "rekey", "TOKEN", 1, 1, NULL, witness_rekey_run,
     "give this node fresh keys for its witness; the old ones are good until the new are used"},
    {"pool", "create", "PATH...", 1, 16, pool_create_options, pool_create_run,
     "give disks or files of this node to the storage pool"},
    {"pool", "show", "", 0, 0, NULL, pool_show_run, "show this node's pool and its disks"},
    {"disk", "list", "", 0, 0, NULL, disk_list_run, "list the pool's disks, their state and their errors"},
    {"disk", "add", "PATH", 1, 1, disk_add_options, disk_add_run, "enlarge this node's pool by a disk or file"},
    {"disk", "remove", "DISK", 1, 1, disk_remove_options, disk_remove_run,
     "move what a disk (path or id) holds to the others, then let it go"},
    {"disk", "replace", "DISK PATH", 2, 2, disk_replace_options, disk_replace_run,
     "add the disk PATH, then remove DISK"},
    {"volume", "create", "NAME", 1, 1, volume_create_options, volume_create_run, "make a volume, mirrored in a pair"},
    {"volume", "list", "", 0, 0, NULL, volume_list_run, "list the volumes"},
    {"volume", "show", "NAME", 1, 1, NULL, volume_show_run, "show one volume"},
    {"volume", "grow", "NAME", 1, 1, volume_grow_options, volume_grow_run,
     "make a volume larger while it is in use"},
    {"volume", "delete", "NAME", 1, 1, NULL, volume_delete_run, "delete a volume and its data, on both nodes of a pair"},
    {"target", "show", "NAME", 1, 1, NULL, target_show_run,
     "show how a volume is reached over iSCSI, who may, and who does"},
    {"target", "acl", "NAME", 1, 1, target_acl_options, target_acl_run, "say which initiators may log in"},
    {"target", "chap", "NAME", 1, 1, target_chap_options, target_chap_run, "set the passwords of a target (CHAP)"},
    {"vm", "add", "NAME", 1, 1, vm_add_options, vm_add_run, "protect a guest: keep its definition with its volumes"},
    {"vm", "start", "NAME", 1, 1, NULL, vm_start_run, "start a guest"},
    {"vm", "stop", "NAME", 1, 1, vm_stop_options, vm_stop_run, "stop a guest and keep it stopped"},
    {"vm", "list", "", 0, 0, NULL, vm_list_run, "list the guests"},
    {"vm", "show", "NAME", 1, 1, secret_options, vm_show_run, "show one guest"},
    {"vm", "remove", "NAME", 1, 1, NULL, vm_remove_run, "no longer protect a stopped guest; its volumes stay"},
    {"group", "list", "", 0, 0, NULL, group_list_run, "list the units of authority: who serves what"},
    {"group", "meta", "NAME", 1, 1, secret_options, group_meta_run,
     "show what is kept with a group: guest, owner, access"},
    {"status", NULL, "", 0, 0, status_options, status_run, "the whole site on one screen, and what to do"},
    {"events", NULL, "", 0, 0, events_options, events_run, "what the daemons of this node say as it happens"},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL},
};
