/* Enrolment at the witness: a few short-lived TLS connections, each with one request. */
#include "witness/enrol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/seal.h"
#include "common/tls.h"
#include "witness/enrol_pki.h"

enum stage { HANDSHAKE, READING, WRITING };

struct visitor {
    struct enrol *enrol;
    int fd;
    sd_event_source *io, *timeout;
    struct tls *tls;
    enum stage stage;
    char *line;  /* the request, then the reply */
    size_t size, done;
};

struct enrol {
    sd_event *event;
    sd_event_source *accepting;
    int fd;
    struct server *server;
    struct store *store;
    struct tls_identity *identity;
    uint8_t ca_sha256[32];
    struct visitor *visitors[ENROL_CONNECTIONS_MAX];
};

static void visitor_free(struct visitor *visitor)
{
    struct enrol *enrol = visitor->enrol;
    for (unsigned i = 0; i < ENROL_CONNECTIONS_MAX; i++)
        if (enrol->visitors[i] == visitor)
            enrol->visitors[i] = NULL;
    sd_event_source_disable_unref(visitor->io);
    sd_event_source_disable_unref(visitor->timeout);
    if (visitor->tls != NULL)
        tls_free(visitor->tls);
    close(visitor->fd);
    if (visitor->line != NULL)
        seal_wipe(visitor->line, ENROL_LINE_MAX);
    free(visitor->line);
    free(visitor);
}

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

static json_t *answer_enrol(struct enrol *enrol, json_t *request, struct err *err)
{
    struct store_cluster cluster;
    uint8_t secret[16] = {0}, hash[16];
    const char *method = json_string_value(json_object_get(request, "method"));
    if (method == NULL || strcmp(method, "enrol") != 0 ||
        !parse_hex(json_string_value(json_object_get(request, "secret")), secret, sizeof secret)) {
        err_set(err, -EINVAL, "invalid", "enrolment: the request must be \"enrol\" with the token's secret");
        return NULL;
    }
    seal_hash128(secret, sizeof secret, hash);
    if (take_cluster(request, &cluster, err) < 0 || server_enrol(enrol->server, &cluster, hash, err) < 0)
        return NULL;
    struct id witness = store_witness_id(enrol->store);
    char text[ID_TEXT_SIZE];
    json_t *reply = json_pack("{s:{s:s, s:o}}", "result", "witness", id_format(&witness, text), "keys", keys_of(&cluster));
    log_notice("cluster '%s' enrolled with nodes '%s' and '%s'", cluster.name, cluster.nodes[0].name,
               cluster.nodes[1].name);
    seal_wipe(&cluster, sizeof cluster);
    return reply;
}

/* The buffer that held the request takes the reply. */
static bool make_reply(struct visitor *visitor)
{
    struct err err = {0};
    json_t *request = json_loadb(visitor->line, visitor->size, JSON_REJECT_DUPLICATES, NULL);
    json_t *reply = answer_enrol(visitor->enrol, request, &err);
    if (reply == NULL) {
        log_warning("enrolment refused: %s", err.text);
        reply = json_pack("{s:{s:s, s:s}}", "error", "code", err.code, "message", err.text);
    }
    json_decref(request);
    size_t size = reply == NULL ? ENROL_LINE_MAX : json_dumpb(reply, visitor->line, ENROL_LINE_MAX - 1, JSON_COMPACT);
    json_decref(reply);
    if (size >= ENROL_LINE_MAX)
        return false;
    visitor->line[size] = '\n';
    visitor->size = size + 1;
    visitor->done = 0;
    visitor->stage = WRITING;
    return true;
}

/* Each step: bytes or 0 to go on, -EAGAIN to wait, anything else ends the visit. */
static ssize_t read_some(struct visitor *visitor)
{
    ssize_t size = tls_read(visitor->tls, visitor->line + visitor->size, ENROL_LINE_MAX - visitor->size);
    if (size <= 0)
        return size == 0 ? -ECONNRESET : size;
    const char *end = memchr(visitor->line + visitor->size, '\n', (size_t)size);
    visitor->size += (size_t)size;
    if (end != NULL) {
        visitor->size = (size_t)(end - visitor->line);
        return make_reply(visitor) ? size : -EPROTO;
    }
    return visitor->size == ENROL_LINE_MAX ? -EMSGSIZE : size;
}

static ssize_t write_some(struct visitor *visitor)
{
    ssize_t size = tls_write(visitor->tls, visitor->line + visitor->done, visitor->size - visitor->done);
    if (size < 0)
        return size;
    visitor->done += (size_t)size;
    return visitor->done == visitor->size ? -ESHUTDOWN : size;
}

static ssize_t step(struct visitor *visitor)
{
    if (visitor->stage == READING)
        return read_some(visitor);
    if (visitor->stage == WRITING)
        return write_some(visitor);
    int error = tls_handshake(visitor->tls);
    if (error == 0)
        visitor->stage = READING;
    return error;
}

static int on_visitor(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct visitor *visitor = userdata;
    ssize_t result;
    do
        result = step(visitor);
    while (result >= 0);
    if (result == -EAGAIN)
        sd_event_source_set_io_events(source, tls_wants_write(visitor->tls) ? EPOLLOUT : EPOLLIN);
    else
        visitor_free(visitor);
    return 0;
}

static int on_timeout(sd_event_source *source, uint64_t now, void *userdata)
{
    visitor_free(userdata);
    return 0;
}

static void visitor_new(struct enrol *enrol, int fd)
{
    unsigned slot = 0;
    while (slot < ENROL_CONNECTIONS_MAX && enrol->visitors[slot] != NULL)
        slot++;
    struct visitor *visitor = slot == ENROL_CONNECTIONS_MAX ? NULL : calloc(1, sizeof *visitor);
    if (visitor == NULL) {
        close(fd);
        return;
    }
    visitor->enrol = enrol;
    visitor->fd = fd;
    visitor->line = malloc(ENROL_LINE_MAX);
    enrol->visitors[slot] = visitor;
    if (visitor->line == NULL || tls_new_enrol_server(enrol->identity, fd, &visitor->tls) < 0 ||
        sd_event_add_io(enrol->event, &visitor->io, fd, EPOLLIN, on_visitor, visitor) < 0 ||
        sd_event_add_time_relative(enrol->event, &visitor->timeout, CLOCK_MONOTONIC, ENROL_TIMEOUT_S * UINT64_C(1000000),
                                   0, on_timeout, visitor) < 0)
        visitor_free(visitor);
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    int visitor = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (visitor >= 0)
        visitor_new(userdata, visitor);
    return 0;
}

static int listen_socket(struct enrol *enrol, const char *address, uint16_t port, struct err *err)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    check(inet_pton(AF_INET, address, &local.sin_addr) == 1); /* the datagram socket was bound to it before */
    enrol->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (enrol->fd < 0 || setsockopt(enrol->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(enrol->fd, (const struct sockaddr *)&local, sizeof local) < 0 || listen(enrol->fd, 16) < 0)
        return err_set(err, -errno, "io", "enrolment on '%s:%u': cannot listen (%s); choose another address or port",
                       address, port, strerror(errno));
    int error = sd_event_add_io(enrol->event, &enrol->accepting, enrol->fd, EPOLLIN, on_accept, enrol);
    return error < 0 ? err_set(err, error, "io", "enrolment on '%s:%u': %s", address, port, strerror(-error)) : 0;
}

int enrol_new(sd_event *event, struct server *server, struct store *store, const char *folder, const char *address,
              uint16_t port, struct enrol **ret, struct err *err)
{
    struct enrol *enrol = calloc(1, sizeof *enrol);
    if (enrol == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    enrol->event = sd_event_ref(event);
    enrol->server = server;
    enrol->store = store;
    enrol->fd = -1;
    struct id witness = store_witness_id(store);
    int error = enrol_load_identity(folder, &witness, &enrol->identity, enrol->ca_sha256, err);
    if (error == 0)
        error = listen_socket(enrol, address, port, err);
    if (error < 0) {
        enrol_free(enrol);
        return error;
    }
    *ret = enrol;
    return 0;
}

void enrol_free(struct enrol *enrol)
{
    if (enrol == NULL)
        return;
    for (unsigned i = 0; i < ENROL_CONNECTIONS_MAX; i++)
        if (enrol->visitors[i] != NULL)
            visitor_free(enrol->visitors[i]);
    sd_event_source_disable_unref(enrol->accepting);
    if (enrol->fd >= 0)
        close(enrol->fd);
    if (enrol->identity != NULL)
        tls_identity_free(enrol->identity);
    sd_event_unref(enrol->event);
    free(enrol);
}

int enrol_new_token(struct enrol *enrol, char ret_text[static TOKEN_TEXT_SIZE], struct err *err)
{
    struct token token;
    uint8_t hash[16];
    token_new(&token, enrol->ca_sha256);
    seal_hash128(token.secret, sizeof token.secret, hash);
    int64_t now = (int64_t)time(NULL);
    int error = store_begin(enrol->store, err);
    if (error == 0)
        error = store_add_token(enrol->store, hash, now, now + ENROL_TOKEN_LIFE_S, err);
    if (error == 0)
        error = store_commit(enrol->store, err);
    if (error < 0)
        store_rollback(enrol->store);
    else
        token_format(&token, ret_text);
    seal_wipe(&token, sizeof token);
    return error;
}
