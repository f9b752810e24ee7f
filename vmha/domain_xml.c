/* Checks and completes domain XML with libxml2; nothing is fetched, no entity is expanded, sizes are limited. */
#include "vmha/domain_xml.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"

#define X(text) ((const xmlChar *)(text))

static void free_document(xmlDoc **document) { xmlFreeDoc(*document); }
static void free_text(xmlChar **text) { xmlFree(*text); }
#define cleanup_document cleanup(free_document)
#define cleanup_text cleanup(free_text)

int domain_xml_check_name(const char *name, struct err *err)
{
    size_t size = strlen(name);
    bool fine = size >= 1 && size <= 40 && name[0] != '-';

    for (size_t i = 0; i < size; i++)
        fine &= (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') || name[i] == '-';
    if (fine)
        return 0;
    return err_set(err, -EINVAL, "invalid", "guest name '%.64s' is not 1 to 40 of a-z, 0-9 and '-'; choose another",
                   name);
}

void domain_xml_initiator(const char *guest, uint64_t incarnation, const char *node,
                          char ret[static DOMAIN_XML_INITIATOR_MAX])
{
    int size = snprintf(ret, DOMAIN_XML_INITIATOR_MAX, "iqn.2026-01.io.hci:guest.%s.%" PRIu64 ".%s", guest, incarnation,
                        node);
    check(size > 0 && (unsigned)size < DOMAIN_XML_INITIATOR_MAX);
}

int domain_xml_portal(const char portals[][64], unsigned count, struct domain_xml_plan *plan, struct err *err)
{
    const char *portal = count ? portals[0] : "127.0.0.1:3260";

    for (unsigned i = count; i--;)
        if (!strncmp(portals[i], "127.", 4) || !strncmp(portals[i], "[::1]", 5))
            portal = portals[i];
    const char *colon = strrchr(portal, ':');
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (port < 1 || port > 65535)
        return err_set(err, -EINVAL, "invalid", "portal '%s' is not ADDRESS:PORT; correct storage.portals in hci.conf",
                       portal);
    bool brackets = portal[0] == '[' && colon[-1] == ']';
    snprintf(plan->portal_host, sizeof plan->portal_host, "%.*s", (int)(colon - portal) - (brackets ? 2 : 0),
             portal + brackets);
    plan->portal_port = (uint16_t)port;
    return 0;
}

static int parse(const char *guest, const char *xml, xmlDoc **ret, struct err *err)
{
    size_t size = strnlen(xml, DOMAIN_XML_MAX + 1);

    if (size > DOMAIN_XML_MAX)
        return err_set(err, -EFBIG, "invalid", "guest '%s': its XML is larger than %u KiB; shorten it", guest,
                       DOMAIN_XML_MAX / 1024);
    cleanup_document xmlDoc *document =
        xmlReadMemory(xml, (int)size, "domain.xml", NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                      XML_PARSE_NOBLANKS | XML_PARSE_NOCDATA);
    if (!document) {
        const xmlError *reason = xmlGetLastError();
        int end = reason && reason->message ? (int)strcspn(reason->message, "\n") : 0;
        return err_set(err, -EINVAL, "invalid", "guest '%s': its XML cannot be read at line %d: %.*s; correct it",
                       guest,
                       reason ? reason->line : 0, end, end ? reason->message : "");
    }
    if (document->intSubset || document->extSubset)
        return err_set(err, -EINVAL, "invalid", "guest '%s': its XML declares a DOCTYPE, which is not read; remove it",
                       guest);
    const xmlNode *root = xmlDocGetRootElement(document);
    if (!root || xmlStrcmp(root->name, X("domain")))
        return err_set(err, -EINVAL, "invalid", "guest '%s': its XML is <%s>, not <domain>; give a libvirt domain",
                       guest,
                       root ? (const char *)root->name : "");
    *ret = document;
    document = NULL;
    return 0;
}

static bool is_element(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && (!name || !xmlStrcmp(node->name, X(name)));
}

static xmlNode *child(const xmlNode *parent, const char *name)
{
    for (xmlNode *node = parent ? parent->children : NULL; node; node = node->next)
        if (is_element(node, name))
            return node;
    return NULL;
}

static void remove_children(xmlNode *parent, const char *name)
{
    for (xmlNode *node = parent->children, *after; node; node = after) {
        after = node->next;
        if (!name || is_element(node, name)) {
            xmlUnlinkNode(node);
            xmlFreeNode(node);
        }
    }
}

static bool attribute_is(xmlNode *node, const char *name, const char *value)
{
    cleanup_text xmlChar *text = node ? xmlGetNoNsProp(node, X(name)) : NULL;

    return text && !xmlStrcmp(text, X(value));
}

static void set_attribute(xmlNode *node, const char *name, const char *value)
{
    check(xmlSetProp(node, X(name), X(value)));
}

static xmlNode *add_child(xmlNode *parent, const char *name)
{
    xmlNode *node = xmlNewChild(parent, NULL, X(name), NULL);

    check(node);
    return node;
}

/* The one element of that name gets this text. */
static void set_text(xmlNode *parent, const char *name, const char *text)
{
    remove_children(parent, name);
    check(xmlNewTextChild(parent, NULL, X(name), X(text)));
}

/* What the disk is called in a sentence: its target, "vda". */
static void disk_name(xmlNode *disk, char ret[static 32])
{
    xmlNode *target = child(disk, "target");
    cleanup_text xmlChar *text = target ? xmlGetNoNsProp(target, X("dev")) : NULL;

    snprintf(ret, 32, "%.31s", text ? (const char *)text : "without a target");
}

static int check_disk(const char *guest, xmlNode *disk, char ret_volume[static DOMAIN_XML_NAME_MAX], struct err *err)
{
    char name[32];
    xmlNode *source = child(disk, "source");

    disk_name(disk, name);
    cleanup_text xmlChar *type = xmlGetNoNsProp(disk, X("type"));
    if (!attribute_is(disk, "type", "network"))
        return err_set(err, -EINVAL, "invalid", "guest '%s': disk %s is of type '%.32s', which the other node does "
                       "not have; "
                       "use <disk type='network'><source protocol='iscsi' name='VOLUME'/>", guest, name,
                       type ? (const char *)type : "file");
    if (!attribute_is(source, "protocol", "iscsi"))
        return err_set(err, -EINVAL, "invalid", "guest '%s': disk %s has no <source protocol='iscsi' name='VOLUME'/>; "
                       "name a "
                       "volume of this cluster", guest, name);
    cleanup_text xmlChar *volume = xmlGetNoNsProp(source, X("name"));
    if (!volume || !volume[0] || xmlStrlen(volume) >= (int)DOMAIN_XML_NAME_MAX || strpbrk((const char *)volume, ":/"))
        return err_set(err, -EINVAL, "invalid", "guest '%s': disk %s names '%.80s', which is no volume name; give the "
                       "name that "
                       "'hcictl volume list' shows", guest, name, volume ? (const char *)volume : "");
    strcpy(ret_volume, (const char *)volume);
    return 0;
}

static int volume_add(const char *guest, struct domain_xml_volumes *volumes, const char *name, struct err *err)
{
    for (unsigned i = 0; i < volumes->count; i++)
        if (!strcmp(volumes->names[i], name))
            return err_set(err, -EINVAL, "invalid", "guest '%s': two disks name volume '%s'; remove one", guest, name);
    if (volumes->count == DOMAIN_XML_VOLUMES_MAX)
        return err_set(err, -E2BIG, "invalid", "guest '%s': more than %u disks; a group has at most %u volumes", guest,
                       DOMAIN_XML_VOLUMES_MAX, DOMAIN_XML_VOLUMES_MAX);
    strcpy(volumes->names[volumes->count++], name);
    return 0;
}

static int check_document(const char *guest, xmlDoc *document, struct domain_xml_volumes *ret, struct err *err)
{
    xmlNode *devices = child(xmlDocGetRootElement(document), "devices");
    int r = 0;

    ret->count = 0;
    for (xmlNode *disk = devices ? devices->children : NULL; disk && !r; disk = disk->next) {
        char volume[DOMAIN_XML_NAME_MAX];
        if (!is_element(disk, "disk"))
            continue;
        r = check_disk(guest, disk, volume, err);
        if (!r)
            r = volume_add(guest, ret, volume, err);
    }
    if (!r && !ret->count)
        r = err_set(err, -EINVAL, "invalid", "guest '%s': its XML has no disk; add <disk type='network' "
                    "device='disk'><source "
                    "protocol='iscsi' name='VOLUME'/><target dev='vda' bus='virtio'/></disk>", guest);
    return r;
}

int domain_xml_check(const char *guest, const char *xml, struct domain_xml_volumes *ret, struct err *err)
{
    cleanup_document xmlDoc *document = NULL;
    struct domain_xml_volumes volumes;

    int r = domain_xml_check_name(guest, err);
    if (!r)
        r = parse(guest, xml, &document, err);
    if (!r)
        r = check_document(guest, document, &volumes, err);
    if (!r)
        *ret = volumes;
    return r;
}

static bool is_of_group(const struct domain_xml_plan *plan, const char *volume)
{
    for (unsigned i = 0; i < plan->volumes->count; i++)
        if (!strcmp(plan->volumes->names[i], volume))
            return true;
    return false;
}

static void complete_source(xmlNode *disk, const char *volume, const struct domain_xml_plan *plan)
{
    char text[256], id[ID_TEXT_SIZE];

    remove_children(disk, "source");
    remove_children(disk, "auth"); /* older place of the same thing */
    xmlNode *source = add_child(disk, "source");
    set_attribute(source, "protocol", "iscsi");
    snprintf(text, sizeof text, "iqn.2026-01.io.hci:%s/0", volume);
    set_attribute(source, "name", text);
    xmlNode *host = add_child(source, "host");
    set_attribute(host, "name", plan->portal_host);
    snprintf(text, sizeof text, "%u", plan->portal_port);
    set_attribute(host, "port", text);
    if (plan->chap_user) {
        xmlNode *auth = add_child(source, "auth");
        set_attribute(auth, "username", plan->chap_user);
        xmlNode *secret = add_child(auth, "secret");
        set_attribute(secret, "type", "iscsi");
        set_attribute(secret, "uuid", id_format(plan->secret, id));
    }
    set_attribute(add_child(add_child(source, "initiator"), "iqn"), "name", plan->initiator);
}

static void complete_disk(xmlNode *disk, const char *volume, const struct domain_xml_plan *plan)
{
    static const char *const unwanted[] = {"backingStore", "mirror", "transient", "readonly",
                                           "shareable", "encryption"};
    xmlNode *driver = child(disk, "driver");

    for (unsigned i = 0; i < sizeof unwanted / sizeof *unwanted; i++)
        remove_children(disk, unwanted[i]);
    complete_source(disk, volume, plan);
    if (!driver)
        driver = add_child(disk, "driver");
    set_attribute(driver, "name", "qemu");
    set_attribute(driver, "type", "raw");
    set_attribute(driver, "cache", "none");
    /* An error pauses the guest rather than reach its file system; it is resumed when the group serves again. */
    set_attribute(driver, "error_policy", "stop");
    set_attribute(driver, "rerror_policy", "stop");
}

/* libvirt keeps the first element of a namespace and drops the others: a mark that came with the user's XML, as in a copy
 * of a running domain's, would stand for the one made here. */
static void remove_marks(xmlNode *metadata)
{
    for (xmlNode *node = metadata->children, *after; node; node = after) {
        after = node->next;
        if (node->type == XML_ELEMENT_NODE && node->ns && !xmlStrcmp(node->ns->href, X(DOMAIN_XML_MARK_URI))) {
            xmlUnlinkNode(node);
            xmlFreeNode(node);
        }
    }
}

static void complete_root(xmlNode *root, const struct domain_xml_plan *plan)
{
    char text[64], id[ID_TEXT_SIZE];
    xmlNode *metadata = child(root, "metadata");

    xmlUnsetProp(root, X("id"));
    set_text(root, "name", plan->guest);
    set_text(root, "uuid", id_format(&plan->group, id));
    /* A QEMU that ended is restarted by vmhad under a new incarnation, never by libvirt under the old one. */
    set_text(root, "on_poweroff", "destroy");
    set_text(root, "on_crash", "destroy");
    remove_children(root, "on_lockfailure");
    if (!metadata)
        metadata = add_child(root, "metadata");
    remove_marks(metadata);
    xmlNode *mark = add_child(metadata, "guest");
    xmlNs *space = xmlNewNs(mark, X(DOMAIN_XML_MARK_URI), X("hci"));
    check(space);
    xmlSetNs(mark, space);
    set_attribute(mark, "group", id);
    snprintf(text, sizeof text, "%" PRIu64, plan->incarnation);
    set_attribute(mark, "incarnation", text);
}

static int complete_disks(xmlNode *devices, const struct domain_xml_plan *plan, struct err *err)
{
    for (xmlNode *disk = devices->children; disk; disk = disk->next) {
        char volume[DOMAIN_XML_NAME_MAX];
        if (!is_element(disk, "disk"))
            continue;
        int r = check_disk(plan->guest, disk, volume, err);
        if (r)
            return r;
        if (!is_of_group(plan, volume))
            return err_set(err, -EINVAL, "invalid", "guest '%s': volume '%s' is not of group '%s'; the disks of a "
                           "guest are "
                           "volumes of one group: 'hcictl volume create' takes --group", plan->guest, volume,
                           plan->group_name);
        complete_disk(disk, volume, plan);
    }
    return 0;
}

int domain_xml_complete(const char *xml, const struct domain_xml_plan *plan, char **ret_xml, struct err *err)
{
    cleanup_document xmlDoc *document = NULL;
    cleanup_text xmlChar *text = NULL;
    struct domain_xml_volumes volumes;
    int size;

    int r = parse(plan->guest, xml, &document, err);
    if (!r)
        r = check_document(plan->guest, document, &volumes, err);
    if (r)
        return r;
    xmlNode *root = xmlDocGetRootElement(document);
    r = complete_disks(child(root, "devices"), plan, err);
    if (r)
        return r;
    complete_root(root, plan);
    xmlDocDumpMemory(document, &text, &size);
    *ret_xml = text ? strdup((const char *)text) : NULL;
    return *ret_xml ? 0 : -ENOMEM;
}

int domain_xml_read_mark(const char *xml, struct id *ret_group, uint64_t *ret_incarnation)
{
    cleanup_document xmlDoc *document = xmlReadMemory(xml, (int)strnlen(xml, DOMAIN_XML_MAX), "mark.xml", NULL,
                                                      XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    xmlNode *mark = document ? xmlDocGetRootElement(document) : NULL;
    cleanup_text xmlChar *group = mark ? xmlGetNoNsProp(mark, X("group")) : NULL;
    cleanup_text xmlChar *incarnation = mark ? xmlGetNoNsProp(mark, X("incarnation")) : NULL;
    char *end;
    struct id id;

    if (!group || !incarnation || !isdigit(incarnation[0]) || id_parse((const char *)group, &id))
        return -EINVAL;
    uint64_t number = strtoull((const char *)incarnation, &end, 10);
    if (*end || !number)
        return -EINVAL;
    *ret_group = id;
    *ret_incarnation = number;
    return 0;
}

void domain_xml_secret(const char *guest, const struct id *secret, char *ret, unsigned size)
{
    char id[ID_TEXT_SIZE];
    int written = snprintf(ret, size, "<secret ephemeral='yes' private='yes'><uuid>%s</uuid><description>hci guest %s"
                           "</description><usage type='iscsi'><target>hci-%s</target></usage></secret>",
                           id_format(secret, id), guest, guest);
    check(written > 0 && (unsigned)written < size);
}
