/* What one admitted request gets: the judgement, the change it asks of the store, the reply. */
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "quorum/lease_core.h"
#include "witness/server_private.h"

static int put(struct server *server, const struct served *served, const struct record_event *event,
               const struct record_answer *answer, struct err *err)
{
    const struct store_cluster *cluster = served->cluster;
    const struct record_cluster *records = &cluster->records;
    int error = 0;
    if (answer->persist_restored)
        error = store_put_restored(server->store, &cluster->id, &cluster->incarnation, err);
    if (error == 0 && answer->persist_node)
        error = store_put_promise(server->store, &cluster->id, event->node, records->nodes[event->node].promise_ms, err);
    if (error == 0 && answer->persist_group)
        error = store_put_group(server->store, &cluster->id, &records->groups[answer->group_index], records->counter,
                                answer->evicted ? &answer->evicted_id : NULL, err);
    return error;
}

/* Everything durable goes through here: the first change of a batch opens its transaction. */
static bool change(struct server *server, const struct served *served, const struct record_event *event,
                   const struct record_answer *answer)
{
    struct err err = {0};
    int error = server->change_error;
    if (error == 0 && !server->changing)
        error = store_begin(server->store, &err);
    if (error == 0) {
        server->changing = true;
        error = put(server, served, event, answer, &err);
    }
    if (error < 0 && server->change_error == 0) {
        log_error("%s", err.text);
        server->change_error = error;
    }
    return error == 0;
}

static bool persists(const struct record_answer *answer)
{
    return answer->persist_restored || answer->persist_node || answer->persist_group;
}

static void remember(struct undo *undo, struct served *served)
{
    const struct record_cluster *records = &served->cluster->records;
    undo->served = served;
    undo->records = *records;
    undo->incarnation = served->cluster->incarnation;
    if (records->group_count > 0)
        memcpy(undo->groups, records->groups, records->group_count * sizeof undo->groups[0]);
}

void server_undo(const struct undo *undo)
{
    struct store_cluster *cluster = undo->served->cluster;
    struct record_group *groups = cluster->records.groups;
    unsigned room = cluster->records.group_room;
    cluster->incarnation = undo->incarnation;
    cluster->records = undo->records;
    cluster->records.groups = groups;
    cluster->records.group_room = room;
    if (undo->records.group_count > 0)
        memcpy(groups, undo->groups, undo->records.group_count * sizeof groups[0]);
    served_count_groups(undo->served);
}

/* Judges, and puts what must be durable into the batch's transaction. False: it must not be answered. */
static bool judge(struct server *server, struct served *served, struct record_event *event, struct record_answer *ret)
{
    struct store_cluster *cluster = served->cluster;
    check(server->undo_count < BATCH_MAX);
    struct undo *undo = &server->undo[server->undo_count];
    event->now_ns = clock_boottime_ns();
    /* Only these can change what is durable. */
    bool may_change = event->kind == RECORD_EV_CAS || event->counter > cluster->records.counter ||
                      event->promise_ms > cluster->records.nodes[event->node].promise_ms;
    if (event->kind == RECORD_EV_CAS && store_cluster_make_room(cluster) < 0)
        return false;
    if (may_change)
        remember(undo, served);
    record_step(&cluster->records, event, ret);
    if (!persists(ret))
        return true;
    check(may_change);
    if (server->full) { /* known to fail: it must not take the batch's leases with it */
        server_undo(undo);
        count_add(server->counters, COUNT_UNSTORED);
        return false;
    }
    server->undo_count++;
    if (ret->persist_restored) {
        cluster->incarnation = id_random();
        log_error("cluster '%s': node '%s' has seen commit %llu, this store ends at %llu: an old store was put back; "
                  "nothing is granted until the cluster is enrolled anew ('hci-witnessd --forget %s' here first)",
                  cluster->name, cluster->nodes[event->node].name, (unsigned long long)event->counter,
                  (unsigned long long)cluster->records.counter, cluster->name);
    }
    if (ret->persist_group)
        served_count_groups(served);
    return change(server, served, event, ret);
}

static bool answer_lease(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                         struct wire_message *reply)
{
    bool asks = message->wants_lease && message->lease_ms > 0 && message->lease_ms <= LEASE_MS_MAX &&
                message->promise_ms <= LEASE_PROMISE_MS_MAX;
    struct record_event event = {
        .kind = asks ? RECORD_EV_LEASE : RECORD_EV_POLL, .node = node, .counter = message->counter,
        .promise_ms = asks ? lease_promise_for(message->lease_ms, message->promise_ms) : 0,
        .claims = message->claims, .claim_count = message->claim_count,
    };
    struct record_answer answer;
    count_add(server->counters, COUNT_LEASE);
    if (!judge(server, served, &event, &answer))
        return false;
    reply->acknowledged = answer.acknowledged;
    return true;
}

static void log_verdict(const struct served *served, unsigned node, const struct wire_message *cas,
                        const struct record_answer *answer)
{
    char group[ID_TEXT_SIZE];
    enum log_level level = answer->persist_group ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO;
    log_write(level, "cluster '%s' group %s: node '%s'%s proposes epoch %llu members %u from epoch %llu members %u: %s, "
              "record is epoch %llu members %u%s%s", served->cluster->name, id_format(&cas->group, group),
              served->cluster->nodes[node].name, cas->was_primary ? " (primary)" : "", (unsigned long long)cas->to.epoch,
              cas->to.members, (unsigned long long)cas->from[0].epoch, cas->from[0].members,
              wire_verdict_name((enum wire_verdict)answer->verdict), (unsigned long long)answer->record.epoch,
              answer->record.members, answer->reason != 0 ? "; " : "",
              wire_reason_sentence((enum wire_reason)answer->reason));
}

static bool answer_cas(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                       struct wire_message *reply)
{
    reply->group = message->group;
    reply->verdict = WIRE_REBOUND;
    count_add(server->counters, COUNT_CAS);
    /* Protocol "Datagrams": a CAS is bound to W's boot. */
    if (!id_equal(&message->witness_boot, &server->boot)) {
        count_add(server->counters, COUNT_REBOUND);
        return true;
    }
    struct record_event event = {
        .kind = RECORD_EV_CAS, .node = node, .counter = message->counter, .group = message->group,
        .to = {message->to.epoch, message->to.members}, .from_count = message->from_count,
        .was_primary = message->was_primary,
    };
    for (unsigned i = 0; i < message->from_count; i++)
        event.from[i] = (struct record_position){message->from[i].epoch, message->from[i].members};
    struct record_answer answer;
    if (!judge(server, served, &event, &answer))
        return false;
    log_verdict(served, node, message, &answer);
    count_add(server->counters, (enum counter)(COUNT_OK + answer.verdict - RECORD_OK));
    reply->verdict = (enum wire_verdict)answer.verdict;
    reply->reason = (enum wire_reason)answer.reason;
    reply->record = (struct wire_position){answer.record.epoch, answer.record.members};
    reply->wait_ms = answer.wait_ms;
    reply->loser_ms = answer.loser_ms;
    return true;
}

static const struct record_group *next_changed(const struct record_cluster *records, uint64_t after)
{
    const struct record_group *next = NULL;
    for (unsigned i = 0; i < records->group_count; i++) {
        const struct record_group *group = &records->groups[i];
        if (group->changed > after && (next == NULL || group->changed < next->changed))
            next = group;
    }
    return next;
}

/* The changes after `since` in their order, as many as fit. */
static bool answer_records(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                           struct wire_message *reply)
{
    struct record_event event = {.kind = RECORD_EV_POLL, .node = node, .counter = message->counter};
    struct record_answer answer;
    count_add(server->counters, COUNT_RECORDS);
    if (!judge(server, served, &event, &answer))
        return false;
    const struct record_cluster *records = &served->cluster->records;
    reply->up_to = message->since < records->counter ? message->since : records->counter;
    while (reply->record_count < WIRE_RECORDS_MAX) {
        const struct record_group *next = next_changed(records, reply->up_to);
        if (next == NULL) {
            reply->up_to = records->counter;
            break;
        }
        reply->records[reply->record_count++] = (struct wire_record){
            .group = next->id, .epoch = next->position.epoch, .members = next->position.members,
        };
        reply->up_to = next->changed;
    }
    return true;
}

bool server_answer(struct server *server, struct served *served, unsigned node, const struct wire_message *message,
                   struct wire_message *reply)
{
    return message->kind == WIRE_LEASE ? answer_lease(server, served, node, message, reply)
         : message->kind == WIRE_CAS   ? answer_cas(server, served, node, message, reply)
                                       : answer_records(server, served, node, message, reply);
}
