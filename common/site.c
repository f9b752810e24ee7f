/* Reads hci.conf and secrets.conf; the only file that includes confuse.h. */
#include "common/site.h"

#include <confuse.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/site_private.h"

/* libconfuse hands its error function no pointer of ours, so the sentence is caught here. */
static _Thread_local struct {
    const char *path;
    struct err *err;
    bool is_secret; /* the library's sentence may quote the file, which must not reach a log */
    bool caught;
} parsing;

static void catch_error(cfg_t *cfg, const char *format, va_list arguments)
{
    char text[512];

    if (parsing.caught) /* the first error is the cause, later ones follow from it */
        return;
    parsing.caught = true;
    if (parsing.is_secret)
        snprintf(text, sizeof(text), "is not one of the lines to_peer, from_peer, to_witness, from_witness = \"KEY\"");
    else
        vsnprintf(text, sizeof(text), format, arguments);
    err_set(parsing.err, -EINVAL, "invalid", "%s, line %d: %s; correct the line", parsing.path, cfg->line, text);
}

/* On success the caller frees *ret with cfg_free. */
static int parse(const char *path, const char *text, bool is_secret, cfg_opt_t *options, cfg_t **ret, struct err *err)
{
    cfg_t *cfg = cfg_init(options, CFGF_NONE);
    if (cfg == NULL)
        return err_set(err, -ENOMEM, "no_memory", "%s: no memory to read it; free some memory", path);

    parsing.path = path;
    parsing.err = err;
    parsing.is_secret = is_secret;
    parsing.caught = false;
    cfg_set_error_function(cfg, catch_error);
    int result = cfg_parse_buf(cfg, text);
    parsing.err = NULL;
    if (result != CFG_SUCCESS) {
        cfg_free(cfg);
        return parsing.caught ? -EINVAL
                              : err_set(err, -EINVAL, "invalid", "%s: is no configuration; restore it", path);
    }
    *ret = cfg;
    return 0;
}

static void cleanup_cfg(cfg_t **cfg)
{
    if (*cfg != NULL)
        cfg_free(*cfg);
}

/* Copies an option's text; an absent one gives "". */
static int take_text(const char *path, const char *what, const char *value, char *ret, size_t size, struct err *err)
{
    const char *text = value == NULL ? "" : value;
    if (strlen(text) >= size)
        return err_set(err, -EINVAL, "invalid", "%s: %s '%.32s…' is longer than %zu characters; shorten it", path, what,
                       text, size - 1);
    strcpy(ret, text);
    return 0;
}

/* An absent uuid stays null; whether one must be there is site_check's to say. */
static int take_id(const char *path, const char *whose, const char *value, struct id *ret, struct err *err)
{
    if (value == NULL || value[0] == '\0')
        return 0;
    if (id_parse(value, ret) < 0)
        return err_set(err, -EINVAL, "invalid",
                       "%s: %s: '%s' is not a UUID; write one like 8f1b0f6e-0d0c-4a39-9a2b-5c1d2e3f4a5b", path, whose,
                       value);
    return 0;
}

static int take_number(const char *path, const char *what, long value, long lowest, long highest, struct err *err)
{
    if (value < lowest || value > highest)
        return err_set(err, -EINVAL, "invalid", "%s: %s %ld is not between %ld and %ld; correct it", path, what, value,
                       lowest, highest);
    return 0;
}

static int take_port(const char *path, const char *what, long value, uint16_t *ret, struct err *err)
{
    int result = take_number(path, what, value, 1, 65535, err);
    if (result == 0)
        *ret = (uint16_t)value;
    return result;
}

static int take_cluster(const char *path, cfg_t *section, struct site *site, struct err *err)
{
    const char *profile = cfg_getstr(section, "profile");
    int result = take_text(path, "cluster name", cfg_getstr(section, "name"), site->name, sizeof(site->name), err);

    if (result == 0)
        result = take_id(path, "cluster uuid", cfg_getstr(section, "uuid"), &site->id, err);
    if (result == 0 && site_profile_by_name(profile, &site->profile) < 0)
        result = err_set(err, -EINVAL, "invalid", "%s: profile '%s' is not known; choose fast, default or slow", path,
                         profile);
    return result;
}

static int take_node(const char *path, cfg_t *section, struct site_node *node, struct err *err)
{
    char whose[SITE_NAME_MAX + 16];
    int result = take_text(path, "node name", cfg_title(section), node->name, sizeof(node->name), err);
    if (result < 0)
        return result;
    snprintf(whose, sizeof(whose), "node '%s'", node->name);

    result = take_id(path, whose, cfg_getstr(section, "uuid"), &node->id, err);
    unsigned count = cfg_size(section, "links");
    if (result == 0 && count > SITE_LINKS_MAX)
        result = err_set(err, -EINVAL, "invalid", "%s: %s has %u links; name 1 to %d addresses", path, whose, count,
                         SITE_LINKS_MAX);
    for (unsigned link = 0; link < count && result == 0; link++)
        result = take_text(path, "link", cfg_getnstr(section, "links", link), node->links[link],
                           sizeof(node->links[link]), err);
    node->link_count = count;
    return result;
}

/* protocol: index 0 is the node with the lower id, in whatever order the file names them. */
static int take_nodes(const char *path, cfg_t *cfg, struct site *site, struct err *err)
{
    unsigned count = cfg_size(cfg, "node");
    if (count != 1 && count != 2)
        return err_set(err, -EINVAL, "invalid", "%s: names %u nodes, a cluster has 2 and a standalone node is 1; write one "
                       "section node \"NAME\" { … } for each", path, count);
    site->standalone = count == 1;
    for (unsigned index = 0; index < count; index++) {
        int result = take_node(path, cfg_getnsec(cfg, "node", index), &site->nodes[index], err);
        if (result < 0)
            return result;
    }
    if (!site->standalone && id_compare(&site->nodes[0].id, &site->nodes[1].id) > 0) {
        struct site_node first = site->nodes[0];
        site->nodes[0] = site->nodes[1];
        site->nodes[1] = first;
    }
    return 0;
}

static int take_self(const char *path, cfg_t *cfg, struct site *site, struct err *err)
{
    const char *self = cfg_getstr(cfg, "self");
    if (site->standalone) {
        if (self != NULL && self[0] != '\0' && strcmp(self, site->nodes[0].name) != 0)
            return err_set(err, -EINVAL, "invalid", "%s: self '%s' is not the node; write \"%s\"", path, self,
                           site->nodes[0].name);
        return 0;
    }
    if (self == NULL || self[0] == '\0')
        return err_set(err, -EINVAL, "invalid", "%s: does not say which node this is; write self = \"%s\" or \"%s\"",
                       path, site->nodes[0].name, site->nodes[1].name);
    for (unsigned index = 0; index < 2; index++) {
        if (strcmp(site->nodes[index].name, self) == 0) {
            site->self = index;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "invalid", "%s: self '%s' is not among the nodes; write \"%s\" or \"%s\"", path, self,
                   site->nodes[0].name, site->nodes[1].name);
}

static int take_witness(const char *path, cfg_t *section, struct site *site, struct err *err)
{
    const char *uuid = cfg_getstr(section, "uuid");
    const char *address = cfg_getstr(section, "address");

    site->has_witness = (uuid != NULL && uuid[0] != '\0') || (address != NULL && address[0] != '\0');
    int result = take_id(path, "witness uuid", uuid, &site->witness_id, err);
    if (result == 0)
        result = take_text(path, "witness address", address, site->witness_address, sizeof(site->witness_address), err);
    if (result == 0)
        result = take_port(path, "witness port", cfg_getint(section, "port"), &site->witness_port, err);
    return result;
}

static int take_storage(const char *path, cfg_t *section, struct site *site, struct err *err)
{
    unsigned count = cfg_size(section, "portals");
    int result = take_port(path, "storage mirror_port", cfg_getint(section, "mirror_port"), &site->mirror_port, err);

    if (result == 0 && count > SITE_PORTALS_MAX)
        result = err_set(err, -EINVAL, "invalid", "%s: storage has %u portals; name 1 to %d", path, count,
                         SITE_PORTALS_MAX);
    for (unsigned portal = 0; portal < count && result == 0; portal++)
        result = take_text(path, "portal", cfg_getnstr(section, "portals", portal), site->portals[portal],
                           sizeof(site->portals[portal]), err);
    site->portal_count = count;
    return result;
}

static int take_watchdog(const char *path, cfg_t *section, struct site *site, struct err *err)
{
    long period_ms = cfg_getint(section, "period_ms");
    long reset_ms = cfg_getint(section, "reset_ms");
    int result = take_text(path, "watchdog device", cfg_getstr(section, "device"), site->watchdog_device,
                           sizeof(site->watchdog_device), err);

    if (result == 0)
        result = take_text(path, "watchdog socket", cfg_getstr(section, "socket"), site->watchdog_socket,
                           sizeof(site->watchdog_socket), err);
    if (result == 0 && period_ms != 0) /* 0: the profile's */
        result = take_number(path, "watchdog period_ms", period_ms, 100, 600000, err);
    if (result == 0)
        result = take_number(path, "watchdog reset_ms", reset_ms, 1, 600000, err);
    if (result < 0)
        return result;
    site->watchdog_ms = period_ms == 0 ? site->profile.watchdog_ms : (uint32_t)period_ms;
    site->watchdog_reset_ms = (uint32_t)reset_ms;
    return 0;
}

static int take_places(const char *path, cfg_t *cfg, struct site *site, struct err *err)
{
    cfg_t *guests = cfg_getsec(cfg, "guests");
    const struct {
        const char *what;
        cfg_t *section;
        char *ret;
        size_t size;
    } places[] = {
        {"cgroup_root", guests, site->cgroup_root, sizeof(site->cgroup_root)},
        {"libvirt_uri", guests, site->libvirt_uri, sizeof(site->libvirt_uri)},
        {"pki_folder", cfg, site->pki_folder, sizeof(site->pki_folder)},
        {"state_folder", cfg, site->state_folder, sizeof(site->state_folder)},
        {"run_folder", cfg, site->run_folder, sizeof(site->run_folder)},
    };

    for (unsigned index = 0; index < sizeof(places) / sizeof(places[0]); index++) {
        int result = take_text(path, places[index].what, cfg_getstr(places[index].section, places[index].what),
                               places[index].ret, places[index].size, err);
        if (result < 0)
            return result;
    }
    return 0;
}

static int take_site(const char *path, cfg_t *cfg, struct site *site, struct err *err)
{
    int result = take_cluster(path, cfg_getsec(cfg, "cluster"), site, err);

    if (result == 0)
        result = take_nodes(path, cfg, site, err);
    if (result == 0)
        result = take_self(path, cfg, site, err);
    if (result == 0)
        result = take_witness(path, cfg_getsec(cfg, "witness"), site, err);
    if (result == 0)
        result = take_storage(path, cfg_getsec(cfg, "storage"), site, err);
    if (result == 0)
        result = take_port(path, "quorum port", cfg_getint(cfg_getsec(cfg, "quorum"), "port"), &site->quorum_port, err);
    if (result == 0)
        result = take_watchdog(path, cfg_getsec(cfg, "watchdog"), site, err);
    if (result == 0)
        result = take_places(path, cfg, site, err);
    return result;
}

int site_load(const char *path, struct site *ret, struct err *err)
{
    cfg_opt_t cluster[] = {CFG_STR("name", "", CFGF_NONE), CFG_STR("uuid", "", CFGF_NONE),
                           CFG_STR("profile", SITE_DEFAULT_PROFILE, CFGF_NONE), CFG_END()};
    cfg_opt_t node[] = {CFG_STR("uuid", "", CFGF_NONE), CFG_STR_LIST("links", NULL, CFGF_NONE), CFG_END()};
    cfg_opt_t witness[] = {CFG_STR("uuid", "", CFGF_NONE), CFG_STR("address", "", CFGF_NONE),
                           CFG_INT("port", SITE_DEFAULT_WITNESS_PORT, CFGF_NONE), CFG_END()};
    cfg_opt_t storage[] = {CFG_STR_LIST("portals", "{\"" SITE_DEFAULT_PORTAL "\"}", CFGF_NONE),
                           CFG_INT("mirror_port", SITE_DEFAULT_MIRROR_PORT, CFGF_NONE), CFG_END()};
    cfg_opt_t quorum[] = {CFG_INT("port", SITE_DEFAULT_QUORUM_PORT, CFGF_NONE), CFG_END()};
    cfg_opt_t watchdog[] = {CFG_STR("device", "", CFGF_NONE), CFG_STR("socket", "", CFGF_NONE),
                            CFG_INT("period_ms", 0, CFGF_NONE), CFG_INT("reset_ms", SITE_DEFAULT_RESET_MS, CFGF_NONE),
                            CFG_END()};
    cfg_opt_t guests[] = {CFG_STR("cgroup_root", SITE_DEFAULT_CGROUP_ROOT, CFGF_NONE),
                          CFG_STR("libvirt_uri", SITE_DEFAULT_LIBVIRT_URI, CFGF_NONE), CFG_END()};
    cfg_opt_t options[] = {CFG_SEC("cluster", cluster, CFGF_NONE),
                           CFG_STR("self", "", CFGF_NONE),
                           CFG_SEC("node", node, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
                           CFG_SEC("witness", witness, CFGF_NONE),
                           CFG_SEC("storage", storage, CFGF_NONE),
                           CFG_SEC("quorum", quorum, CFGF_NONE),
                           CFG_SEC("watchdog", watchdog, CFGF_NONE),
                           CFG_SEC("guests", guests, CFGF_NONE),
                           CFG_STR("pki_folder", SITE_DEFAULT_PKI_FOLDER, CFGF_NONE),
                           CFG_STR("state_folder", SITE_DEFAULT_STATE_FOLDER, CFGF_NONE),
                           CFG_STR("run_folder", SITE_DEFAULT_RUN_FOLDER, CFGF_NONE),
                           CFG_END()};
    cleanup_free char *text = NULL;
    cleanup(cleanup_cfg) cfg_t *cfg = NULL;
    struct site site = {0};

    int result = files_read(path, SITE_FILE_MAX, &text, NULL, err);
    if (result == 0)
        result = parse(path, text, false, options, &cfg, err);
    if (result == 0)
        result = take_site(path, cfg, &site, err);
    if (result == 0)
        result = site_check(path, &site, err);
    if (result == 0)
        *ret = site;
    return result;
}

static int take_key(const char *path, cfg_t *cfg, const char *name, uint8_t ret[static SEAL_KEY_SIZE], struct err *err)
{
    char *text = cfg_getstr(cfg, name);
    int result = 0;

    if (text == NULL || text[0] == '\0') /* not enrolled: zero */
        return 0;
    size_t length = strlen(text);
    if (length != SEAL_KEY_SIZE * 2 || strspn(text, "0123456789abcdef") != length)
        result = err_set(err, -EINVAL, "invalid", "%s: key %s is not %u lower-case hexadecimal digits; enrol this node "
                         "again", path, name, SEAL_KEY_SIZE * 2);
    for (unsigned index = 0; index < SEAL_KEY_SIZE && result == 0; index++) {
        unsigned byte = 0;
        sscanf(text + 2 * index, "%2x", &byte);
        ret[index] = (uint8_t)byte;
    }
    seal_wipe(text, length);
    return result;
}

static int take_secrets(const char *path, const char *text, struct site_secrets *secrets, struct err *err)
{
    cfg_opt_t options[] = {CFG_STR("to_peer", "", CFGF_NONE), CFG_STR("from_peer", "", CFGF_NONE),
                           CFG_STR("to_witness", "", CFGF_NONE), CFG_STR("from_witness", "", CFGF_NONE), CFG_END()};
    cleanup(cleanup_cfg) cfg_t *cfg = NULL;
    int result = parse(path, text, true, options, &cfg, err);

    if (result == 0)
        result = take_key(path, cfg, "to_peer", secrets->to_peer, err);
    if (result == 0)
        result = take_key(path, cfg, "from_peer", secrets->from_peer, err);
    if (result == 0)
        result = take_key(path, cfg, "to_witness", secrets->to_witness, err);
    if (result == 0)
        result = take_key(path, cfg, "from_witness", secrets->from_witness, err);
    return result;
}

int site_load_secrets(const char *path, struct site_secrets *ret, struct err *err)
{
    struct site_secrets secrets = {0};
    cleanup_free char *text = NULL;
    struct stat status;
    size_t size = 0;

    if (stat(path, &status) == 0 && (status.st_mode & 077) != 0)
        return err_set(err, -EPERM, "unsafe", "%s: mode %04o lets others read the keys; run 'chmod 600 %s' and enrol "
                       "this node again if somebody did", path, status.st_mode & 07777u, path);
    int result = files_read(path, SITE_FILE_MAX, &text, &size, err);
    if (result < 0)
        return result;
    result = take_secrets(path, text, &secrets, err);
    if (result == 0)
        *ret = secrets;
    seal_wipe(text, size);
    seal_wipe(&secrets, sizeof(secrets));
    return result;
}
