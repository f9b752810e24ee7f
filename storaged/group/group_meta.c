/* The group's metadata: compare-and-swap at the authority, in the group's own stream, durable on every member before
 * it is answered; the whole map to a node that joins. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

bool meta_is_idle(const struct group *group)
{
    return group->meta_saves == 0;
}

/* What was made durable becomes what everybody sees. */
void meta_adopt(struct group *group)
{
    check(group->has_next);
    metadata_clear(&group->metadata);
    group->metadata = group->next_metadata;
    group->next_metadata = (struct metadata){0};
    group->has_next = false;
    admission_update(group);
    group_state_changed(group);
    struct engine_port *port = &group->engine->options.port;
    port->meta_changed(port->userdata, &group->id, group->name, group->metadata.version);
}

/* ---- at the authority ------------------------------------------------------------------------------------------------------ */

static void swap_done(struct group *group, struct swap *swap, int result, uint64_t version)
{
    list_remove(&swap->link);
    group->swap_count--;
    swap->done(swap, result, version);
}

static struct swap *first_swap(struct group *group)
{
    return list_is_empty(&group->swaps) ? NULL : list_entry(group->swaps.next, struct swap, link);
}

/* Durable here and, with a session, there? */
static void check_done(struct group *group)
{
    if (group->meta_saves || group->meta_flying)
        return;
    if (group->has_next)
        meta_adopt(group);
    struct swap *swap = first_swap(group);
    /* R1's guard, as for a write. Otherwise it is made durable again under the next session, or given up. */
    if (swap && swap->made_version && swap->made_version == group->metadata.version && group_may_complete(group))
        swap_done(group, swap, 0, group->metadata.version);
    if (group->resync.active && !group->resync.meta_sent)
        meta_send_whole(group); /* it had to wait for this swap */
    if (group->resync.active)
        resync_advance(group);
    meta_run(group);
}

static void saved(void *userdata, int result)
{
    struct group *group = userdata;
    check(group->meta_saves > 0);
    group->meta_saves--;
    if (result < 0) {
        group_store_failed(group, result, "write of metadata");
    } else {
        if (!list_is_empty(&group->meta_flight.link) && !group->meta_for_resync)
            session_stored(group, &group->meta_flight);
        check_done(group);
    }
    group_check_quiesced(group);
}

static void acked(struct flight *flight)
{
    struct group *group = list_entry(flight, struct group, meta_flight);
    group->meta_flying = false;
    if (group->meta_for_resync) {
        group->meta_for_resync = false;
        group->resync.meta_sent = true;
    }
    check_done(group);
}

static void send_map(struct group *group, const struct metadata *metadata)
{
    uint8_t *text = malloc(MIRROR_MAP_MAX);
    check(text);
    struct bytes_writer writer = bytes_writer_of(text, MIRROR_MAP_MAX);
    metadata_encode(metadata, &writer);
    check(!writer.failed); /* METADATA_BYTES_MAX and the entries' heads fit */
    group->meta_flight.acked = acked;
    uint64_t sequence = session_next(group, &group->meta_flight);
    struct mirror_message message;
    session_fill(group, &message, MIRROR_META);
    message.sequence = sequence;
    message.version = metadata->version;
    message.data_size = (uint32_t)bytes_written(&writer);
    group->meta_flying = true;
    mirror_link_post(group->engine->link, &message, text);
    free(text);
}

/* To a node that joins; a swap that is being made goes first. */
void meta_send_whole(struct group *group)
{
    if (group->meta_flying || group->has_next)
        return;
    group->meta_for_resync = true;
    group->resync.meta_sent = false;
    group->resync.meta_version = group->metadata.version;
    send_map(group, &group->metadata);
    session_stored(group, &group->meta_flight); /* it is from our own durable copy */
}

static int make_next(struct group *group, struct swap *swap)
{
    struct metadata next = {0};
    /* Made in an earlier session, unanswered: the map carries it already. */
    bool made = swap->made_version && swap->made_version == group->metadata.version;
    int error = made ? metadata_copy(&group->metadata, &next) : metadata_apply(&group->metadata, &swap->changes, &next);
    if (error < 0)
        return error;
    group->next_metadata = next;
    group->has_next = true;
    swap->made_version = next.version;
    return 0;
}

/* A target forwards its initiators' requests: it has to know who was fenced as soon as that is said to be so, not when
 * its copy is complete. */
static bool has_follower(const struct group *group)
{
    return group->dual || (group->session_as == AUTHORITY_SOLE && !id_is_null(&group->session));
}

void meta_run(struct group *group)
{
    struct swap *swap;
    while ((swap = first_swap(group))) {
        if (group->has_next || group->meta_flying || group->meta_saves || group->hold_writes || !group_may_complete(group))
            return;
        int error = make_next(group, swap);
        if (error == 0)
            break;
        swap_done(group, swap, error, group->metadata.version);
    }
    if (!swap)
        return;
    group->meta_for_resync = false;
    if (has_follower(group))
        send_map(group, &group->next_metadata);
    group->meta_saves++;
    int error = group_save(group, saved, group);
    if (error < 0) { /* the blob is full: nothing was begun in the pool */
        log_error("group '%s': its metadata does not fit its record", group->name);
        saved(group, error);
    }
}

int meta_swap(struct group *group, struct swap *swap)
{
    if (!authority_is_authority(&group->authority) || group->quiescing || group->dying)
        return -EAGAIN;
    if (group->swap_count == GROUP_SWAPS_MAX)
        return -EBUSY;
    swap->made_version = 0;
    swap->started_ms = ring_now_ms(group->engine->ring);
    list_append(&group->swaps, &swap->link);
    group->swap_count++;
    meta_run(group);
    return 0;
}

/* R4: what was under way is made anew by whoever serves next. */
void meta_hold(struct group *group)
{
    list_remove(&group->meta_flight.link);
    group->meta_flying = group->meta_for_resync = false;
    if (group->has_next && group->meta_saves == 0)
        meta_adopt(group); /* it is durable here, and may take effect like an unacknowledged write */
}

/* Like a held request: nobody serves the group, and who asked is to ask again. One that is being made is not given up. */
void meta_expire(struct group *group, uint64_t now_ms)
{
    struct swap *swap;
    while (!group->serving && !group->has_next && group->meta_saves == 0 && (swap = first_swap(group)) &&
           now_ms > swap->started_ms + GROUP_HELD_MS)
        swap_done(group, swap, -EAGAIN, 0);
}

void meta_lose(struct group *group)
{
    struct swap *swap;
    while ((swap = first_swap(group)))
        swap_done(group, swap, -EAGAIN, 0);
}

/* ---- at the other node ---------------------------------------------------------------------------------------------------------- */

static bool same_map(const struct metadata *left, const struct metadata *right)
{
    if (left->version != right->version || left->count != right->count)
        return false;
    for (unsigned i = 0; i < left->count; i++) {
        const char *value = metadata_get(right, left->entries[i].key);
        if (!value || strcmp(value, left->entries[i].value) != 0)
            return false;
    }
    return true;
}

/* What was let in and held while this node could not know of changes (reservations, owner, access list) is not sent to
 * the authority, which cannot judge whose it is: its initiator comes back and is judged anew. */
static void adopt_of_authority(struct group *group)
{
    bool same = same_map(&group->metadata, &group->next_metadata), first = !group->meta_known;
    meta_adopt(group);
    group->meta_known = true;
    if (first && same)
        group_run_held(group);
    else if (first)
        group_drop_held(group, "the volume's settings changed while this node was apart");
}

static void received_saved(void *userdata, int result)
{
    struct receipt *receipt = userdata;
    struct group *group = receipt->group;
    check(group->meta_saves > 0);
    group->meta_saves--;
    if (result == 0) {
        session_acknowledge(receipt);
        if (group->meta_saves == 0 && group->has_next && receipt_is_current(receipt))
            adopt_of_authority(group);
        else if (group->meta_saves == 0 && group->has_next)
            meta_adopt(group);
    }
    receipt_free(receipt);
    if (result < 0)
        group_store_failed(group, result, "write of metadata");
}

const char *meta_received(struct group *group, const struct mirror_message *message, uint8_t *data)
{
    struct metadata metadata = {0};
    struct bytes_reader reader = bytes_reader_of(data, message->data_size);
    int error = metadata_decode(&reader, &metadata);
    if (data)
        iobuf_put(group->engine->receive, data);
    struct receipt *receipt = NULL;
    if (error == 0 && bytes_done(&reader) && metadata.version == message->version)
        receipt = receipt_new(group, message, NULL);
    if (!receipt) {
        metadata_clear(&metadata);
        return "its metadata is malformed";
    }
    receipt->kind = RECEIPT_META;
    metadata_clear(&group->next_metadata);
    group->next_metadata = metadata;
    group->has_next = true;
    group->meta_saves++;
    error = group_save(group, received_saved, receipt);
    if (error < 0)
        received_saved(receipt, error);
    return NULL;
}
