/* Clusters come by enrolment and go when an operator says so; and how they are shown. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "witness/server_private.h"

/* The same token for the same cluster and nodes, before a node was heard: the answer was lost on its way, not stolen. */
static bool answer_again(struct server *server, struct store_cluster *cluster, const uint8_t token_hash[static 16])
{
    const struct served *served = served_find(&server->table, &cluster->id);
    if (served == NULL || !served->cluster->unconfirmed ||
        !id_equal(&served->cluster->nodes[0].id, &cluster->nodes[0].id) ||
        !id_equal(&served->cluster->nodes[1].id, &cluster->nodes[1].id) ||
        !store_token_admitted(server->store, &cluster->id, token_hash, (int64_t)time(NULL)))
        return false;
    for (unsigned i = 0; i < 2; i++)
        cluster->nodes[i] = served->cluster->nodes[i];
    return true;
}

static int add(struct server *server, const struct store_cluster *cluster, const uint8_t token_hash[static 16],
               struct err *err)
{
    int64_t expires = 0;
    int error = store_begin(server->store, err);
    if (error == 0)
        error = store_take_token(server->store, token_hash, (int64_t)time(NULL), &expires, err);
    if (error == 0)
        error = store_add_cluster(server->store, cluster, err);
    if (error == 0)
        error = store_bind_token(server->store, &cluster->id, token_hash, expires, err);
    if (error == 0)
        error = store_commit(server->store, err);
    if (error < 0)
        store_rollback(server->store);
    return error;
}

int server_enrol(struct server *server, struct store_cluster *cluster, const uint8_t token_hash[static 16],
                 struct err *err)
{
    check(!server->changing);
    if (answer_again(server, cluster, token_hash))
        return 0;
    struct store_cluster *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    *copy = *cluster;
    copy->unconfirmed = true;
    record_init(&copy->records, NULL, 0, clock_boottime_ns());
    int error = add(server, copy, token_hash, err);
    if (error < 0) {
        store_cluster_free(copy);
        return error;
    }
    served_add(&server->table, copy, clock_boottime_ns());
    return 0;
}

static int put_next_keys(struct server *server, const struct id *cluster, unsigned number, const struct store_node *fresh,
                         const uint8_t token_hash[static 16], struct err *err)
{
    int64_t expires = 0;
    int error = store_begin(server->store, err);
    if (error == 0)
        error = store_take_token(server->store, token_hash, (int64_t)time(NULL), &expires, err);
    if (error == 0)
        error = store_put_next_keys(server->store, cluster, number, fresh->to_witness, fresh->from_witness, err);
    if (error == 0)
        error = store_commit(server->store, err);
    if (error < 0)
        store_rollback(server->store);
    return error;
}

int server_rekey(struct server *server, struct store_cluster *cluster, const uint8_t token_hash[static 16], struct err *err)
{
    struct served *served = served_find(&server->table, &cluster->id);
    const struct store_node *fresh = &cluster->nodes[0];
    unsigned number = 0;
    check(!server->changing);
    if (served != NULL)
        while (number < 2 && !id_equal(&served->cluster->nodes[number].id, &fresh->id))
            number++;
    if (served == NULL || number == 2)
        return err_set(err, -ENOENT, "not_found", "node '%s' of cluster '%s': is not enrolled at this witness", fresh->name,
                       cluster->name);
    int error = put_next_keys(server, &cluster->id, number, fresh, token_hash, err);
    if (error < 0)
        return error;
    struct store_node *node = &served->cluster->nodes[number];
    memcpy(node->next_to_witness, fresh->to_witness, SEAL_KEY_SIZE);
    memcpy(node->next_from_witness, fresh->from_witness, SEAL_KEY_SIZE);
    node->has_next = true;
    log_notice("cluster '%s': node '%s' was given new keys; the old ones are good until it uses these",
               served->cluster->name, node->name);
    return 0;
}

/* An id names one; a name may be several clusters'. */
static int find(const struct served_table *table, const char *name, struct served **ret, struct err *err)
{
    struct id id;
    unsigned found = 0;
    if (id_parse(name, &id) == 0) {
        *ret = served_find(table, &id);
        found = *ret != NULL;
    } else {
        for (unsigned i = 0; i < SERVED_SLOTS; i++)
            if (table->slots[i] != NULL && strcmp(table->slots[i]->cluster->name, name) == 0) {
                *ret = table->slots[i];
                found++;
            }
    }
    if (found == 0)
        return err_set(err, -ENOENT, "not_found", "cluster '%.80s': is not enrolled here; 'status' lists those that are", name);
    if (found > 1)
        return err_set(err, -EEXIST, "ambiguous", "cluster '%.80s': %u clusters have this name; give the id", name, found);
    return 0;
}

int server_forget(struct server *server, const char *name, struct err *err)
{
    struct served *served = NULL;
    check(!server->changing);
    int error = find(&server->table, name, &served, err);
    if (error == 0)
        error = store_begin(server->store, err);
    if (error < 0)
        return error;
    error = store_delete_cluster(server->store, &served->cluster->id, err);
    if (error == 0)
        error = store_commit(server->store, err);
    if (error < 0) {
        store_rollback(server->store);
        return error;
    }
    log_notice("cluster '%s' was removed by an operator: its nodes are not answered any more", served->cluster->name);
    served_remove(&server->table, served);
    return 0;
}

static json_t *node_status(const struct served *served, unsigned node, uint64_t now_ns)
{
    uint64_t heard_ns = served->members[node].heard_ns;
    return json_pack("{s:s, s:I, s:I}", "name", served->cluster->nodes[node].name, "heard_ms_ago",
                     heard_ns == 0 ? (json_int_t)-1 : (json_int_t)((now_ns - heard_ns) / NSEC_PER_MSEC), "promise_ms",
                     (json_int_t)served->cluster->records.nodes[node].promise_ms);
}

static json_t *cluster_status(const struct served *served, uint64_t now_ns)
{
    char id[ID_TEXT_SIZE];
    const struct record_cluster *records = &served->cluster->records;
    json_t *alerts = json_array();
    for (unsigned kind = 0; kind < ALERT_KINDS; kind++)
        if (served->alerts.active & (1u << kind))
            json_array_append_new(alerts, json_string(alert_kind_name((enum alert_kind)kind)));
    return json_pack("{s:s, s:s, s:I, s:i, s:i, s:b, s:I, s:o, s:[o,o]}", "name", served->cluster->name, "id",
                     id_format(&served->cluster->id, id), "counter", (json_int_t)records->counter, "groups",
                     (int)records->group_count, "single", (int)(served->single[0] + served->single[1]), "restored",
                     records->restored, "guard_ms", (json_int_t)record_guard_left_ms(records, now_ns), "alerts", alerts,
                     "nodes", node_status(served, 0, now_ns), node_status(served, 1, now_ns));
}

static uint64_t refused(const struct counters *counters)
{
    uint64_t sum = 0;
    for (unsigned i = COUNT_FOREIGN; i <= COUNT_QUOTA; i++)
        sum += count_get(counters, (enum counter)i);
    return sum;
}

json_t *server_status(const struct server *server)
{
    uint64_t now_ns = clock_boottime_ns();
    json_t *clusters = json_array();
    for (unsigned i = 0; i < SERVED_SLOTS; i++) {
        const struct served *served = server->table.slots[i];
        if (served == NULL || json_array_size(clusters) >= 400) /* one line of the control socket holds no more */
            continue;
        json_array_append_new(clusters, cluster_status(served, now_ns));
    }
    struct id witness = store_witness_id(server->store);
    char text[ID_TEXT_SIZE];
    return json_pack("{s:s, s:i, s:I, s:b, s:o}", "witness", id_format(&witness, text), "cluster_count",
                     (int)server->table.count, "refused_datagrams", (json_int_t)refused(server->counters), "store_full",
                     server->full, "clusters", clusters);
}
