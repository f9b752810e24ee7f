/* The engine's plain values as JSON for people and programs. */
#include <stdio.h>
#include <string.h>

#include "quorum/authority_core.h"
#include "storaged/control/control_private.h"

json_t *json_of_id(const struct id *id)
{
    char text[ID_TEXT_SIZE];
    return json_string(id_format(id, text));
}

static json_t *json_of_members(const struct control *control, uint8_t members)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < 2; i++)
        if (members & 1u << i)
            json_array_append_new(array, json_string(control->site->nodes[i].name));
    return array;
}

static const char *role_name(const struct engine_group_state *state)
{
    return state->gone ? "gone" : fsm_name(&authority_roles, state->role);
}

json_t *json_of_group_state(const struct control *control, const struct engine_group_state *state)
{
    return json_pack("{s:o, s:s, s:s, s:b, s:b, s:I, s:o}", "group", json_of_id(&state->group), "name", state->name, "role",
                     role_name(state), "serving", state->serving, "local", state->local, "epoch", (json_int_t)state->epoch, "members",
                     json_of_members(control, state->members));
}

json_t *json_of_metadata(const struct metadata *metadata)
{
    json_t *entries = json_object();
    for (unsigned i = 0; i < metadata->count; i++)
        json_object_set_new(entries, metadata->entries[i].key, json_string(metadata->entries[i].value));
    return entries;
}

/* ---- volumes and groups ---------------------------------------------------------------------------------------------------- */

/* Which node orders the writes; NULL when it cannot be known from here. */
static const char *primary_node(const struct control *control, const struct engine_group_state *state)
{
    if (state->local)
        return site_self(control->site)->name;
    bool peer_serves = state->role == AUTHORITY_SECONDARY || state->role == AUTHORITY_TARGET;
    return peer_serves ? site_peer(control->site)->name : NULL;
}

static void describe(const struct control *control, const struct engine_group_info *info, char *ret, size_t size)
{
    const char *peer = control->site->standalone ? "" : site_peer(control->site)->name;
    if (control->site->standalone && info->state.role == AUTHORITY_SOLE) {
        snprintf(ret, size, "current; this node stands alone, there is no second copy");
        return;
    }
    switch (info->state.role) {
    case AUTHORITY_PRIMARY:
    case AUTHORITY_SECONDARY: snprintf(ret, size, "both copies current"); break;
    case AUTHORITY_GROWING: snprintf(ret, size, "both copies current; the witness confirms"); break;
    case AUTHORITY_SOLE:
        if (info->resync_active)
            snprintf(ret, size, "node %s is being brought up to date: %llu KiB left", peer, (unsigned long long)info->resync_left / 1024);
        else
            snprintf(ret, size, "only this copy is current; node %s is behind", peer);
        break;
    case AUTHORITY_TARGET: snprintf(ret, size, "this copy is being brought up to date by node %s", peer); break;
    default: snprintf(ret, size, "%s", info->reason); break;
    }
}

static json_t *json_of_volume(const struct control *control, const struct engine_group_info *group, const struct engine_volume_info *volume)
{
    char state[320], iqn[160];
    const char *primary = primary_node(control, &group->state);
    describe(control, group, state, sizeof state);
    snprintf(iqn, sizeof iqn, "%s%s", LUN_IQN_PREFIX, volume->name);
    json_t *json = json_pack("{s:s, s:o, s:o, s:s, s:I, s:I, s:s}", "name", volume->name, "id", json_of_id(&volume->id), "group",
                             json_of_id(&group->state.group), "group_name", group->state.name, "size_bytes", (json_int_t)volume->size_bytes,
                             "used_bytes", (json_int_t)volume->used_bytes, "iqn", iqn);
    json_object_set_new(json, "role", json_string(role_name(&group->state)));
    json_object_set_new(json, "serving", json_boolean(group->state.serving));
    json_object_set_new(json, "primary_node", primary ? json_string(primary) : json_null());
    json_object_set_new(json, "epoch", json_integer((json_int_t)group->state.epoch));
    json_object_set_new(json, "members", json_of_members(control, group->state.members));
    json_object_set_new(json, "state", json_string(state));
    json_object_set_new(json, "behind_bytes", json_integer(control->site->standalone ? 0 : (json_int_t)group->behind_bytes));
    json_object_set_new(json, "lost_bytes", json_integer((json_int_t)volume->lost_bytes));
    return json;
}

json_t *json_of_volumes(struct control *control, struct engine_call *call)
{
    const struct engine_snapshot *snapshot = call->snapshot;
    json_t *volumes = json_array();
    for (unsigned i = 0; i < snapshot->group_count; i++)
        for (unsigned v = 0; v < snapshot->groups[i].volume_count; v++)
            json_array_append_new(volumes, json_of_volume(control, &snapshot->groups[i], &snapshot->groups[i].volumes[v]));
    return json_pack("{s:o}", "volumes", volumes);
}

static json_t *json_of_group(const struct control *control, const struct engine_group_info *info)
{
    json_t *json = json_of_group_state(control, &info->state), *volumes = json_array();
    for (unsigned i = 0; i < info->volume_count; i++)
        json_array_append_new(volumes, json_pack("{s:s, s:o, s:I}", "name", info->volumes[i].name, "id", json_of_id(&info->volumes[i].id),
                                                 "size_bytes", (json_int_t)info->volumes[i].size_bytes));
    json_object_set_new(json, "volumes", volumes);
    json_object_set_new(json, "meta_version", json_integer((json_int_t)info->meta_version));
    json_object_set_new(json, "reason", json_string(info->reason));
    json_object_set_new(json, "held_requests", json_integer(info->held));
    return json;
}

json_t *json_of_groups(struct control *control, struct engine_call *call)
{
    json_t *groups = json_array();
    for (unsigned i = 0; i < call->snapshot->group_count; i++)
        json_array_append_new(groups, json_of_group(control, &call->snapshot->groups[i]));
    return json_pack("{s:o}", "groups", groups);
}

/* ---- disks ----------------------------------------------------------------------------------------------------------------- */

json_t *json_of_disk(const struct pool_disk_info *disk, int64_t since_s)
{
    static const char *const states[] = {"ok", "draining", "failed", "missing"};
    json_t *json = json_pack("{s:o, s:s, s:s, s:I, s:I, s:I}", "id", json_of_id(&disk->id), "path", disk->path, "state", states[disk->state],
                             "total_bytes", (json_int_t)disk->total_bytes, "used_bytes", (json_int_t)disk->used_bytes, "drain_left_bytes",
                             (json_int_t)disk->drain_left_bytes);
    json_object_set_new(json, "journal_bytes", json_integer((json_int_t)disk->journal_bytes));
    json_object_set_new(json, "journal_used_bytes", json_integer((json_int_t)disk->journal_used_bytes));
    json_object_set_new(json, "read_errors", json_integer((json_int_t)disk->read_errors));
    json_object_set_new(json, "write_errors", json_integer((json_int_t)disk->write_errors));
    json_object_set_new(json, "checksum_errors", json_integer((json_int_t)disk->checksum_errors));
    json_object_set_new(json, "since", since_s ? json_integer(since_s) : json_null());
    return json;
}

static json_t *disks_of(const struct engine_snapshot *snapshot)
{
    json_t *disks = json_array();
    for (unsigned i = 0; i < snapshot->disk_count; i++)
        json_array_append_new(disks, json_of_disk(&snapshot->disks[i], snapshot->disk_since_s[i]));
    return disks;
}

json_t *json_of_disks(struct control *control, struct engine_call *call)
{
    return json_pack("{s:o}", "disks", disks_of(call->snapshot));
}

/* ---- pool and status ----------------------------------------------------------------------------------------------------------- */

json_t *json_of_pool(struct control *control, struct engine_call *call)
{
    const struct engine_snapshot *snapshot = call->snapshot;
    const struct pool_stats *pool = &snapshot->pool;
    json_t *json = json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "pool", json_of_id(&pool->id), "total_bytes", (json_int_t)pool->total_bytes,
                             "reserved_bytes", (json_int_t)pool->reserved_bytes, "used_bytes", (json_int_t)pool->used_bytes,
                             "journal_bytes", (json_int_t)pool->journal_bytes, "journal_used_bytes", (json_int_t)pool->journal_used_bytes);
    json_object_set_new(json, "checksum_errors", json_integer((json_int_t)pool->checksum_errors));
    json_object_set_new(json, "journal_records", json_integer((json_int_t)pool->journal_records));
    json_object_set_new(json, "checkpoints", json_integer((json_int_t)pool->checkpoints));
    json_object_set_new(json, "failure", snapshot->pool_failure ? json_string(strerror(-snapshot->pool_failure)) : json_null());
    json_object_set_new(json, "disks", disks_of(snapshot));
    return json;
}

static json_t *json_of_link(const struct control *control, const struct engine_snapshot *snapshot)
{
    const struct mirror_link_stats *link = &snapshot->link;
    if (control->site->standalone)
        return json_null();
    return json_pack("{s:s, s:b, s:s, s:I, s:I, s:I, s:I}", "peer", site_peer(control->site)->name, "connected", snapshot->link_up, "address",
                     link->address, "messages_sent", (json_int_t)link->messages_sent, "messages_received",
                     (json_int_t)link->messages_received, "bytes_sent", (json_int_t)link->bytes_sent, "bytes_received",
                     (json_int_t)link->bytes_received);
}

static json_t *json_of_resyncs(const struct engine_snapshot *snapshot)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < snapshot->group_count; i++) {
        const struct engine_group_info *info = &snapshot->groups[i];
        if (info->resync_active)
            json_array_append_new(array, json_pack("{s:o, s:s, s:I, s:I, s:I}", "group", json_of_id(&info->state.group), "name",
                                                   info->state.name, "bytes_left", (json_int_t)info->resync_left, "bytes_copied",
                                                   (json_int_t)info->resync_copied, "bytes_compared", (json_int_t)info->resync_compared));
    }
    return array;
}

json_t *json_of_status(struct control *control, struct engine_call *call)
{
    const struct engine_snapshot *snapshot = call->snapshot;
    json_t *json = json_of_groups(control, call);
    json_object_set_new(json, "node", json_string(site_self(control->site)->name));
    json_object_set_new(json, "standalone", json_boolean(control->site->standalone));
    json_object_set_new(json, "link", json_of_link(control, snapshot));
    json_object_set_new(json, "lease_valid", json_boolean(snapshot->lease_valid));
    json_object_set_new(json, "pool", snapshot->has_pool ? json_of_pool(control, call) : json_null());
    if (!snapshot->has_pool)
        json_object_set_new(json, "pool_error", json_string(snapshot->pool_error.text));
    json_object_set_new(json, "resync", json_of_resyncs(snapshot));
    json_object_set_new(json, "iscsi",
                        json_pack("{s:i, s:i, s:I, s:I, s:I}", "connections", snapshot->target.connections, "sessions",
                                  snapshot->target.sessions, "commands", (json_int_t)snapshot->target.commands, "bytes_read",
                                  (json_int_t)snapshot->target.bytes_read, "bytes_written", (json_int_t)snapshot->target.bytes_written));
    return json;
}
