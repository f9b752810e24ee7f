/* The engine: its parts, its thread, the lease. */
#include "storaged/engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/seal.h"
#include "storaged/engine/engine_private.h"

#define RING_ENTRIES 1024u
#define ARENA_BYTES ((size_t)128 << 20)
#define WORK_BYTES ((size_t)64 << 20)
#define RECEIVE_BYTES ((size_t)64 << 20)
#define TICK_MS 50u

/* ---- the lease (R8) --------------------------------------------------------------------------------------------------------- */

static void lease_tell(struct engine *engine);

static void lease_mailed(struct ring_mail *mail)
{
    struct engine *engine = list_entry(mail, struct engine, lease_mail);
    engine->lease_mailed = false;
    lease_tell(engine);
}

static bool lease_read(const struct engine *engine, uint64_t *ret_generation)
{
    const struct quorum_page *page = engine->quorum_page;
    if (!page || atomic_load_explicit(&page->magic, memory_order_acquire) != PAGE_MAGIC) {
        *ret_generation = engine->lapses;
        return false;
    }
    /* The deadline first: whoever extends it after a lapse has raised the generation before. */
    bool valid = quorum_page_lease_valid(page, clock_boottime_ns());
    *ret_generation = atomic_load_explicit(&page->generation, memory_order_acquire) + atomic_load_explicit(&page->boot, memory_order_acquire) + engine->lapses;
    return valid;
}

void engine_lease(struct engine *engine, bool *ret_valid, uint64_t *ret_generation)
{
    bool valid = lease_read(engine, ret_generation);
    *ret_valid = valid;
    if (valid || !engine->lease_valid)
        return;
    /* Ours to remember, too: what was held because of it waits for the cores to hear of it. */
    engine->lapses++;
    engine->lease_valid = false;
    if (!engine->lease_mailed)
        ring_defer(engine->ring, &engine->lease_mail);
    engine->lease_mailed = true;
}

/* Every core hears of every change, before anything else of this turn. */
static void lease_tell(struct engine *engine)
{
    uint64_t generation;
    bool valid = lease_read(engine, &generation);
    if (!valid && engine->lease_valid)
        engine->lapses++;
    if (valid == engine->lease_valid && generation == engine->lease_generation)
        return;
    if (valid != engine->lease_valid)
        log_info("own lease: %s", valid ? "valid" : "over");
    engine->lease_valid = valid;
    engine->lease_generation = generation;
    list_for_each(item, &engine->groups)
        group_tell_lease(list_entry(item, struct group, link), valid, generation);
}

static void follow_quorum_page(struct engine *engine)
{
    if (engine->quorum_page && page_is_current(engine->quorum_path, engine->quorum_page))
        return;
    page_close(engine->quorum_page);
    engine->quorum_page = NULL;
    const void *page;
    if (page_open(engine->quorum_path, &page, NULL) == 0)
        engine->quorum_page = page;
}

/* ---- groups -------------------------------------------------------------------------------------------------------------------- */

struct group *engine_find_group(struct engine *engine, const struct id *id)
{
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        if (id_equal(&group->id, id))
            return group;
    }
    return NULL;
}

struct group *engine_find_group_by_name(struct engine *engine, const char *name_or_id)
{
    struct id id;
    bool is_id = id_parse(name_or_id, &id) == 0;
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        if (strcmp(group->name, name_or_id) == 0 || (is_id && id_equal(&group->id, &id)))
            return group;
    }
    return NULL;
}

struct group_volume *engine_find_volume(struct engine *engine, const char *name)
{
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
            if (group->volumes[i].used && strcmp(group->volumes[i].name, name) == 0)
                return &group->volumes[i];
    }
    return NULL;
}

static void claim_now(struct engine *engine)
{
    struct engine_claim claim = {0};
    engine->claim_changed = false;
    list_for_each(item, &engine->groups) {
        const struct group *group = list_entry(item, struct group, link);
        if (group->authority.role == AUTHORITY_SOLE)
            claim.sole[claim.sole_count++] = group->id;
        else if (authority_is_authority(&group->authority) || group->authority.role == AUTHORITY_OPENING)
            claim.primary[claim.primary_count++] = group->id;
    }
    engine->options.port.claim(engine->options.port.userdata, &claim);
}

static void claim_mailed(struct ring_mail *mail)
{
    claim_now(list_entry(mail, struct engine, claim_mail));
}

void engine_roles_changed(struct engine *engine)
{
    if (!engine->claim_changed)
        ring_defer(engine->ring, &engine->claim_mail);
    engine->claim_changed = true;
}

/* ghost writes: nothing of the old connection may still run here when a new one is reported. */
void engine_check_drained(struct engine *engine)
{
    if (!engine->draining)
        return;
    list_for_each(item, &engine->groups) {
        const struct group *group = list_entry(item, struct group, link);
        if (group->quiescing || group->receipts || group->answers)
            return;
        list_for_each(entry, &group->running)
            if (!list_entry(entry, struct operation, link)->request)
                return;
    }
    engine->draining = false;
    mirror_link_release(engine->link);
}

/* ---- the beat -------------------------------------------------------------------------------------------------------------------- */

static void tick(struct ring_timer *timer)
{
    struct engine *engine = list_entry(timer, struct engine, tick);
    uint64_t now_ms = ring_now_ms(engine->ring);
    ring_timer_start(engine->ring, &engine->tick, TICK_MS);
    if (engine->storage_page)
        atomic_store_explicit(&engine->storage_page->beat, ring_beat(engine->ring), memory_order_release);
    if (engine->ticks++ % 2 == 0)
        follow_quorum_page(engine);
    lease_tell(engine);
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        session_commit_tick(group);
        group_expire_held(group, now_ms);
        meta_expire(group, now_ms);
    }
    group_state_tick(engine);
    volumes_tick(engine, now_ms);
    disks_tick(engine, now_ms);
    engine_check_drained(engine);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------- */

static int make_memory(struct engine *engine)
{
    size_t arena_bytes = engine->options.arena_bytes ? engine->options.arena_bytes : ARENA_BYTES;
    /* Answers to questions of an earlier start must not fit one of this start. */
    struct id random = id_random();
    memcpy(&engine->tags, random.bytes, sizeof engine->tags);
    memcpy(&engine->operation_serial, random.bytes + 8, 4);
    engine->operations = calloc(ENGINE_OPERATIONS_MAX, sizeof *engine->operations);
    engine->receipts = calloc(ENGINE_RECEIPTS_MAX, sizeof *engine->receipts);
    if (!engine->operations || !engine->receipts)
        return -ENOMEM;
    for (unsigned i = 0; i < ENGINE_OPERATIONS_MAX; i++)
        list_append(&engine->free_operations, &engine->operations[i].link);
    for (unsigned i = 0; i < ENGINE_RECEIPTS_MAX; i++)
        list_append(&engine->free_receipts, &engine->receipts[i].link);
    int error = iobuf_arena_new(arena_bytes, &engine->arena);
    if (error == 0)
        error = iobuf_arena_new(WORK_BYTES, &engine->work);
    if (error == 0)
        error = iobuf_arena_new(RECEIVE_BYTES, &engine->receive);
    return error;
}

static int make_pages(struct engine *engine, struct err *err)
{
    snprintf(engine->quorum_path, sizeof engine->quorum_path, "%s/quorum.page", engine->site->run_folder);
    snprintf(engine->storage_path, sizeof engine->storage_path, "%s/storaged.page", engine->site->run_folder);
    void *page;
    int error = page_make(engine->storage_path, &page, err);
    if (error < 0)
        return error;
    engine->storage_page = page;
    uint64_t boot;
    seal_random(&boot, sizeof boot);
    atomic_store(&engine->storage_page->boot, boot);
    atomic_store_explicit(&engine->storage_page->magic, PAGE_MAGIC, memory_order_release);
    follow_quorum_page(engine);
    engine->lease_valid = lease_read(engine, &engine->lease_generation);
    return 0;
}

static int make_target(struct engine *engine, struct err *err)
{
    engine->luns = lun_table_new();
    if (!engine->luns)
        return err_set(err, -ENOMEM, "memory", "iSCSI target: no memory");
    if (engine->options.no_portals)
        return 0;
    size_t arena_bytes = engine->options.arena_bytes ? engine->options.arena_bytes : ARENA_BYTES;
    struct iscsi_target_options options = {.port_group = (uint16_t)(engine->site->self + 1), .memory_bytes = arena_bytes};
    int error = iscsi_target_new(engine->ring, engine->arena, engine->luns, &options, &engine->target);
    if (error < 0)
        return err_set(err, error, "memory", "iSCSI target: cannot be made (%s)", strerror(-error));
    for (unsigned i = 0; i < engine->site->portal_count && error == 0; i++)
        error = iscsi_target_listen(engine->target, engine->site->portals[i], err);
    return error;
}

static int make_link(struct engine *engine, struct err *err)
{
    struct mirror_link_options options = {
        .ring = engine->ring,
        .receive = engine->receive,
        .site = engine->site,
        .identity = engine->options.identity,
        .boot = engine->boot,
        .callbacks = engine_link_callbacks,
        .userdata = engine,
    };
    return mirror_link_new(&options, &engine->link, err);
}

static void stop_run(struct ring_mail *mail);

int engine_new(const struct engine_options *options, struct engine **ret, struct err *err)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return err_set(err, -ENOMEM, "memory", "storage engine: no memory");
    engine->options = *options;
    engine->site = options->site;
    engine->boot = id_random();
    engine->witness_up = true;
    engine->peer_suspect = options->site->standalone; /* there is none to wait for */
    engine->tick.expired = tick;
    engine->lease_mail.run = lease_mailed;
    engine->claim_mail.run = claim_mailed;
    engine->stop_mail.run = stop_run;
    list_init(&engine->groups);
    list_init(&engine->free_operations);
    list_init(&engine->free_receipts);
    list_init(&engine->starved);
    list_init(&engine->state_swaps);
    list_init(&engine->peer_calls);
    list_init(&engine->removals);
    err_set(&engine->pool_error, -ENOENT, "no_pool", "this node has no pool; make one with 'hcictl pool create'");
    int error = ring_new(RING_ENTRIES, &engine->ring);
    if (error == 0)
        error = make_memory(engine);
    if (error < 0)
        err_set(err, error, "memory", "storage engine: cannot be made (%s)", strerror(-error));
    if (error == 0)
        error = make_pages(engine, err);
    if (error == 0)
        error = make_target(engine, err);
    if (error == 0)
        error = make_link(engine, err);
    if (error < 0) {
        engine_free(engine);
        return error;
    }
    *ret = engine;
    return 0;
}

/* A standalone node's writes carry no dirty marks (R3), so such a group must not be taken for one whose other copy is
 * explained by them. Nor may a pair's group be written without them because a line of hci.conf is missing. A pair's
 * group has both members at its first epoch. */
static bool is_of_this_site(const struct engine *engine, const struct group_blob *blob)
{
    bool of_standalone = blob->record.epoch == 1 && blob->record.members != AUTHORITY_BOTH;
    if (of_standalone == engine->site->standalone)
        return true;
    log_error(of_standalone ? "group '%s' was made while this node stood alone; it cannot be mirrored yet and is not served: copy "
                              "it to a new volume, with one node in hci.conf"
                            : "group '%s' belongs to a pair of nodes, but hci.conf names only this one; it is not served: restore "
                              "the other node's section",
              blob->name);
    return false;
}

static void group_found(void *userdata, const struct id *id, const void *bytes, uint32_t size)
{
    struct engine *engine = userdata;
    struct group_blob blob = {0};
    char text[ID_TEXT_SIZE];
    if (group_blob_decode(bytes, size, &blob) < 0) {
        log_error("group %s: its record cannot be read; it is not served", id_format(id, text));
        return;
    }
    if (!is_of_this_site(engine, &blob)) {
        metadata_clear(&blob.metadata);
        return;
    }
    struct group *group = group_new(engine, id, blob.name);
    check(group);
    group->metadata = blob.metadata;
    group->authority.record = blob.record; /* what group_start tells the core */
    for (unsigned i = 0; i < blob.volume_count; i++) {
        struct group_volume *volume = group_add_volume(group, &blob.volumes[i].id, blob.volumes[i].name, blob.volumes[i].size_bytes);
        if (!volume->stored)
            log_error("volume '%s': it is in the record of group '%s' but not in the pool; it is not exported", volume->name, group->name);
    }
}

int engine_open_pool(struct engine *engine, const char *const *paths, unsigned path_count, struct err *err)
{
    if (engine->pool)
        return err_set(err, -EEXIST, "exists", "this node has a pool already; 'hcictl pool show' tells which");
    int error = pool_open_without(engine->ring, paths, path_count, engine->lost_disks, engine->lost_count, &engine->pool, &engine->pool_error);
    if (error < 0) {
        engine->pool = NULL;
        if (err)
            *err = engine->pool_error;
        return error;
    }
    disks_opened(engine);
    pool_group_each(engine->pool, group_found, engine);
    list_for_each(item, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        struct authority_record record = group->authority.record;
        group_start(group, &record);
    }
    return 0;
}

int engine_run(struct engine *engine)
{
    ring_timer_start(engine->ring, &engine->tick, 0);
    return ring_run(engine->ring);
}

struct lun_table *engine_luns(struct engine *engine)
{
    return engine->luns;
}

struct ring *engine_ring(struct engine *engine)
{
    return engine->ring;
}

/* ---- stopping: initiators first, then the link, then what still runs; bounded ------------------------------------------------------- */

#define STOP_MS 5000u

static bool is_drained(struct engine *engine)
{
    list_for_each(item, &engine->groups) {
        const struct group *group = list_entry(item, struct group, link);
        if (!group_is_drained(group) || group->saves || group->answers)
            return false;
    }
    struct iscsi_target_stats stats = {0};
    if (engine->target)
        iscsi_target_get_stats(engine->target, &stats);
    return stats.connections == 0 && stats.sessions == 0 && !mirror_link_is_open(engine->link) && !engine->link_up;
}

/* SANITIZE goes on without a connection. */
static void stop_sanitizing(struct group *group)
{
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].exported && group->volumes[i].lun.sanitize)
            lun_expel(&group->volumes[i].lun, NULL, "the storage daemon stops");
}

static void stop_step(struct ring_timer *timer)
{
    struct engine *engine = list_entry(timer, struct engine, stop_timer);
    list_for_each(item, &engine->groups) {
        group_drop_held(list_entry(item, struct group, link), "the storage daemon stops");
        stop_sanitizing(list_entry(item, struct group, link));
    }
    engine->stopped_cleanly = is_drained(engine);
    if (engine->stopped_cleanly || ring_now_ms(engine->ring) > engine->stop_deadline_ms)
        ring_stop(engine->ring);
    else
        ring_timer_start(engine->ring, &engine->stop_timer, 10);
}

static void stop_run(struct ring_mail *mail)
{
    struct engine *engine = list_entry(mail, struct engine, stop_mail);
    if (engine->stopping)
        return;
    engine->stopping = true;
    engine->stop_timer.expired = stop_step;
    engine->stop_deadline_ms = ring_now_ms(engine->ring) + STOP_MS;
    log_notice("stopping: closing the initiators' connections and the mirror link");
    if (engine->target)
        iscsi_target_stop(engine->target);
    mirror_link_allow(engine->link, false, "this storage daemon stops");
    ring_timer_start(engine->ring, &engine->stop_timer, 10);
}

void engine_stop(struct engine *engine)
{
    ring_post(engine->ring, &engine->stop_mail);
}

static void free_groups(struct engine *engine)
{
    list_for_each_safe(item, after, &engine->groups) {
        struct group *group = list_entry(item, struct group, link);
        meta_lose(group);
        for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
            if (group->volumes[i].exported)
                lun_table_remove(engine->luns, &group->volumes[i].lun);
        group_free(group);
    }
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    bool clean = engine->stopped_cleanly || !engine->pool;
    if (!clean) {
        /* What is still under way would be pulled from under the kernel: the process ends instead, like in a crash. */
        log_warning("stopped with work under way; the journal tells the rest at the next start");
        return;
    }
    mirror_link_free(engine->link);
    if (engine->target)
        iscsi_target_free(engine->target);
    free_groups(engine);
    if (engine->pool)
        pool_close(engine->pool);
    if (engine->luns)
        lun_table_free(engine->luns);
    ring_timer_stop(&engine->tick);
    ring_timer_stop(&engine->stop_timer);
    iobuf_arena_free(engine->arena);
    iobuf_arena_free(engine->work);
    iobuf_arena_free(engine->receive);
    page_close(engine->quorum_page);
    page_close(engine->storage_page);
    if (engine->ring)
        ring_free(engine->ring);
    free(engine->operations);
    free(engine->receipts);
    free(engine);
}
