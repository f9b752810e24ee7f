/* `hcictl cluster join`: makes this host the second node, with the token that the first printed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/corosync_conf.h"
#include "cli/enrol_files.h"
#include "cli/enrol_line.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/site_json.h"
#include "common/pki.h"
#include "common/seal.h"
#include "common/token.h"

#define INVITE_PORT 7204

struct join {
    struct enrol_files files;
    struct site site;
    struct site_secrets secrets;
    uint8_t authkey[COROSYNC_AUTHKEY_SIZE];
    char *key_pem;
    struct enrol_line line;
};

static void release(struct join *join)
{
    enrol_line_close(&join->line);
    pki_free_secret(join->key_pem);
    seal_wipe(&join->secrets, sizeof join->secrets);
    seal_wipe(join->authkey, sizeof join->authkey);
}

/* The key is made here and never leaves this host; only its public half travels. */
static int ask(struct join *join, const struct token *token, json_t **ret_answer, struct err *err)
{
    char secret[2 * sizeof token->secret + 1];
    cleanup_free char *public_key = NULL;
    int result = pki_make_key(&join->key_pem, err);
    if (result == 0)
        result = pki_public_key(join->key_pem, &public_key, err);
    if (result < 0)
        return result;
    hex_format(token->secret, sizeof token->secret, secret);
    json_owner json_t *request =
        json_pack("{s:s, s:s, s:s}", "method", "join", "secret", secret, "public_key", public_key);
    seal_wipe(secret, sizeof secret);
    return enrol_line_ask(&join->line, request, ret_answer, err);
}

static int refuse_answer(const struct join *join, struct err *err)
{
    return err_set(err, -EPROTO, "protocol",
                   "%s gave an answer that is not complete; use the same version of hcictl on both nodes",
                   join->line.other);
}

static int decode(const struct cli *cli, struct join *join, const json_t *answer, struct err *err)
{
    const char *authkey = output_text(answer, "corosync_authkey", NULL);
    if (!output_text(answer, "ca", NULL) || !output_text(answer, "certificate", NULL) ||
        !output_text(answer, "corosync_conf", NULL) || hex_parse(authkey, join->authkey, sizeof join->authkey) < 0 ||
        secrets_json_decode(json_object_get(answer, "secrets"), &join->secrets) < 0)
        return refuse_answer(join, err);
    int result = site_json_decode(json_object_get(answer, "config"), &join->site, err);
    if (result == 0)
        result = enrol_site_set_folders(cli, &join->site, err);
    if (result == 0)
        result = enrol_site_set_watchdog(cli, &join->site, err);
    return result;
}

static int write_all(struct join *join, const json_t *answer, struct err *err)
{
    struct enrol_files *files = &join->files;
    const char *ca = output_text(answer, "ca", ""), *certificate = output_text(answer, "certificate", "");
    int result = enrol_files_make_folders(files, err);
    if (result == 0)
        result = enrol_files_write(files, files->node_key, join->key_pem, strlen(join->key_pem), 0600, err);
    if (result == 0)
        result = enrol_files_write(files, files->ca_certificate, ca, strlen(ca), 0644, err);
    if (result == 0)
        result = enrol_files_write(files, files->node_certificate, certificate, strlen(certificate), 0644, err);
    if (result == 0) {
        enrol_files_will_make(files, files->secrets);
        result = site_save_secrets(files->secrets, &join->secrets, err);
    }
    if (result == 0)
        result = enrol_files_write_corosync(files, output_text(answer, "corosync_conf", ""), join->authkey,
                                            sizeof join->authkey, err);
    if (result == 0) {
        /* Last: a host without hci.conf is no node, whatever else is there. */
        enrol_files_will_make(files, files->config);
        result = enrol_files_write_config(files, &join->site, err);
    }
    return result;
}

/* The key, the certificate and the CA must fit together now, not at the first start of a daemon. */
static int verify(const struct join *join, struct err *err)
{
    struct tls_identity *identity = NULL;
    const struct enrol_files *files = &join->files;
    int result = tls_identity_load(files->ca_certificate, files->node_certificate, files->node_key, &identity, err);
    if (result == 0)
        tls_identity_free(identity);
    return result;
}

static void confirm(struct join *join)
{
    struct err err = {0};
    json_owner json_t *request = json_pack("{s:s}", "method", "joined"), *answer = NULL;
    if (enrol_line_ask(&join->line, request, &answer, &err) < 0)
        fprintf(stderr,
                "hcictl: this host has joined, but node '%s' could not be told (%s); if `hcictl cluster invite` "
                "still waits there, end it\n",
                site_peer(&join->site)->name, err.text);
}

static int say_done(const struct cli *cli, const struct join *join, struct err *err)
{
    if (cli->json)
        return output_json(site_json_encode(&join->site, join->site.self), err);
    printf("This host is now node '%s' of cluster '%s'.\n", site_self(&join->site)->name, join->site.name);
    if (!join->site.has_witness)
        puts("The cluster has no witness: when one node is lost the other waits for it instead of going on.");
    puts("Next, on both nodes:  systemctl restart corosync && systemctl enable --now hci.target");
    return 0;
}

static int prepare(struct cli *cli, struct join *join, struct address *address, struct token *token,
                   struct err *err)
{
    int result = address_parse("address of the first node", cli->arguments[0], INVITE_PORT, address, err);
    if (result < 0)
        return cli_usage(err, "address '%.80s' is no IP address; copy the command that `hcictl cluster invite` printed",
                         cli->arguments[0]);
    if (token_parse(cli->arguments[1], token) < 0)
        return cli_usage(err,
                         "the token is not complete or mistyped; copy the one that `hcictl cluster invite` printed");
    cli_hide_argument(cli, 1);
    if (seal_init() < 0)
        return err_set(err, -EIO, "io", "no source of random numbers; see whether /dev/urandom works");
    result = enrol_files_plan(cli, cli_option_or(cli, "state-folder", "/var/lib/hci"), &join->files, err);
    return result < 0 ? result : enrol_files_refuse_existing(&join->files, true, err);
}

int cluster_join_run(struct cli *cli, struct err *err)
{
    cleanup(release) struct join join = {.line = {.fd = -1}};
    json_owner json_t *answer = NULL;
    struct address address;
    struct token token = {0};
    int result = prepare(cli, &join, &address, &token, err);
    if (result == 0)
        result = enrol_line_connect(&address, token.ca_sha256, &join.line, NULL, err);
    if (result == 0)
        result = ask(&join, &token, &answer, err);
    seal_wipe(&token, sizeof token);
    if (result == 0)
        result = decode(cli, &join, answer, err);
    if (result < 0)
        return result;
    result = write_all(&join, answer, err);
    if (result == 0)
        result = verify(&join, err);
    if (result < 0) {
        enrol_files_undo(&join.files);
        return result;
    }
    confirm(&join);
    return say_done(cli, &join, err);
}
