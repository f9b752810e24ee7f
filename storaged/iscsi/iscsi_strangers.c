/* Who has not logged in yet costs little and goes first: of the address that has the most such connections one that has
 * said nothing, the oldest. So a flood from some addresses neither touches sessions nor keeps others from logging in. */
#include "storaged/iscsi/iscsi_strangers.h"

#include <netinet/in.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/iscsi/iscsi_connection.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define LOG_PERIOD_MS 10000u
#define LOGS_PER_PERIOD 20u

/* An IPv6 host has a whole /64 to call from: it counts as one address. */
static uint8_t bucket_of(const struct sockaddr_storage *peer)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;
    const uint8_t *bytes = peer->ss_family == AF_INET6 ? v6->sin6_addr.s6_addr : (const uint8_t *)&v4->sin_addr;
    size_t size = peer->ss_family == AF_INET6 ? 8 : 4;
    uint32_t hash = UINT32_C(2166136261);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT32_C(16777619);
    return (uint8_t)(hash >> 24 ^ hash >> 16 ^ hash >> 8 ^ hash);
}

void iscsi_strangers_add(struct iscsi_connection *connection, const struct sockaddr_storage *peer)
{
    struct iscsi_target *target = connection->target;
    connection->bucket = bucket_of(peer);
    target->buckets[connection->bucket]++;
    list_append(&target->strangers, &connection->stranger_link);
    target->unauthenticated_count++;
}

void iscsi_strangers_remove(struct iscsi_connection *connection)
{
    struct iscsi_target *target = connection->target;
    check(target->unauthenticated_count > 0 && target->buckets[connection->bucket] > 0);
    target->buckets[connection->bucket]--;
    list_remove(&connection->stranger_link);
    target->unauthenticated_count--;
}

void iscsi_strangers_evict(struct iscsi_target *target)
{
    struct iscsi_connection *victim = NULL;
    uint16_t most = 0;
    for (unsigned i = 0; i < ISCSI_BUCKETS; i++)
        most = target->buckets[i] > most ? target->buckets[i] : most;
    list_for_each(item, &target->strangers) {
        struct iscsi_connection *connection = list_entry(item, struct iscsi_connection, stranger_link);
        if (target->buckets[connection->bucket] != most || (victim && connection->heard))
            continue;
        victim = connection;
        if (!connection->heard)
            break;
    }
    if (victim)
        iscsi_connection_close(victim, "too many connections that have not logged in");
}

bool iscsi_strangers_may_log(struct iscsi_target *target)
{
    uint64_t now_ms = ring_now_ms(target->ring);
    if (now_ms - target->log_period_ms >= LOG_PERIOD_MS) {
        if (target->log_count > LOGS_PER_PERIOD)
            log_notice("iscsi: %u more logins were refused", target->log_count - LOGS_PER_PERIOD);
        target->log_period_ms = now_ms;
        target->log_count = 0;
    }
    return ++target->log_count <= LOGS_PER_PERIOD;
}
