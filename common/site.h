/* The site's configuration (/etc/hci/hci.conf and /etc/hci/secrets.conf, read with libconfuse): which nodes,
 * which links, which witness. Written by `hcictl cluster init|join`; only site.c includes confuse.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/id.h"
#include "common/seal.h"

#define SITE_LINKS_MAX 4
#define SITE_PORTALS_MAX 8
#define SITE_NAME_MAX 64
#define SITE_ADDRESS_MAX 64

/* protocol "Timing profiles" */
struct site_profile {
    char name[16];
    uint32_t lease_ms;         /* L */
    uint32_t promise_ms;       /* G >= L(1+2ρ)+ε */
    uint32_t heartbeat_ms;     /* between the nodes */
    uint32_t suspect_ms;       /* no heartbeat on any link for so long */
    uint32_t watchdog_ms;      /* armed period */
};

struct site_node {
    char name[SITE_NAME_MAX];
    struct id id;
    unsigned link_count;
    char links[SITE_LINKS_MAX][SITE_ADDRESS_MAX]; /* same order on both nodes */
};

struct site {
    char name[SITE_NAME_MAX];
    struct id id;
    struct site_profile profile;
    struct site_node nodes[2]; /* in the order of their ids: index 0 has the lower id (protocol's A) */
    unsigned self;             /* index into nodes */
    bool standalone;           /* one node, nodes[0]: no mirror, no witness, no quorum; nodes[1] is empty */
    bool has_witness;
    struct id witness_id;
    char witness_address[SITE_ADDRESS_MAX];
    uint16_t witness_port;     /* UDP; enrolment is TCP on the same number */
    uint16_t quorum_port;      /* UDP heartbeats between nodes, default 7202 */
    uint16_t mirror_port;      /* TCP, default 7201 */
    unsigned portal_count;
    char portals[SITE_PORTALS_MAX][SITE_ADDRESS_MAX]; /* "127.0.0.1:3260" */
    char watchdog_device[108]; /* "" when none */
    char watchdog_socket[108]; /* the lab's watchdog, "" when none */
    uint32_t watchdog_ms;      /* armed period: profile's unless set */
    uint32_t watchdog_reset_ms; /* time from expiry to power off, default 300 */
    char cgroup_root[108];     /* cgroup2 folder for guests, default /sys/fs/cgroup/hci-guests */
    char libvirt_uri[108];     /* default qemu:///system */
    char pki_folder[108];      /* /etc/hci/pki: ca.crt node.crt node.key [ca.key] */
    char state_folder[108];    /* /var/lib/hci */
    char run_folder[108];      /* /run/hci */
};

/* Symmetric keys, one per direction; wiped by the owner. Zero when not enrolled. */
struct site_secrets {
    uint8_t to_peer[SEAL_KEY_SIZE], from_peer[SEAL_KEY_SIZE];
    uint8_t to_witness[SEAL_KEY_SIZE], from_witness[SEAL_KEY_SIZE];
};

#define SITE_CONFIG_PATH "/etc/hci/hci.conf"
#define SITE_SECRETS_PATH "/etc/hci/secrets.conf"

/* Errors are one sentence: the file, the line, the value, what is allowed. */
int site_load(const char *path, struct site *ret, struct err *err);
/* Refuses a file that others may read. */
int site_load_secrets(const char *path, struct site_secrets *ret, struct err *err);
/* Refuses keys that are missing (zero) although `site` needs them: a datagram sealed with zeros is anybody's. `path` is
 * the file they were read from. */
int site_check_secrets(const char *path, const struct site *site, const struct site_secrets *secrets, struct err *err);
/* Writes what site_load reads back; used by enrolment. */
int site_save(const char *path, const struct site *site, struct err *err);
int site_save_secrets(const char *path, const struct site_secrets *secrets, struct err *err);
/* For the daemons that a standalone node does not need: refuses its site with a sentence. */
int site_check_pair(const char *path, const struct site *site, const char *daemon, struct err *err);
/* "fast", "default", "slow"; -EINVAL otherwise. */
int site_profile_by_name(const char *name, struct site_profile *ret);

static inline const struct site_node *site_self(const struct site *site) { return &site->nodes[site->self]; }
/* Not of a standalone site. */
static inline const struct site_node *site_peer(const struct site *site) { return &site->nodes[!site->self]; }
