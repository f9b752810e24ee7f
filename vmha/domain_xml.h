/* The domain XML of a guest: what a user may give, and what it becomes when this node starts it.
 * The only file that includes libxml2 headers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/id.h"

#define DOMAIN_XML_MAX (24u * 1024)  /* escaped as JSON it fits the metadata of a group (40 KiB in all) */
#define DOMAIN_XML_VOLUMES_MAX 8u
#define DOMAIN_XML_NAME_MAX 64u      /* with the NUL: of volumes and guests */
#define DOMAIN_XML_INITIATOR_MAX 224u
#define DOMAIN_XML_MARK_URI "urn:hci:guest"

struct domain_xml_volumes {
    unsigned count;
    char names[DOMAIN_XML_VOLUMES_MAX][DOMAIN_XML_NAME_MAX];
};

struct domain_xml_plan {
    const char *guest;
    struct id group;            /* becomes the domain's UUID: the same on either node and in every incarnation */
    uint64_t incarnation;
    const char *group_name;
    const struct domain_xml_volumes *volumes; /* of the group: no other may be named */
    const char *initiator;
    char portal_host[64];
    uint16_t portal_port;
    const char *chap_user;      /* NULL: none */
    const struct id *secret;    /* libvirt's secret that holds the CHAP secret */
};

/* A guest's name is part of an initiator name (RFC 3722: lower case letters, digits, '-'), of a folder and
 * of a file. */
int domain_xml_check_name(const char *name, struct err *err);
/* "iqn.2026-01.io.hci:guest.NAME.INCARNATION.NODE-NAME" */
void domain_xml_initiator(const char *guest, uint64_t incarnation, const char *node,
                          char ret[static DOMAIN_XML_INITIATOR_MAX]);
/* The first portal that this node reaches itself by: a loopback one, else the first. "127.0.0.1:3260" -> host, port. */
int domain_xml_portal(const char portals[][64], unsigned count, struct domain_xml_plan *plan, struct err *err);

/* Checks what the user gave and lists the volumes that its disks name. */
int domain_xml_check(const char *guest, const char *xml, struct domain_xml_volumes *ret, struct err *err);
/* The complete domain for libvirt. *ret_xml is the caller's (free). */
int domain_xml_complete(const char *xml, const struct domain_xml_plan *plan, char **ret_xml, struct err *err);
/* Reads back <guest group= incarnation=> of a running domain's metadata. */
int domain_xml_read_mark(const char *xml, struct id *ret_group, uint64_t *ret_incarnation);
/* <secret> for virSecretDefineXML. */
void domain_xml_secret(const char *guest, const struct id *secret, char *ret, unsigned size);
