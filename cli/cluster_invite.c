/* `hcictl cluster invite`: prints a one-time token and lets the second node join, exactly once.
 *
 * The secret lives only in this process' memory: when the command ends, the token is worthless. The joiner may ask
 * again with the same token (its host may have failed while it wrote its files) until it has confirmed. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/corosync_conf.h"
#include "cli/enrol_files.h"
#include "cli/enrol_line.h"
#include "cli/join_state.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/site_json.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/pki.h"
#include "common/seal.h"
#include "common/token.h"

#define INVITE_PORT 7204
#define INVITE_LIMIT_MS (15u * 60 * 1000)
#define WRONG_SECRETS_MAX 10
#define PEM_MAX 16384
#define AUTHKEY_MAX 4096

struct invite {
    const struct cli *cli;
    struct site site;
    struct enrol_files files;
    struct join_state state;
    struct token token;
    struct tls_identity *identity;
    int listen_fd;
    uint64_t deadline_ms;
    unsigned wrong_secrets;
    bool is_over;
};

static int load(struct invite *invite, struct err *err)
{
    int result = cli_load_pair(invite->cli, "an invitation", &invite->site, err);
    const char *state_folder = cli_option_or(invite->cli, "state-folder", invite->site.state_folder);
    if (result == 0)
        result = enrol_files_plan(invite->cli, state_folder, &invite->files, err);
    if (result == 0)
        result = join_state_load(invite->files.join, &invite->state, err);
    if (result == 0 && invite->state.joined)
        result = err_set(
            err, -EALREADY, "joined",
            "node '%s' has already joined cluster '%s'; a cluster has two nodes, so make a new one to pair this "
            "host with another",
            site_peer(&invite->site)->name, invite->site.name);
    return result;
}

static int make_token(struct invite *invite, struct err *err)
{
    char *ca = NULL;
    size_t size = 0;
    uint8_t fingerprint[32];
    const struct enrol_files *files = &invite->files;
    int result =
        tls_identity_load(files->ca_certificate, files->node_certificate, files->node_key, &invite->identity, err);
    if (result == 0)
        result = files_read(files->ca_certificate, PEM_MAX, &ca, &size, err);
    if (result == 0)
        result = pki_fingerprint(ca, fingerprint, err);
    if (result == 0)
        token_new(&invite->token, fingerprint);
    free(ca);
    return result;
}

static int listen_at(struct invite *invite, struct address *ret_address, struct err *err)
{
    const char *text = cli_option_or(invite->cli, "listen", site_self(&invite->site)->links[0]);
    int result = address_parse("listen address", text, INVITE_PORT, ret_address, err);
    if (result < 0)
        return result;
    int yes = 1;
    invite->listen_fd = socket(ret_address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (invite->listen_fd < 0 ||
        setsockopt(invite->listen_fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(invite->listen_fd, (struct sockaddr *)&ret_address->socket, ret_address->socket_size) < 0 ||
        listen(invite->listen_fd, 16) < 0)
        return err_set(err, -EADDRNOTAVAIL, "listen",
                       "cannot wait for the other node at %s port %u: %m; choose with --listen", ret_address->host,
                       ret_address->port);
    return 0;
}

static int say_token(const struct invite *invite, const struct address *address, struct err *err)
{
    char token[TOKEN_TEXT_SIZE], place[80];
    token_format(&invite->token, token);
    address_format(address, place, sizeof place);
    const char *node = site_peer(&invite->site)->name;
    int result = 0;
    if (invite->cli->json) {
        result = output_json(json_pack("{s:s, s:s, s:s, s:i}", "token", token, "address", place, "node", node,
                                       "valid_s", (int)(INVITE_LIMIT_MS / 1000)),
                             err);
    } else {
        printf("On node '%s', within %u minutes:\n\n  hcictl cluster join %s %s\n\n"
               "The token works once and only while this command runs. Waiting for node '%s'…\n", node,
               INVITE_LIMIT_MS / 60000, place, token, node);
        if (fflush(stdout) == EOF)
            result = err_set(err, -EIO, "io", "cannot write to stdout: %m");
    }
    seal_wipe(token, sizeof token);
    return result;
}

static json_t *error_answer(const char *code, const char *message)
{
    return json_pack("{s:{s:s, s:s}}", "error", "code", code, "message", message);
}

/* In constant time; anything that is no secret at all is a wrong one. */
static bool secret_is_right(const struct invite *invite, const json_t *request)
{
    uint8_t secret[sizeof invite->token.secret];
    bool right = hex_parse(output_text(request, "secret", NULL), secret, sizeof secret) == 0 &&
                 seal_compare(secret, invite->token.secret, sizeof secret) == 0;
    seal_wipe(secret, sizeof secret);
    return right;
}

static int issue(const struct invite *invite, const char *public_key, char **ret_ca, char **ret_certificate,
                 struct err *err)
{
    char *ca_key = NULL;
    size_t size = 0;
    const struct site_node *peer = site_peer(&invite->site);
    int result = files_read(invite->files.ca_certificate, PEM_MAX, ret_ca, &size, err);
    if (result == 0)
        result = files_read(invite->files.ca_key, PEM_MAX, &ca_key, &size, err);
    if (result == 0)
        result = pki_issue(ca_key, *ret_ca, public_key, &peer->id, peer->name, ret_certificate, err);
    pki_free_secret(ca_key);
    return result;
}

static int read_corosync(const struct invite *invite, char **ret_conf, json_t **ret_authkey, struct err *err)
{
    char *key = NULL, hex[2 * AUTHKEY_MAX + 1];
    size_t size = 0, conf_size = 0;
    int result = files_read(invite->files.corosync_conf, COROSYNC_CONF_MAX, ret_conf, &conf_size, err);
    if (result == 0)
        result = files_read(invite->files.corosync_authkey, AUTHKEY_MAX, &key, &size, err);
    if (result < 0)
        return result;
    hex_format(key, size, hex);
    *ret_authkey = json_string(hex);
    seal_wipe(hex, sizeof hex);
    seal_wipe(key, size);
    free(key);
    return 0;
}

/* Everything that makes the other host the second node. */
static int pack_answer(const struct invite *invite, const char *public_key, json_t **ret, struct err *err)
{
    cleanup_free char *ca = NULL, *certificate = NULL, *conf = NULL;
    json_t *authkey = NULL;
    int result = issue(invite, public_key, &ca, &certificate, err);
    if (result == 0)
        result = read_corosync(invite, &conf, &authkey, err);
    if (result < 0)
        return result;
    *ret =
        json_pack("{s:{s:o, s:s, s:s, s:o, s:s, s:o}}", "result", "config",
                  site_json_encode(&invite->site, !invite->site.self), "ca", ca, "certificate", certificate, "secrets",
                  secrets_json_encode(&invite->state.secrets), "corosync_conf", conf, "corosync_authkey", authkey);
    return *ret ? 0 : err_set(err, -ENOMEM, "no_memory", "out of memory while answering the other node; try again");
}

/* Durable before the secrets leave this host: from then on they must not change any more. */
static int mark_handed_out(struct invite *invite, struct err *err)
{
    invite->state.handed_out = true;
    return join_state_save(invite->files.join, &invite->state, err);
}

/* The secrets go only when that is durable: until then the joiner may have to come again. */
static int mark_joined(struct invite *invite, struct err *err)
{
    const struct join_state joined = {.handed_out = true, .joined = true};
    int result = join_state_save(invite->files.join, &joined, err);
    if (result == 0)
        seal_wipe(&invite->state.secrets, sizeof invite->state.secrets);
    return result;
}

static int hand_out(struct invite *invite, struct enrol_line *line, const json_t *request, struct err *err)
{
    json_owner json_t *answer = NULL, *refusal = NULL;
    const char *public_key = output_text(request, "public_key", "");
    int result = pack_answer(invite, public_key, &answer, err);
    if (result == 0)
        result = mark_handed_out(invite, err);
    if (result < 0) {
        refusal = error_answer(err->code, err->text);
        enrol_line_send(line, refusal, NULL);
        return result;
    }
    /* Whoever has the token gets this: the person at the screen knows whether it was the right host. */
    fprintf(stderr, "hcictl: the keys of node '%s' go to %s\n", site_peer(&invite->site)->name, line->other);
    return enrol_line_send(line, answer, err);
}

/* The second node's files are in place: from here on nobody else can join. */
static int take_confirmation(struct invite *invite, struct enrol_line *line, struct err *err)
{
    json_owner json_t *request = NULL, *answer = NULL;
    int result = enrol_line_receive(line, &request, err);
    if (result < 0)
        return result;
    if (strcmp(output_text(request, "method", ""), "joined"))
        return err_set(err, -EPROTO, "protocol", "%s did not say that it has joined", line->other);
    result = mark_joined(invite, err);
    if (result < 0)
        return result;
    invite->is_over = true;
    answer = json_pack("{s:{}}", "result");
    enrol_line_send(line, answer, NULL); /* when it gets lost, the joiner says so; it has joined all the same */
    return 0;
}

static int serve(struct invite *invite, struct enrol_line *line, struct err *err)
{
    json_owner json_t *request = NULL, *refusal = NULL;
    int result = enrol_line_receive(line, &request, err);
    if (result < 0)
        return result;
    if (strcmp(output_text(request, "method", ""), "join")) {
        refusal = error_answer("unknown_method", "only a node that wants to join is answered here");
        enrol_line_send(line, refusal, NULL);
        return err_set(err, -EPROTO, "protocol", "%s asked for something else than to join", line->other);
    }
    if (!secret_is_right(invite, request)) {
        invite->wrong_secrets++;
        refusal =
            error_answer("wrong_token", "this is not the token that `hcictl cluster invite` printed last; a token "
                                        "works once and only while that command runs");
        enrol_line_send(line, refusal, NULL);
        return err_set(err, -EACCES, "wrong_token", "%s came with a wrong token (%u of at most %u)", line->other,
                       invite->wrong_secrets, WRONG_SECRETS_MAX);
    }
    result = hand_out(invite, line, request, err);
    if (result == 0)
        result = take_confirmation(invite, line, err);
    return result;
}

/* One connection after the other: each has at most ENROL_CONNECTION_MS, and the joiner can come again. */
static void serve_connection(struct invite *invite)
{
    struct sockaddr_storage socket_address;
    socklen_t size = sizeof socket_address;
    char host[64] = "?";
    struct enrol_line line;
    struct err err = {0};
    int fd = accept4(invite->listen_fd, (struct sockaddr *)&socket_address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    getnameinfo((struct sockaddr *)&socket_address, size, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    int result = enrol_line_accept(fd, invite->identity, host, &line, &err);
    if (result == 0) {
        result = serve(invite, &line, &err);
        enrol_line_close(&line);
    }
    if (result < 0)
        fprintf(stderr, "hcictl: not joined: %s\n", err.text);
}

static int wait_for_join(struct invite *invite, struct err *err)
{
    while (!invite->is_over) {
        uint64_t now_ms = clock_boottime_ms();
        if (now_ms >= invite->deadline_ms)
            return err_set(err, -ETIME, "timeout", "nobody joined within %u minutes; run `hcictl cluster invite` again",
                           INVITE_LIMIT_MS / 60000);
        if (invite->wrong_secrets >= WRONG_SECRETS_MAX)
            return err_set(err, -EACCES, "wrong_token", "%u wrong tokens: somebody is guessing; find out who, then run "
                           "`hcictl cluster invite` again for a new token", WRONG_SECRETS_MAX);
        struct pollfd descriptor = {.fd = invite->listen_fd, .events = POLLIN};
        if (poll(&descriptor, 1, (int)(invite->deadline_ms - now_ms)) > 0)
            serve_connection(invite);
    }
    return 0;
}

static void release(struct invite *invite)
{
    if (invite->listen_fd >= 0)
        close(invite->listen_fd);
    if (invite->identity)
        tls_identity_free(invite->identity);
    seal_wipe(&invite->token, sizeof invite->token);
    seal_wipe(&invite->state, sizeof invite->state);
}

int cluster_invite_run(struct cli *cli, struct err *err)
{
    cleanup(release) struct invite invite = {.cli = cli, .listen_fd = -1};
    struct address address;
    if (seal_init() < 0)
        return err_set(err, -EIO, "io", "no source of random numbers; see whether /dev/urandom works");
    int result = load(&invite, err);
    if (result == 0)
        result = make_token(&invite, err);
    if (result == 0)
        result = listen_at(&invite, &address, err);
    if (result == 0)
        result = say_token(&invite, &address, err);
    if (result < 0)
        return result;
    invite.deadline_ms = clock_boottime_ms() + INVITE_LIMIT_MS;
    result = wait_for_join(&invite, err);
    if (result == 0 && !cli->json)
        printf("Node '%s' has joined. Start the daemons on both nodes:\n"
               "  systemctl restart corosync && systemctl enable --now hci.target\n", site_peer(&invite.site)->name);
    return result;
}
