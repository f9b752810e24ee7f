/* `hcictl cluster init`: makes a cluster on the first of its two nodes: identities, CA, keys, configuration. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/corosync_conf.h"
#include "cli/enrol_files.h"
#include "cli/join_state.h"
#include "cli/output.h"
#include "cli/site_json.h"
#include "cli/text.h"
#include "common/cleanup.h"
#include "common/pki.h"
#include "common/seal.h"

static void free_secret_pointer(char **pem) { pki_free_secret(*pem); }

static int parse_links(const char *name, const char *list, struct site_node *ret, struct err *err)
{
    while (*list) {
        char text[SITE_ADDRESS_MAX];
        size_t length = strcspn(list, ",");
        if (ret->link_count == SITE_LINKS_MAX)
            return cli_usage(err, "node '%s': more than %u links; name at most so many", name, SITE_LINKS_MAX);
        if (length >= sizeof text)
            return cli_usage(err, "node '%s': '%.80s' is no IP address", name, list);
        snprintf(text, sizeof text, "%.*s", (int)length, list);
        struct address address;
        int result = address_parse("node address", text, 0, &address, err);
        if (result == 0 && (address.port != 0 || strcmp(address.host, text) != 0))
            result = -EINVAL;
        if (result < 0)
            return cli_usage(err, "node '%s': '%s' is no IP address; write --node %s=10.11.0.1,10.12.0.1", name, text,
                             name);
        snprintf(ret->links[ret->link_count++], SITE_ADDRESS_MAX, "%s", address.host);
        list += length + (list[length] == ',');
    }
    return ret->link_count
               ? 0
               : cli_usage(err, "node '%s' has no address; write --node %s=10.11.0.1,10.12.0.1", name, name);
}

/* "a=10.11.0.1,10.12.0.1" */
static int parse_node(const char *text, struct site_node *ret, struct err *err)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || (size_t)(equals - text) >= sizeof ret->name)
        return cli_usage(err, "node '%.80s': write it as NAME=IP[,IP…], such as a=10.11.0.1,10.12.0.1", text);
    *ret = (struct site_node){.id = id_random()};
    snprintf(ret->name, sizeof ret->name, "%.*s", (int)(equals - text), text);
    if (name_check("node name", ret->name, err) < 0)
        return cli_usage(err, "node name '%s': use a-z, 0-9 and dashes", ret->name);
    return parse_links(ret->name, equals + 1, ret, err);
}

/* The first --node is this host; the table is in the order of the ids (protocol: A is the lower). */
static int set_nodes(const struct cli *cli, struct site *site, struct err *err)
{
    struct site_node here, there;
    unsigned count = cli_option_count(cli, "node");
    if (count == 0)
        return cli_usage(err,
                         "name both nodes: --node a=10.11.0.1,10.12.0.1 --node b=10.11.0.2,10.12.0.2, this host first; "
                         "or one that stands alone: --node a=127.0.0.1");
    int result = parse_node(cli_option_value(cli, "node", 0), &here, err);
    if (result == 0 && count == 1) {
        site->standalone = true;
        site->nodes[0] = here;
        return 0;
    }
    if (result == 0)
        result = parse_node(cli_option_value(cli, "node", 1), &there, err);
    if (result < 0)
        return result;
    if (!strcmp(here.name, there.name))
        return cli_usage(err, "both nodes are named '%s'; give each its own name", here.name);
    if (here.link_count != there.link_count)
        return cli_usage(err,
                         "node '%s' has %u addresses and node '%s' has %u: give both the same links, in the same order",
                         here.name, here.link_count, there.name, there.link_count);
    site->self = id_compare(&here.id, &there.id) < 0 ? 0 : 1;
    site->nodes[site->self] = here;
    site->nodes[!site->self] = there;
    return 0;
}

static int set_portals(const struct cli *cli, struct site *site, struct err *err)
{
    for (unsigned i = 0; i < cli_option_count(cli, "portal"); i++) {
        struct address address;
        if (address_parse("portal", cli_option_value(cli, "portal", i), 3260, &address, err) < 0)
            return cli_usage(err, "portal '%s': write it as 127.0.0.1:3260", cli_option_value(cli, "portal", i));
        address_format(&address, site->portals[site->portal_count++], SITE_ADDRESS_MAX);
    }
    if (site->portal_count == 0)
        snprintf(site->portals[site->portal_count++], SITE_ADDRESS_MAX, "127.0.0.1:3260");
    return 0;
}

static int build_site(const struct cli *cli, struct site *site, struct err *err)
{
    const char *name = cli_option_value(cli, "name", 0);
    const char *profile = cli_option_or(cli, "profile", "default");
    *site = (struct site){.id = id_random(), .mirror_port = 7201, .quorum_port = 7202, .watchdog_reset_ms = 300};
    if (!name)
        return cli_usage(err, "give the cluster a name: --name shop17");
    if (name_check("cluster name", name, err) < 0)
        return cli_usage(err, "cluster name '%.80s': use 1 to 63 of a-z, 0-9 and dashes", name);
    if (site_profile_by_name(profile, &site->profile) < 0)
        return cli_usage(err, "profile '%.40s' is not known; choose fast, default or slow", profile);
    site->watchdog_ms = site->profile.watchdog_ms;
    snprintf(site->name, sizeof site->name, "%s", name);
    snprintf(site->cgroup_root, sizeof site->cgroup_root, "/sys/fs/cgroup/hci-guests");
    snprintf(site->libvirt_uri, sizeof site->libvirt_uri, "qemu:///system");
    int result = set_nodes(cli, site, err);
    if (result == 0)
        result = set_portals(cli, site, err);
    if (result == 0)
        result = enrol_site_set_watchdog(cli, site, err);
    if (result == 0 && site->standalone && (site->watchdog_device[0] || site->watchdog_socket[0]))
        return cli_usage(err, "a node that stands alone needs no watchdog: nobody takes its guests over; leave it out");
    if (result == 0)
        result = enrol_site_set_folders(cli, site, err);
    return result;
}

static int write_pki(struct enrol_files *files, const struct site *site, struct err *err)
{
    cleanup(free_secret_pointer) char *ca_key = NULL, *node_key = NULL;
    cleanup_free char *ca = NULL, *public_key = NULL, *certificate = NULL;
    const struct site_node *self = site_self(site);
    int result = pki_make_key(&ca_key, err);
    if (result == 0)
        result = pki_make_ca(ca_key, site->name, &ca, err);
    if (result == 0)
        result = pki_make_key(&node_key, err);
    if (result == 0)
        result = pki_public_key(node_key, &public_key, err);
    if (result == 0)
        result = pki_issue(ca_key, ca, public_key, &self->id, self->name, &certificate, err);
    if (result == 0)
        result = enrol_files_write(files, files->ca_key, ca_key, strlen(ca_key), 0600, err);
    if (result == 0)
        result = enrol_files_write(files, files->node_key, node_key, strlen(node_key), 0600, err);
    if (result == 0)
        result = enrol_files_write(files, files->ca_certificate, ca, strlen(ca), 0644, err);
    if (result == 0)
        result = enrol_files_write(files, files->node_certificate, certificate, strlen(certificate), 0644, err);
    return result;
}

/* One key per direction between the nodes; those with the witness come from its enrolment. */
static int write_secrets(struct enrol_files *files, struct err *err)
{
    struct site_secrets own = {0};
    struct join_state join = {0};
    seal_random(own.to_peer, sizeof own.to_peer);
    seal_random(own.from_peer, sizeof own.from_peer);
    memcpy(join.secrets.from_peer, own.to_peer, sizeof own.to_peer);
    memcpy(join.secrets.to_peer, own.from_peer, sizeof own.from_peer);
    enrol_files_will_make(files, files->secrets);
    int result = site_save_secrets(files->secrets, &own, err);
    if (result == 0) {
        enrol_files_will_make(files, files->join);
        result = join_state_save(files->join, &join, err);
    }
    seal_wipe(&own, sizeof own);
    seal_wipe(&join, sizeof join);
    return result;
}

static int write_corosync(struct enrol_files *files, const struct site *site, struct err *err)
{
    char conf[COROSYNC_CONF_MAX];
    uint8_t authkey[COROSYNC_AUTHKEY_SIZE];
    int result = corosync_conf_format(site, conf, err);
    if (result < 0)
        return result;
    seal_random(authkey, sizeof authkey);
    result = enrol_files_write_corosync(files, conf, authkey, sizeof authkey, err);
    seal_wipe(authkey, sizeof authkey);
    return result;
}

/* What convinces the other node of who we are, and what the two talk through. */
static int write_pair(struct enrol_files *files, const struct site *site, struct err *err)
{
    int result = write_pki(files, site, err);
    if (result == 0)
        result = write_secrets(files, err);
    return result == 0 ? write_corosync(files, site, err) : result;
}

static int write_all(struct enrol_files *files, const struct site *site, struct err *err)
{
    int result = site->standalone ? enrol_files_make_own_folders(files, err) : enrol_files_make_folders(files, err);
    if (result == 0 && !site->standalone)
        result = write_pair(files, site, err);
    if (result == 0) {
        /* Last: a host without hci.conf is no node, whatever else is there. */
        enrol_files_will_make(files, files->config);
        result = enrol_files_write_config(files, site, err);
    }
    return result;
}

static void say_what_is_next(const struct site *site)
{
    printf("Cluster '%s' is made; this host is node '%s'.\n", site->name, site_self(site)->name);
    if (!site->watchdog_device[0] && !site->watchdog_socket[0])
        puts("\nNo watchdog was named. Without one a node that hangs cannot reset itself, and the other node must not\n"
             "take its guests over: name one in hci.conf (watchdog) before you add guests.");
    printf("\nWhat to do next:\n"
           "  1. On the witness host:      hcictl witness token\n"
           "  2. Here, with what it says:  hcictl witness enroll ADDRESS TOKEN\n"
           "     (now: a witness cannot be added once node '%s' has joined)\n"
           "  3. Here:                     hcictl cluster invite\n"
           "  4. On node '%s':             the command that this prints\n"
           "  5. On both nodes:            systemctl restart corosync && systemctl enable --now hci.target\n",
           site_peer(site)->name, site_peer(site)->name);
}

static void say_what_is_next_alone(const struct site *site)
{
    printf("Node '%s' of '%s' is made; it stands alone: each volume has one copy, on this host's disks, and nothing\n"
           "is mirrored or taken over. A second node cannot be added later in this version.\n"
           "\nWhat to do next:\n"
           "  1. systemctl enable --now hci.target\n"
           "  2. hcictl pool create PATH...             (disks, or files with --size 20G)\n"
           "  3. hcictl volume create NAME --size SIZE\n",
           site_self(site)->name, site->name);
}

int cluster_init_run(struct cli *cli, struct err *err)
{
    struct site site;
    struct enrol_files files;
    int result = build_site(cli, &site, err);
    if (result == 0)
        result = enrol_files_plan(cli, site.state_folder, &files, err);
    if (result == 0)
        result = enrol_files_refuse_existing(&files, !site.standalone, err);
    if (result < 0)
        return result;
    if (seal_init() < 0)
        return err_set(err, -EIO, "io", "no source of random numbers; see whether /dev/urandom works");
    result = write_all(&files, &site, err);
    if (result < 0) {
        enrol_files_undo(&files);
        return result;
    }
    if (cli->json)
        return output_json(site_json_encode(&site, site.self), err);
    if (site.standalone)
        say_what_is_next_alone(&site);
    else
        say_what_is_next(&site);
    return 0;
}
