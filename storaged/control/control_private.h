/* Private to control*.c. */
#pragma once

#include <jansson.h>
#include <pthread.h>

#include "common/control.h"
#include "storaged/control/control.h"

/* Mail from the data thread; allocated there, freed here. */
struct notice {
    struct list link;
    enum { NOTICE_CAS, NOTICE_PEER_LEASE, NOTICE_CLAIM, NOTICE_APPLIED, NOTICE_GROUP, NOTICE_META, NOTICE_LINK, NOTICE_RESYNC, NOTICE_CALL, NOTICE_DISK, NOTICE_WORK } kind;
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
        struct { struct pool_disk_info info; bool gone; } disk;
        struct work *work;
    };
};

/* What blocks for long (formatting disks) runs on a thread of its own, one at a time. */
struct work {
    void (*run)(struct work *work);                            /* there; touches nothing of the control thread's */
    void (*done)(struct control *control, struct work *work); /* on the control thread; control->stopping: only clean up */
    struct control *control;
    pthread_t thread;
};

/* A request on the control socket that the engine is working on. */
struct pending {
    struct engine_call call;
    struct control *control;
    struct control_request *request;
    json_t *(*reply)(struct control *control, struct engine_call *call); /* the result of a call that succeeded */
    void (*then)(struct control *control, struct pending *pending); /* the next step of one that succeeded, instead of its reply */
    char paths[POOL_DISKS_MAX][256];
    const char *path_list[POOL_DISKS_MAX];
    struct id pool;
    struct work work;
    int work_result;
    struct err work_err;
    uint64_t file_bytes, journal_bytes;
    bool force;
    char old_disk[256]; /* disk.replace: what goes */
    json_t *params;     /* owned; target.set, target.chap */
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
    bool link_up, stopping;
    struct work *work; /* under way */
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
typedef json_t *reply_maker(struct control *control, struct engine_call *call);
extern const struct control_method control_methods[];
struct pending *pending_new(struct control *control, struct control_request *request, int kind, reply_maker *reply);
void pending_free(struct pending *pending);
void pending_submit(struct pending *pending);
void pending_fail(struct pending *pending, const struct err *err); /* answers and frees */
struct pending *pending_snapshot(struct control *control, struct control_request *request, reply_maker *reply);
/* NULL, and the request was answered, when it is missing or no text of that length. */
const char *request_text(struct control_request *request, json_t *params, const char *key, size_t size);
json_t *reply_nothing(struct control *control, struct engine_call *call);
void pending_done(struct engine_call *call); /* on the data thread: mails it back */
void pending_answer(struct control *control, struct engine_call *call);
void control_post_call(struct control *control, struct engine_call *call);

/* control_work.c */
/* -EBUSY with a sentence when one is under way. */
int work_start(struct control *control, struct work *work, struct err *err);
void work_handle(struct control *control, struct work *work); /* of the notice */
void control_post_work(struct control *control, struct work *work);

/* control_paths.c: pool.json; control_load_pool_places reads it */
/* These paths and no others; forgets what was given up. */
int paths_save(const struct control *control, const char *const *paths, unsigned count, struct err *err);
int paths_add(const struct control *control, const char *path, struct err *err); /* 0 also when it is there */
void paths_remove(const struct control *control, const char *path); /* a failure is logged: the path is ignored at the next start */
int paths_give_up(const struct control *control, const struct id *disk, struct pool_places *ret, struct err *err);

/* control_pool.c, control_disks.c, control_targets.c */
control_handler pool_create_method, pool_show_method, disk_list_method, disk_add_method, disk_remove_method, disk_replace_method;
control_handler target_show_method, target_set_method, target_chap_method;
void disk_tell(struct control *control, const struct pool_disk_info *disk, bool gone);

/* control_json.c */
json_t *json_of_group_state(const struct control *control, const struct engine_group_state *state);
json_t *json_of_disk(const struct pool_disk_info *disk, int64_t since_s);
json_t *json_of_disks(struct control *control, struct engine_call *call);
json_t *json_of_volumes(struct control *control, struct engine_call *call);
json_t *json_of_groups(struct control *control, struct engine_call *call);
json_t *json_of_pool(struct control *control, struct engine_call *call);
json_t *json_of_status(struct control *control, struct engine_call *call);
json_t *json_of_metadata(const struct metadata *metadata);
json_t *json_of_id(const struct id *id);
