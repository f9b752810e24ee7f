/* A volume's texts (lun.h: state, state_swap) as entries "KEY.VOLUME" of its group's metadata: durable on every member,
 * the same on both nodes. A change waits, silently, until somebody serves the group (R4). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

#define STATES_BYTES_MAX (METADATA_BYTES_MAX / 2) /* of all volumes of a group */

/* One change. It names its group by id: the group may be gone when the other node's answer comes. */
struct state_swap {
    struct list link; /* engine->state_swaps while it waits for its next try */
    struct engine *engine;
    struct id group;
    char key[METADATA_KEY_SIZE];
    char *expected, *value; /* owned */
    uint64_t deadline_ms;
    struct swap swap; /* at the authority */
    struct ring_mail mail;
    bool uncertain; /* an answer was lost */
    int result;
    void (*done)(void *userdata, int result);
    void *userdata;
};

static bool make_key(const struct lun *lun, const char *key, char ret[static METADATA_KEY_SIZE])
{
    return snprintf(ret, METADATA_KEY_SIZE, "%s.%s", key, lun->name) < (int)METADATA_KEY_SIZE;
}

const char *group_state_get(struct lun *lun, const char *key)
{
    const struct group *group = list_entry(lun, struct group_volume, lun)->group;
    char whole[METADATA_KEY_SIZE];
    return make_key(lun, key, whole) ? metadata_get(&group->metadata, whole) : NULL;
}

static void told(struct ring_mail *mail)
{
    struct state_swap *swap = list_entry(mail, struct state_swap, mail);
    swap->done(swap->userdata, swap->result);
    free(swap->expected);
    free(swap->value);
    free(swap);
}

static void finish(struct state_swap *swap, int result)
{
    list_remove(&swap->link);
    swap->result = result;
    swap->mail.run = told;
    ring_defer(swap->engine->ring, &swap->mail);
}

static void wait_again(struct state_swap *swap)
{
    list_remove(&swap->link);
    list_append(&swap->engine->state_swaps, &swap->link);
}

/* -ENOTCONN: the other node may have made it before the link broke. The next try finds out: -ESTALE may then mean that
 * it was made, and that another change followed; who asked must not take it for a change that was never made. */
static void tried(struct state_swap *swap, int result)
{
    swap->uncertain |= result == -ENOTCONN;
    if (result == -ESTALE && swap->uncertain)
        result = -EIO;
    if (result == -EAGAIN || result == -EBUSY || result == -ENOTCONN)
        wait_again(swap);
    else
        finish(swap, result == 0 || result == -ESTALE || result == -ENOSPC ? result : -EIO);
}

static void here_tried(struct swap *swap, int result, uint64_t version)
{
    struct state_swap *state_swap = swap->userdata;
    metadata_changes_clear(&swap->changes);
    tried(state_swap, result);
}

static void peer_tried(struct engine *engine, void *userdata, int result, uint64_t version, const uint8_t *data,
                       uint32_t size)
{
    tried(userdata, result);
}

static void try_peer(struct state_swap *swap)
{
    struct metadata_changes changes = {0};
    uint8_t *bytes = malloc(MIRROR_MAP_MAX);
    int error = bytes ? metadata_changes_add(&changes, swap->key, swap->expected, swap->value) : -ENOMEM;
    struct bytes_writer writer = bytes_writer_of(bytes, bytes ? MIRROR_MAP_MAX : 0);
    metadata_changes_encode(&changes, &writer);
    metadata_changes_clear(&changes);
    struct mirror_message message = {
        .kind = MIRROR_SWAP, .group = swap->group, .data_size = (uint32_t)bytes_written(&writer)};
    if (error < 0 || writer.failed)
        tried(swap, error < 0 ? error : -ENOSPC);
    else
        engine_ask_peer(swap->engine, &message, bytes, peer_tried, swap);
    free(bytes);
}

static void try_here(struct state_swap *swap, struct group *group)
{
    swap->swap = (struct swap){.done = here_tried, .userdata = swap};
    list_init(&swap->swap.link);
    int error = metadata_changes_add(&swap->swap.changes, swap->key, swap->expected, swap->value);
    if (error == 0)
        error = meta_swap(group, &swap->swap);
    if (error < 0)
        here_tried(&swap->swap, error, 0);
}

static void try_swap(struct state_swap *swap)
{
    struct engine *engine = swap->engine;
    struct group *group = engine_find_group(engine, &swap->group);
    list_remove(&swap->link);
    if (!group || group->dying || engine->stopping || ring_now_ms(engine->ring) > swap->deadline_ms)
        finish(swap, -EIO);
    else if (authority_is_authority(&group->authority))
        try_here(swap, group);
    else if (group->forwarding)
        try_peer(swap);
    else
        wait_again(swap);
}

void group_state_tick(struct engine *engine)
{
    struct list now;
    list_init(&now);
    while (!list_is_empty(&engine->state_swaps)) {
        struct list *item = engine->state_swaps.next;
        list_remove(item);
        list_append(&now, item);
    }
    while (!list_is_empty(&now))
        try_swap(list_entry(now.next, struct state_swap, link));
}

/* What initiators set must not take the room of what the cluster needs to change: owner records, access lists (R11). */
static bool leaves_room(const struct metadata *metadata, const char *key, const char *value)
{
    size_t others = 0, before = 0;
    for (unsigned i = 0; i < metadata->count; i++) {
        const struct metadata_entry *entry = &metadata->entries[i];
        if (strcmp(entry->key, key) == 0)
            before = strlen(entry->value);
        else if (strchr(entry->key, '.'))
            others += strlen(entry->key) + strlen(entry->value);
    }
    size_t after = value ? strlen(value) : 0;
    return after <= before || others + strlen(key) + after <= STATES_BYTES_MAX;
}

void group_state_swap(struct lun *lun, const char *key, const char *expected, const char *value,
                      void (*done)(void *userdata, int result), void *userdata)
{
    struct group *group = list_entry(lun, struct group_volume, lun)->group;
    struct state_swap *swap = calloc(1, sizeof *swap);
    check(swap && done);
    *swap = (struct state_swap){.engine = group->engine, .group = group->id, .done = done, .userdata = userdata};
    list_init(&swap->link);
    swap->deadline_ms = ring_now_ms(group->engine->ring) + GROUP_HELD_MS;
    swap->expected = expected ? strdup(expected) : NULL;
    swap->value = value ? strdup(value) : NULL;
    check((!expected || swap->expected) && (!value || swap->value));
    if (!make_key(lun, key, swap->key) || (value && strlen(value) >= LUN_STATE_MAX) ||
        !leaves_room(&group->metadata, swap->key, value))
        finish(swap, -ENOSPC);
    else
        try_swap(swap);
}

void group_state_changed(struct group *group)
{
    for (unsigned i = 0; i < GROUP_VOLUMES_MAX; i++)
        if (group->volumes[i].used && group->volumes[i].exported)
            lun_tell(&group->volumes[i].lun, LUN_STATE_CHANGED);
}

/* A volume of the same name must not find the texts of the one that was deleted. Each node does so as it removes it. */
static void forget(struct metadata *metadata, const char *volume)
{
    for (unsigned i = metadata->count; i-- > 0;) {
        char key[METADATA_KEY_SIZE];
        strcpy(key, metadata->entries[i].key);
        const char *dot = strchr(key, '.');
        if (dot && strcmp(dot + 1, volume) == 0)
            metadata_set(metadata, key, NULL);
    }
}

void group_state_forget(struct group *group, const char *volume)
{
    forget(&group->metadata, volume);
    if (group->has_next)
        forget(&group->next_metadata, volume);
}
