/* What enrolment answers: new keys for a new cluster, or fresh ones for a node that has some. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/check.h"
#include "common/log.h"
#include "common/seal.h"
#include "witness/enrol_private.h"

static bool parse_hex(const char *text, uint8_t *ret, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    if (text == NULL || strlen(text) != 2 * size)
        return false;
    for (size_t i = 0; i < 2 * size; i++) {
        const char *digit = strchr(digits, text[i]);
        if (digit == NULL)
            return false;
        ret[i / 2] = (uint8_t)(ret[i / 2] << 4 | (uint8_t)(digit - digits));
    }
    return true;
}

static json_t *hex(const uint8_t *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * SEAL_KEY_SIZE];
    check(2 * size <= sizeof text);
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    json_t *value = json_stringn(text, 2 * size);
    seal_wipe(text, sizeof text);
    return value;
}

static bool take_name(json_t *object, struct id *ret_id, char ret_name[static STORE_NAME_SIZE])
{
    const char *id = json_string_value(json_object_get(object, "id"));
    const char *name = json_string_value(json_object_get(object, "name"));
    if (id == NULL || name == NULL || id_parse(id, ret_id) < 0 || id_is_null(ret_id))
        return false;
    size_t length = strlen(name);
    if (length == 0 || length >= STORE_NAME_SIZE)
        return false;
    for (const char *at = name; *at != '\0'; at++)
        if ((unsigned char)*at < ' ') /* it goes into log lines */
            return false;
    memcpy(ret_name, name, length + 1);
    return true;
}

/* Nodes are kept in the order of their ids: members' bit 1 is the lower one, everywhere. */
static int take_cluster(json_t *request, struct store_cluster *ret, struct err *err)
{
    json_t *nodes = json_object_get(request, "nodes");
    memset(ret, 0, sizeof *ret);
    if (!take_name(json_object_get(request, "cluster"), &ret->id, ret->name) || json_array_size(nodes) != 2 ||
        !take_name(json_array_get(nodes, 0), &ret->nodes[0].id, ret->nodes[0].name) ||
        !take_name(json_array_get(nodes, 1), &ret->nodes[1].id, ret->nodes[1].name) ||
        id_equal(&ret->nodes[0].id, &ret->nodes[1].id))
        return err_set(err, -EINVAL, "invalid",
                       "enrolment: the request must name the cluster and its two nodes, each with id and name");
    if (id_compare(&ret->nodes[0].id, &ret->nodes[1].id) > 0) {
        struct store_node first = ret->nodes[0];
        ret->nodes[0] = ret->nodes[1];
        ret->nodes[1] = first;
    }
    ret->incarnation = id_random();
    for (unsigned i = 0; i < 2; i++) {
        seal_random(ret->nodes[i].to_witness, SEAL_KEY_SIZE);
        seal_random(ret->nodes[i].from_witness, SEAL_KEY_SIZE);
    }
    return 0;
}

static json_t *keys_of(const struct store_cluster *cluster)
{
    json_t *keys = json_object();
    for (unsigned i = 0; i < 2; i++) {
        char id[ID_TEXT_SIZE];
        const struct store_node *node = &cluster->nodes[i];
        json_object_set_new(keys, id_format(&node->id, id),
                            json_pack("{s:o, s:o}", "to_witness", hex(node->to_witness, SEAL_KEY_SIZE), "from_witness",
                                      hex(node->from_witness, SEAL_KEY_SIZE)));
    }
    return keys;
}

/* On the thread. */
static int ask_loop(struct enrol *enrol, bool rekey, struct store_cluster *cluster, const uint8_t hash[static 16],
                    struct err *err)
{
    struct errand *errand = &enrol->errand;
    pthread_mutex_lock(&errand->lock);
    errand->run = rekey ? server_rekey : server_enrol;
    errand->cluster = cluster;
    errand->token_hash = hash;
    errand->err = err;
    errand->result = err_set(err, -ESHUTDOWN, "unavailable", "witness: is being stopped; try again in a moment");
    errand->asked = true;
    eventfd_write(enrol->ask_fd, 1);
    while (errand->asked && !errand->closed)
        pthread_cond_wait(&errand->answered, &errand->lock);
    errand->asked = false;
    int result = errand->result;
    pthread_mutex_unlock(&errand->lock);
    return result;
}

/* On the loop. */
int enrol_on_asked(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct enrol *enrol = userdata;
    struct errand *errand = &enrol->errand;
    eventfd_t count;
    eventfd_read(fd, &count);
    pthread_mutex_lock(&errand->lock);
    if (errand->asked) {
        errand->result = errand->run(enrol->server, errand->cluster, errand->token_hash, errand->err);
        count_add(enrol->counters, errand->result < 0 ? COUNT_ENROLMENTS_REFUSED : COUNT_ENROLMENTS);
        errand->asked = false;
        pthread_cond_signal(&errand->answered);
    }
    pthread_mutex_unlock(&errand->lock);
    return 0;
}

static json_t *answer_enrol(struct enrol *enrol, json_t *request, const uint8_t hash[static 16], struct err *err)
{
    struct store_cluster cluster;
    char text[ID_TEXT_SIZE];
    json_t *reply = NULL;
    if (take_cluster(request, &cluster, err) == 0 && ask_loop(enrol, false, &cluster, hash, err) == 0) {
        reply = json_pack("{s:{s:s, s:o}}", "result", "witness", id_format(&enrol->witness, text), "keys", keys_of(&cluster));
        log_notice("cluster '%s' enrolled with nodes '%s' and '%s'", cluster.name, cluster.nodes[0].name,
                   cluster.nodes[1].name);
    }
    seal_wipe(&cluster, sizeof cluster);
    return reply;
}

/* nodes[0] is the one that asks, nodes[1] stays empty. */
static json_t *answer_rekey(struct enrol *enrol, json_t *request, const uint8_t hash[static 16], struct err *err)
{
    struct store_cluster cluster = {0};
    struct store_node *node = &cluster.nodes[0];
    char text[ID_TEXT_SIZE];
    json_t *reply = NULL;
    seal_random(node->to_witness, SEAL_KEY_SIZE);
    seal_random(node->from_witness, SEAL_KEY_SIZE);
    if (!take_name(json_object_get(request, "cluster"), &cluster.id, cluster.name) ||
        !take_name(json_object_get(request, "node"), &node->id, node->name))
        err_set(err, -EINVAL, "invalid", "new keys: the request must name the cluster and the node, each with id and name");
    else if (ask_loop(enrol, true, &cluster, hash, err) == 0)
        reply = json_pack("{s:{s:s, s:o, s:o}}", "result", "witness", id_format(&enrol->witness, text), "to_witness",
                          hex(node->to_witness, SEAL_KEY_SIZE), "from_witness", hex(node->from_witness, SEAL_KEY_SIZE));
    seal_wipe(&cluster, sizeof cluster);
    return reply;
}

json_t *enrol_answer(struct enrol *enrol, json_t *request, struct err *err)
{
    uint8_t secret[16] = {0}, hash[16];
    const char *method = json_string_value(json_object_get(request, "method"));
    bool rekey = method != NULL && strcmp(method, "rekey") == 0;
    if (method == NULL || (!rekey && strcmp(method, "enrol") != 0) ||
        !parse_hex(json_string_value(json_object_get(request, "secret")), secret, sizeof secret)) {
        err_set(err, -EINVAL, "invalid", "enrolment: the request must be \"enrol\" or \"rekey\" with the token's secret");
        return NULL;
    }
    seal_hash128(secret, sizeof secret, hash);
    seal_wipe(secret, sizeof secret);
    return rekey ? answer_rekey(enrol, request, hash, err) : answer_enrol(enrol, request, hash, err);
}
