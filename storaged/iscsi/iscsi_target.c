/* The target: its portals, its connections and their limits. */
#include "storaged/iscsi/iscsi_target.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"
#include "storaged/iscsi/iscsi_async.h"
#include "storaged/iscsi/iscsi_connection.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_login.h"
#include "storaged/iscsi/iscsi_stall.h"
#include "storaged/iscsi/iscsi_strangers.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define MEMORY_MIN (4u << 20)

int iscsi_target_new(struct ring *ring, struct iobuf_arena *arena, struct lun_table *table,
                     const struct iscsi_target_options *options, struct iscsi_target **ret)
{
    check(options->memory_bytes >= MEMORY_MIN && options->port_group >= 1);
    struct iscsi_target *target = calloc(1, sizeof(*target));
    if (!target)
        return -ENOMEM;
    target->ring = ring;
    target->table = table;
    target->options = *options;
    if (target->options.login_ms == 0)
        target->options.login_ms = ISCSI_LOGIN_MS;
    if (target->options.stall_ms == 0)
        target->options.stall_ms = ISCSI_STALL_MS;
    list_init(&target->connections);
    list_init(&target->sessions);
    list_init(&target->strangers);
    for (unsigned i = 0; i < ISCSI_PORTALS_MAX; i++)
        target->portals[i].fd = -1;
    iscsi_memory_init(&target->memory, ring, arena, options->memory_bytes);
    *ret = target;
    return 0;
}

static void accepted(struct iscsi_portal *portal, int fd)
{
    struct iscsi_target *target = portal->userdata;
    struct iscsi_connection *connection;
    /* Closed ones still take memory until the next turn: they count in connection_count. */
    if (target->connection_count >= ISCSI_CONNECTIONS_MAX) {
        close(fd);
        return;
    }
    if (target->unauthenticated_count >= ISCSI_UNAUTHENTICATED_MAX)
        iscsi_strangers_evict(target);
    if (iscsi_connection_new(target, fd, &connection) < 0)
        return;
    if (iscsi_login_start(connection) < 0)
        iscsi_connection_close(connection, "no memory");
}

int iscsi_target_listen(struct iscsi_target *target, const char *address, struct err *err)
{
    if (target->portal_count == ISCSI_PORTALS_MAX)
        return err_set(err, -ENOSPC, "invalid", "portal '%s': %u portals are the most; remove one", address, ISCSI_PORTALS_MAX);
    struct iscsi_portal *portal = &target->portals[target->portal_count];
    portal->accepted = accepted;
    portal->userdata = target;
    int r = iscsi_portal_open(portal, target->ring, address, err);
    if (r == 0)
        target->portal_count++;
    return r;
}

uint16_t iscsi_target_port(const struct iscsi_target *target, unsigned index)
{
    if (index >= target->portal_count)
        return 0;
    const struct sockaddr_storage *address = &target->portals[index].address;
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

void iscsi_target_stop(struct iscsi_target *target)
{
    for (unsigned i = 0; i < target->portal_count; i++)
        iscsi_portal_close(&target->portals[i]);
    list_for_each_safe(item, after, &target->connections) {
        struct iscsi_connection *connection = list_entry(item, struct iscsi_connection, link);
        if (connection->state == ISCSI_CONNECTION_FULL)
            iscsi_async_request_logout(connection->session, "the target stops");
        else
            iscsi_connection_close(connection, "the target stops");
    }
}

void iscsi_target_free(struct iscsi_target *target)
{
    if (!target)
        return;
    check(list_is_empty(&target->connections) && list_is_empty(&target->sessions));
    for (unsigned i = 0; i < target->portal_count; i++)
        iscsi_portal_close(&target->portals[i]);
    iscsi_stall_stop(target);
    iscsi_memory_close(&target->memory);
    free(target);
}

void iscsi_target_get_stats(const struct iscsi_target *target, struct iscsi_target_stats *ret)
{
    *ret = target->stats;
    ret->connections = target->connection_count;
    ret->unauthenticated = target->unauthenticated_count;
    ret->sessions = target->session_count;
    ret->memory_bytes = target->memory.used;
    ret->memory_waits = target->memory.waits;
}
