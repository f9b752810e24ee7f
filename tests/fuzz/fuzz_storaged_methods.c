/* The methods of storaged's control socket. The engine is a stand-in that checks what it is handed and answers out of a
 * small world: a pool of one disk, one group with one volume, and the group's metadata; no path is ever opened. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storaged/control/control_private.h"
#include "tests/fuzz/control_talk.h"

struct world {
    sd_event *event;
    struct control *control;
    struct site site;
    char folder[48];
    struct metadata metadata;
    uint8_t trouble; /* of the current input: bit n fails calls of kind n modulo 8 */
    bool has_pool;
};

static struct world world;

/* --- the engine and the pool: by the linker's --wrap -------------------------------------------------------------- */

void __wrap_engine_submit(struct engine *engine, struct engine_call *call);
void __wrap_engine_post(struct engine *engine, const struct engine_input *input);
int __wrap_pool_create(const struct pool_create_options *options, struct id *ret_pool, struct err *err);
int __wrap_pool_disk_prepare(const struct pool_disk_prepare_options *options, struct pool_disk_prepared **ret,
                             struct err *err);
void __wrap_pool_disk_prepared_free(struct pool_disk_prepared *prepared);

void __wrap_engine_post(struct engine *engine, const struct engine_input *input) { }

int __wrap_pool_create(const struct pool_create_options *options, struct id *ret_pool, struct err *err)
{
    check(options->path_count >= 1 && options->path_count <= POOL_DISKS_MAX);
    for (unsigned i = 0; i < options->path_count; i++)
        check(options->paths[i][0] == '/');
    if (world.trouble & 64)
        return err_set(err, -ENOSPC, "no_space", "disk '%s': it is too small", options->paths[0]);
    *ret_pool = (struct id){.bytes = {1}};
    return 0;
}

int __wrap_pool_disk_prepare(const struct pool_disk_prepare_options *options, struct pool_disk_prepared **ret,
                             struct err *err)
{
    check(options->path && options->path[0] == '/');
    if (world.trouble & 128)
        return err_set(err, -EEXIST, "exists", "disk '%s': it carries a signature", options->path);
    *ret = malloc(1);
    check(*ret);
    return 0;
}

void __wrap_pool_disk_prepared_free(struct pool_disk_prepared *prepared)
{
    free(prepared);
}

static void fill_disk(struct pool_disk_info *disk)
{
    *disk = (struct pool_disk_info){.id = {.bytes = {2}}, .path = "/dev/sdb", .total_bytes = 1 << 30,
                                     .used_bytes = 1 << 20};
}

static void fill_snapshot(struct engine_snapshot *snapshot)
{
    struct engine_group_info *group = &snapshot->groups[0];
    memset(snapshot, 0, sizeof(*snapshot));
    snapshot->has_pool = world.has_pool;
    if (!world.has_pool) {
        err_set(&snapshot->pool_error, -ENODEV, "no_pool", "this node has no pool");
        return;
    }
    snapshot->disk_count = snapshot->group_count = group->volume_count = 1;
    fill_disk(&snapshot->disks[0]);
    group->state.group.bytes[0] = 3;
    snprintf(group->state.name, sizeof(group->state.name), "db");
    group->volumes[0] = (struct engine_volume_info){.id = {.bytes = {4}}, .name = "db1", .size_bytes = 1 << 30};
}

static int swap_metadata(struct engine_call *call)
{
    struct metadata changed = {0};
    int r = metadata_apply(&world.metadata, &call->changes, &changed);
    if (r == 0) {
        metadata_clear(&world.metadata);
        world.metadata = changed;
        call->version = changed.version;
    } else {
        metadata_copy(&world.metadata, &call->metadata);
    }
    return r;
}

static int serve(struct engine_call *call)
{
    check(memchr(call->name, 0, sizeof(call->name)) && memchr(call->group_name, 0, sizeof(call->group_name)));
    check(memchr(call->disk_name, 0, sizeof(call->disk_name)));
    switch (call->kind) {
    case ENGINE_SNAPSHOT: fill_snapshot(call->snapshot); break;
    case ENGINE_META_SWAP: return swap_metadata(call);
    case ENGINE_META_GET: return metadata_copy(&world.metadata, &call->metadata);
    case ENGINE_TARGET: return metadata_copy(&world.metadata, &call->metadata);
    case ENGINE_DISK_ADD: __wrap_pool_disk_prepared_free(call->prepared); call->prepared = NULL; break;
    case ENGINE_POOL_OPEN: world.has_pool = true; break;
    case ENGINE_VOLUME_GROW: fuzz_planted(call->size_bytes == 2u << 20); break;
    default: break;
    }
    call->group.bytes[0] = 3;
    call->volume.bytes[0] = 4;
    return 0;
}

void __wrap_engine_submit(struct engine *engine, struct engine_call *call)
{
    if (call->kind < 6 && world.trouble >> call->kind & 1)
        call->result = err_set(&call->err, -EIO, "io", "it did not work");
    else
        call->result = serve(call);
    if (call->result == -ESTALE)
        err_set(&call->err, -ESTALE, "stale", "it was changed meanwhile");
    else if (call->result < 0 && !call->err.text[0])
        err_set(&call->err, call->result, "invalid", "it did not work");
    call->done(call);
}

/* --- one control thread for all inputs ---------------------------------------------------------------------------- */

static void start(void)
{
    struct err err;
    snprintf(world.folder, sizeof(world.folder), "%s/storaged-%d", fuzz_folder(), (int)getpid());
    check(mkdir(world.folder, 0700) == 0);
    snprintf(world.site.run_folder, sizeof(world.site.run_folder), "%s", world.folder);
    snprintf(world.site.state_folder, sizeof(world.site.state_folder), "%s", world.folder);
    strcpy(world.site.nodes[0].name, "a");
    world.site.standalone = true;
    check(sd_event_new(&world.event) >= 0);
    check(control_new(world.event, &world.site, &world.control, &err) == 0);
    check(control_start(world.control, NULL, &err) == 0);
}

/* Every input begins in the same world. */
static void begin(const char *pool_paths)
{
    metadata_clear(&world.metadata);
    check(metadata_set(&world.metadata, "acl", "{\"initiators\":[\"iqn.2026-01.io.hci:a\"]}") == 0);
    check(metadata_set(&world.metadata, "chap", "{\"user\":\"u\",\"secret\":\"not for everyone\"}") == 0);
    world.has_pool = !(world.trouble & 1);
    unlink(pool_paths);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    char path[80], pool_paths[80];
    if (!world.control)
        start();
    snprintf(path, sizeof(path), "%s/storaged.sock", world.folder);
    snprintf(pool_paths, sizeof(pool_paths), "%s/pool.json", world.folder);
    world.trouble = fuzz_u8(&input);
    begin(pool_paths);
    control_talk(world.event, path, input.data, input.size);
    while (world.control->work)
        sd_event_run(world.event, 10000);
    control_talk(world.event, path, NULL, 0); /* what was deferred ends */
    return 0;
}
