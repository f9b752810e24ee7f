/* hci.conf's content as JSON, both ways in one place. */
#include "cli/site_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/text.h"
#include "common/check.h"

static json_t *encode_node(const struct site_node *node)
{
    char uuid[ID_TEXT_SIZE];
    json_t *links = json_array();
    for (unsigned i = 0; i < node->link_count; i++)
        json_array_append_new(links, json_string(node->links[i]));
    return json_pack("{s:s, s:s, s:o}", "name", node->name, "uuid", id_format(&node->id, uuid), "links", links);
}

static json_t *encode_witness(const struct site *site)
{
    char uuid[ID_TEXT_SIZE];
    if (!site->has_witness)
        return json_null();
    return json_pack("{s:s, s:s, s:i}", "uuid", id_format(&site->witness_id, uuid), "address", site->witness_address,
                     "port", (int)site->witness_port);
}

json_t *site_json_encode(const struct site *site, unsigned self)
{
    char uuid[ID_TEXT_SIZE];
    json_t *portals = json_array();
    for (unsigned i = 0; i < site->portal_count; i++)
        json_array_append_new(portals, json_string(site->portals[i]));
    json_t *nodes = json_array();
    for (unsigned i = 0; i < (site->standalone ? 1u : 2u); i++)
        json_array_append_new(nodes, encode_node(&site->nodes[i]));
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:s, s:b, s:o, s:o, s:o, s:i, s:i, s:{s:s, s:s, s:i, s:i}, s:s, s:s}", "name", site->name,
        "uuid", id_format(&site->id, uuid), "profile", site->profile.name, "self", site->nodes[self].name, "standalone",
        site->standalone, "nodes", nodes, "witness", encode_witness(site), "portals", portals,
        "mirror_port", (int)site->mirror_port, "quorum_port", (int)site->quorum_port, "watchdog", "device",
        site->watchdog_device, "socket", site->watchdog_socket, "period_ms", (int)site->watchdog_ms, "reset_ms",
        (int)site->watchdog_reset_ms, "cgroup_root", site->cgroup_root, "libvirt_uri", site->libvirt_uri);
    check(document);
    return document;
}

static int refuse(struct err *err, const char *key)
{
    return err_set(err, -EINVAL, "invalid",
                   "the configuration from the other node has no usable '%s'; use the same version of hcictl on both",
                   key);
}

static int get_text(const json_t *object, const char *key, char *ret, size_t size, struct err *err)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) >= size)
        return refuse(err, key);
    /* What is written into a configuration file must not be able to end its line or its quotes. */
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == '"' || *c == '\\')
            return refuse(err, key);
    snprintf(ret, size, "%s", text);
    return 0;
}

static int get_id(const json_t *object, const char *key, struct id *ret, struct err *err)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && id_parse(text, ret) == 0 && !id_is_null(ret) ? 0 : refuse(err, key);
}

static int get_number(const json_t *object, const char *key, uint32_t most, uint32_t *ret, struct err *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > most)
        return refuse(err, key);
    *ret = (uint32_t)json_integer_value(value);
    return 0;
}

static int get_port(const json_t *object, const char *key, uint16_t *ret, struct err *err)
{
    uint32_t port = 0;
    int result = get_number(object, key, 65535, &port, err);
    if (result < 0 || port == 0)
        return refuse(err, key);
    *ret = (uint16_t)port;
    return 0;
}

static int decode_list(const json_t *list, const char *key, unsigned most, char (*ret)[SITE_ADDRESS_MAX],
                       unsigned *ret_count, struct err *err)
{
    if (json_array_size(list) == 0 || json_array_size(list) > most)
        return refuse(err, key);
    *ret_count = (unsigned)json_array_size(list);
    for (unsigned i = 0; i < *ret_count; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        struct address address;
        if (!text || strlen(text) >= SITE_ADDRESS_MAX || address_parse(key, text, 0, &address, NULL) < 0)
            return refuse(err, key);
        snprintf(ret[i], SITE_ADDRESS_MAX, "%s", text);
    }
    return 0;
}

static int decode_node(const json_t *document, struct site_node *ret, struct err *err)
{
    int result = get_text(document, "name", ret->name, sizeof ret->name, err);
    if (result == 0)
        result = name_check("node name", ret->name, err);
    if (result == 0)
        result = get_id(document, "uuid", &ret->id, err);
    if (result == 0)
        result =
            decode_list(json_object_get(document, "links"), "links", SITE_LINKS_MAX, ret->links, &ret->link_count, err);
    return result;
}

static int decode_nodes(const json_t *document, struct site *ret, struct err *err)
{
    const json_t *nodes = json_object_get(document, "nodes");
    char self[SITE_NAME_MAX];
    if (json_array_size(nodes) != 2)
        return refuse(err, "nodes");
    for (unsigned i = 0; i < 2; i++) {
        int result = decode_node(json_array_get(nodes, i), &ret->nodes[i], err);
        if (result < 0)
            return result;
    }
    if (id_compare(&ret->nodes[0].id, &ret->nodes[1].id) >= 0)
        return refuse(err, "nodes");
    int result = get_text(document, "self", self, sizeof self, err);
    if (result < 0)
        return result;
    ret->self = strcmp(self, ret->nodes[0].name) ? 1 : 0;
    return strcmp(self, ret->nodes[ret->self].name) ? refuse(err, "self") : 0;
}

static int decode_witness(const json_t *witness, struct site *ret, struct err *err)
{
    struct address address;
    ret->has_witness = json_is_object(witness);
    if (!ret->has_witness)
        return 0;
    int result = get_id(witness, "uuid", &ret->witness_id, err);
    if (result == 0)
        result = get_text(witness, "address", ret->witness_address, sizeof ret->witness_address, err);
    if (result == 0)
        result = address_parse("witness address", ret->witness_address, 1, &address, err);
    if (result == 0)
        result = get_port(witness, "port", &ret->witness_port, err);
    return result;
}

static int decode_watchdog(const json_t *watchdog, struct site *ret, struct err *err)
{
    int result = get_text(watchdog, "device", ret->watchdog_device, sizeof ret->watchdog_device, err);
    if (result == 0)
        result = get_text(watchdog, "socket", ret->watchdog_socket, sizeof ret->watchdog_socket, err);
    if (result == 0)
        result = get_number(watchdog, "period_ms", 600000, &ret->watchdog_ms, err);
    if (result == 0)
        result = get_number(watchdog, "reset_ms", 600000, &ret->watchdog_reset_ms, err);
    return result;
}

int site_json_decode(const json_t *document, struct site *ret, struct err *err)
{
    char profile[sizeof ret->profile.name];
    memset(ret, 0, sizeof *ret);
    int result = get_text(document, "name", ret->name, sizeof ret->name, err);
    if (result == 0)
        result = name_check("cluster name", ret->name, err);
    if (result == 0)
        result = get_id(document, "uuid", &ret->id, err);
    if (result == 0)
        result = get_text(document, "profile", profile, sizeof profile, err);
    if (result == 0 && site_profile_by_name(profile, &ret->profile) < 0)
        result = refuse(err, "profile");
    if (result == 0)
        result = decode_nodes(document, ret, err);
    if (result == 0)
        result = decode_witness(json_object_get(document, "witness"), ret, err);
    if (result == 0)
        result = decode_list(json_object_get(document, "portals"), "portals", SITE_PORTALS_MAX, ret->portals,
                             &ret->portal_count, err);
    if (result == 0)
        result = get_port(document, "mirror_port", &ret->mirror_port, err);
    if (result == 0)
        result = get_port(document, "quorum_port", &ret->quorum_port, err);
    if (result == 0)
        result = decode_watchdog(json_object_get(document, "watchdog"), ret, err);
    if (result == 0)
        result = get_text(document, "cgroup_root", ret->cgroup_root, sizeof ret->cgroup_root, err);
    if (result == 0)
        result = get_text(document, "libvirt_uri", ret->libvirt_uri, sizeof ret->libvirt_uri, err);
    return result;
}

static json_t *encode_key(const uint8_t key[static SEAL_KEY_SIZE])
{
    char text[2 * SEAL_KEY_SIZE + 1];
    hex_format(key, SEAL_KEY_SIZE, text);
    json_t *value = json_string(text);
    seal_wipe(text, sizeof text);
    return value;
}

json_t *secrets_json_encode(const struct site_secrets *secrets)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "to_peer", encode_key(secrets->to_peer), "from_peer",
                     encode_key(secrets->from_peer), "to_witness", encode_key(secrets->to_witness), "from_witness",
                     encode_key(secrets->from_witness));
}

static int decode_key(const json_t *document, const char *name, uint8_t ret[static SEAL_KEY_SIZE])
{
    return hex_parse(json_string_value(json_object_get(document, name)), ret, SEAL_KEY_SIZE);
}

int secrets_json_decode(const json_t *document, struct site_secrets *ret)
{
    if (decode_key(document, "to_peer", ret->to_peer) < 0 || decode_key(document, "from_peer", ret->from_peer) < 0 ||
        decode_key(document, "to_witness", ret->to_witness) < 0 ||
        decode_key(document, "from_witness", ret->from_witness) < 0)
        return -EINVAL;
    return 0;
}
