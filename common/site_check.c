/* Decides whether a site's configuration makes sense; every refusal is one sentence with value and remedy. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/site_private.h"

#define REFUSE(...) err_set(err, -EINVAL, "invalid", __VA_ARGS__)

/* Names travel into certificates, IQNs, file names and unit names. */
static bool is_name(const char *name)
{
    if (!isalnum((unsigned char)name[0]))
        return false;
    for (const char *at = name; *at != '\0'; at++)
        if (!isalnum((unsigned char)*at) && strchr("._-", *at) == NULL)
            return false;
    return strlen(name) < SITE_NAME_MAX;
}

static bool is_address(const char *text)
{
    uint8_t address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

/* "ADDRESS:PORT", an IPv6 address in brackets. */
static bool is_portal(const char *text)
{
    char address[SITE_ADDRESS_MAX];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text || strlen(text) >= sizeof(address))
        return false;

    char *end;
    long port = strtol(colon + 1, &end, 10);
    if (!isdigit((unsigned char)colon[1]) || *end != '\0' || port < 1 || port > 65535)
        return false;
    bool has_brackets = text[0] == '[' && colon[-1] == ']';
    snprintf(address, sizeof(address), "%.*s", (int)(colon - text - (has_brackets ? 2 : 0)), text + has_brackets);
    return is_address(address) && (strchr(address, ':') != NULL) == has_brackets;
}

/* What can stand between the quotes of the file and comes back unchanged. */
static bool is_quotable(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 127 || strchr("\"\\$", *text) != NULL)
            return false;
    return true;
}

static int check_path(const char *path, const char *what, const char *value, bool may_be_empty, struct err *err)
{
    if (may_be_empty && value[0] == '\0')
        return 0;
    if (value[0] != '/' || !is_quotable(value))
        return REFUSE("%s: %s '%s' is not an absolute path without quotes, backslashes and dollar signs; correct it",
                      path, what, value);
    return 0;
}

static int check_node(const char *path, const struct site_node *node, struct err *err)
{
    if (!is_name(node->name))
        return REFUSE("%s: node name '%s' is not allowed; use letters, digits, '.', '_' and '-', at most %d, "
                      "a letter or digit first", path, node->name, SITE_NAME_MAX - 1);
    if (id_is_null(&node->id))
        return REFUSE("%s: node '%s' has no uuid; write the one that 'hcictl cluster init' made", path, node->name);
    if (node->link_count == 0 || node->link_count > SITE_LINKS_MAX)
        return REFUSE("%s: node '%s' has %u links; name 1 to %d addresses", path, node->name, node->link_count,
                      SITE_LINKS_MAX);
    for (unsigned link = 0; link < node->link_count; link++)
        if (!is_address(node->links[link]))
            return REFUSE("%s: node '%s': link '%s' is not an IP address; write one like 10.11.0.1", path, node->name,
                          node->links[link]);
    return 0;
}

static int check_link_taken(const char *path, const struct site *site, unsigned node, unsigned link, struct err *err)
{
    const char *address = site->nodes[node].links[link];

    for (unsigned other = 0; other < 2; other++)
        for (unsigned other_link = 0; other_link < site->nodes[other].link_count; other_link++)
            if ((other != node || other_link != link) && strcmp(address, site->nodes[other].links[other_link]) == 0)
                return REFUSE("%s: link '%s' stands at node '%s' and again at node '%s'; give each link "
                              "its own address", path, address, site->nodes[node].name, site->nodes[other].name);
    return 0;
}

static int check_links(const char *path, const struct site *site, struct err *err)
{
    const struct site_node *nodes = site->nodes;

    if (nodes[0].link_count != nodes[1].link_count)
        return REFUSE("%s: node '%s' has %u links but node '%s' has %u; list the same links in the same order for both",
                      path, nodes[0].name, nodes[0].link_count, nodes[1].name, nodes[1].link_count);
    for (unsigned node = 0; node < 2; node++) {
        for (unsigned link = 0; link < nodes[node].link_count; link++) {
            int result = check_link_taken(path, site, node, link, err);
            if (result < 0)
                return result;
        }
    }
    return 0;
}

static int check_nodes(const char *path, const struct site *site, struct err *err)
{
    char text[ID_TEXT_SIZE];
    int result = 0;

    for (unsigned node = 0; node < (site->standalone ? 1u : 2u) && result == 0; node++)
        result = check_node(path, &site->nodes[node], err);
    if (result < 0 || site->standalone)
        return result;
    if (strcmp(site->nodes[0].name, site->nodes[1].name) == 0)
        return REFUSE("%s: both nodes are named '%s'; rename one", path, site->nodes[0].name);
    if (id_equal(&site->nodes[0].id, &site->nodes[1].id))
        return REFUSE("%s: nodes '%s' and '%s' have the same uuid %s; write each node's own", path, site->nodes[0].name,
                      site->nodes[1].name, id_format(&site->nodes[0].id, text));
    return check_links(path, site, err);
}

static int check_witness(const char *path, const struct site *site, struct err *err)
{
    char text[ID_TEXT_SIZE];

    if (!site->has_witness)
        return 0;
    if (id_is_null(&site->witness_id))
        return REFUSE("%s: the witness at '%s' has no uuid; write the one that 'hcictl witness enroll' got", path,
                      site->witness_address);
    if (id_equal(&site->witness_id, &site->nodes[0].id) || id_equal(&site->witness_id, &site->nodes[1].id))
        return REFUSE("%s: the witness has the uuid %s of a node; write the witness's own", path,
                      id_format(&site->witness_id, text));
    if (!is_address(site->witness_address))
        return REFUSE("%s: witness address '%s' is not an IP address; write one like 10.13.0.3", path,
                      site->witness_address);
    return 0;
}

static int check_storage(const char *path, const struct site *site, struct err *err)
{
    if (site->portal_count == 0 || site->portal_count > SITE_PORTALS_MAX)
        return REFUSE("%s: storage has %u portals; name 1 to %d like \"" SITE_DEFAULT_PORTAL "\"", path,
                      site->portal_count, SITE_PORTALS_MAX);
    for (unsigned portal = 0; portal < site->portal_count; portal++)
        if (!is_portal(site->portals[portal]))
            return REFUSE("%s: portal '%s' is not ADDRESS:PORT; write one like " SITE_DEFAULT_PORTAL, path,
                          site->portals[portal]);
    return 0;
}

static int check_places(const char *path, const struct site *site, struct err *err)
{
    const struct {
        const char *what;
        const char *value;
        bool may_be_empty;
    } places[] = {
        {"watchdog device", site->watchdog_device, true}, {"watchdog socket", site->watchdog_socket, true},
        {"cgroup_root", site->cgroup_root, false},        {"pki_folder", site->pki_folder, false},
        {"state_folder", site->state_folder, false},      {"run_folder", site->run_folder, false},
    };

    for (unsigned index = 0; index < sizeof(places) / sizeof(places[0]); index++) {
        int result = check_path(path, places[index].what, places[index].value, places[index].may_be_empty, err);
        if (result < 0)
            return result;
    }
    if (site->watchdog_device[0] != '\0' && site->watchdog_socket[0] != '\0')
        return REFUSE("%s: the watchdog has both device '%s' and socket '%s'; name one of them", path,
                      site->watchdog_device, site->watchdog_socket);
    if (site->libvirt_uri[0] == '\0' || !is_quotable(site->libvirt_uri))
        return REFUSE("%s: libvirt_uri '%s' is not allowed; write one like " SITE_DEFAULT_LIBVIRT_URI, path,
                      site->libvirt_uri);
    return 0;
}

int site_check(const char *path, const struct site *site, struct err *err)
{
    struct site_profile profile;

    if (!is_name(site->name))
        return REFUSE("%s: cluster name '%s' is not allowed; use letters, digits, '.', '_' and '-', at most %d, "
                      "a letter or digit first", path, site->name, SITE_NAME_MAX - 1);
    if (id_is_null(&site->id))
        return REFUSE("%s: cluster '%s' has no uuid; write the one that 'hcictl cluster init' made", path, site->name);
    if (site_profile_by_name(site->profile.name, &profile) < 0)
        return REFUSE("%s: profile '%s' is not known; choose fast, default or slow", path, site->profile.name);

    int result = check_nodes(path, site, err);
    if (result == 0 && site->standalone && site->has_witness)
        result = REFUSE("%s: names a witness, which serves pairs, but only node '%s'; name the second node or remove the "
                        "witness", path, site->nodes[0].name);
    if (result == 0)
        result = check_witness(path, site, err);
    if (result == 0)
        result = check_storage(path, site, err);
    if (result == 0)
        result = check_places(path, site, err);
    return result;
}

int site_check_pair(const char *path, const struct site *site, const char *daemon, struct err *err)
{
    if (site->standalone)
        return REFUSE("%s: node '%s' stands alone, and %s serves pairs; disable it on this node", path,
                      site->nodes[0].name, daemon);
    return 0;
}

static bool is_zero(const uint8_t key[static SEAL_KEY_SIZE])
{
    static const uint8_t zero[SEAL_KEY_SIZE];
    return memcmp(key, zero, SEAL_KEY_SIZE) == 0;
}

int site_check_secrets(const char *path, const struct site *site, const struct site_secrets *secrets, struct err *err)
{
    if (is_zero(secrets->to_peer) || is_zero(secrets->from_peer))
        return REFUSE("%s: the keys to_peer and from_peer for node '%s' are missing; run 'hcictl cluster init' on the "
                      "first node and 'hcictl cluster join' on the second", path, site_peer(site)->name);
    if (site->has_witness && (is_zero(secrets->to_witness) || is_zero(secrets->from_witness)))
        return REFUSE("%s: the keys to_witness and from_witness for the witness at '%s' are missing; run 'hcictl "
                      "witness enroll' on the first node, then 'hcictl cluster join' on the second", path,
                      site->witness_address);
    return 0;
}
