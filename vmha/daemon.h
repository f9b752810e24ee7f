/* hci-vmhad put together: the core, and the adapters that feed it and carry out what it decides. */
#pragma once

#include <systemd/sd-event.h>

#include "common/control.h"
#include "common/site.h"
#include "vmha/domain_xml.h"
#include "vmha/hypervisor.h"
#include "vmha/vmha_core.h"

/* What the metadata of a group says about its guest, as stored; the core keeps only the owner record. */
struct definition {
    bool used;
    struct id group;
    char *guest_text, *chap_text;  /* the raw entries: what a removal expects; NULL: none */
    char *xml;                     /* as the user gave it */
    char *chap_user, *chap_secret; /* NULL: none */
    uint64_t complained_version;   /* of an owner record that could not be read */
};

struct daemon {
    struct site site;
    sd_event *event;
    sd_event_source *timer;
    struct vmha_core *core;
    struct vmha_actions *actions;
    struct control_server *server;
    struct control_client *storaged, *quorumd;
    struct hypervisor *hypervisor;
    struct definition definitions[VMHA_GROUPS_MAX];
};

int daemon_new(sd_event *event, const struct site *site, struct daemon **ret, struct err *err);
void daemon_free(struct daemon *daemon);

/* One step of the core, and its actions carried out. */
void daemon_feed(struct daemon *daemon, struct vmha_event *event);
struct vmha_event daemon_event(enum vmha_event_kind kind);

/* NULL when the group has no guest that is known. */
struct definition *daemon_definition(struct daemon *daemon, const struct id *group);

/* links.c: the connections to hci-storaged and hci-quorumd. */
int links_open(struct daemon *daemon);
void links_read(struct daemon *daemon, const struct vmha_action *action);
void links_swap(struct daemon *daemon, const struct vmha_action *action);
void links_ask_peer_lease(struct daemon *daemon);
void links_register(struct daemon *daemon, const struct vmha_action *action);
void links_thaw(struct daemon *daemon, const struct vmha_action *action);
void links_sign_gone(struct daemon *daemon, const struct vmha_action *action);

/* meta.c: metadata of a group as JSON -> what the core and the starter need. */
int meta_read(struct daemon *daemon, const struct id *group, json_t *result, struct vmha_meta *ret);
void meta_forget(struct definition *definition);

/* guests.c: actions that end at the hypervisor. */
int guests_open(struct daemon *daemon, struct err *err);
void guests_perform(struct daemon *daemon, const struct vmha_action *action);
/* Finds the volumes of a group in the answer to group.list. *ret_name is borrowed from the answer. */
int guests_volumes(json_t *groups, const struct id *group, struct domain_xml_volumes *ret, const char **ret_name);
/* Fills what does not depend on the group. */
int guests_plan(struct daemon *daemon, const char *guest, uint64_t incarnation, struct domain_xml_plan *ret,
                char initiator[static DOMAIN_XML_INITIATOR_MAX], struct err *err);

/* control.c: the socket for hcictl. */
extern const struct control_method control_methods[];
void control_answer_command(struct daemon *daemon, const struct vmha_action *action);
json_t *control_describe(struct daemon *daemon, const struct vmha_guest *guest);
/* add.c */
void control_vm_add(struct control_request *request, json_t *params, void *userdata);
