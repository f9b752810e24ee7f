/* Private to control*.c. */
#pragma once

#include <jansson.h>
#include <pthread.h>

#include "common/control.h"
#include "storaged/control.h"

/* Mail from the data thread; allocated there, freed here. */
struct notice {
    struct list link;
    enum { NOTICE_CAS, NOTICE_PEER_LEASE, NOTICE_CLAIM, NOTICE_APPLIED, NOTICE_GROUP, NOTICE_META, NOTICE_LINK, NOTICE_RESYNC, NOTICE_CALL } kind;
    union {
        struct engine_cas cas;
        struct id group;
        struct engine_claim claim;
        uint64_t counter;
        struct engine_group_state state;
        struct { struct id group; char name[GROUP_NAME_SIZE]; uint64_t version; } meta;
        bool up;
        struct engine_resync_state resync;
        struct engine_call *call;
    };
};

/* A request on the control socket that the engine is working on. */
struct pending {
    struct engine_call call;
    struct control *control;
    struct control_request *request;
    json_t *(*reply)(struct control *control, struct engine_call *call); /* the result of a call that succeeded */
    char paths[POOL_DISKS_MAX][256];
    const char *path_list[POOL_DISKS_MAX];
    struct id pool;
};

struct control {
    sd_event *event;
    const struct site *site;
    struct engine *engine;
    struct control_server *server;
    struct control_client *quorumd;
    int wake_fd;
    sd_event_source *wake;
    pthread_mutex_t lock; /* guards `notices` */
    struct list notices;
    struct engine_claim claim; /* the last: told again when quorumd comes back */
    bool link_up;
    unsigned state_count;
    struct engine_group_state states[POOL_GROUPS_MAX]; /* for new subscribers */
};

/* control_quorum.c */
int quorum_start(struct control *control);
void quorum_ask_cas(struct control *control, const struct engine_cas *cas);
void quorum_ask_peer_lease(struct control *control, const struct id *group);
void quorum_claim(struct control *control);
void quorum_applied(struct control *control, uint64_t counter);

/* control_methods.c */
extern const struct control_method control_methods[];
void pending_done(struct engine_call *call); /* on the data thread: mails it back */
void pending_answer(struct control *control, struct engine_call *call);
void control_post_call(struct control *control, struct engine_call *call);

/* control_json.c */
json_t *json_of_group_state(const struct control *control, const struct engine_group_state *state);
json_t *json_of_volumes(struct control *control, struct engine_call *call);
json_t *json_of_groups(struct control *control, struct engine_call *call);
json_t *json_of_pool(struct control *control, struct engine_call *call);
json_t *json_of_status(struct control *control, struct engine_call *call);
json_t *json_of_metadata(const struct metadata *metadata);
json_t *json_of_id(const struct id *id);
