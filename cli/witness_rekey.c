/* `hcictl witness rekey`: fresh keys for the talk between this node and its witness, while everything runs on. */
#include <errno.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/enrol_line.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/text.h"
#include "common/cleanup.h"
#include "common/seal.h"
#include "common/site.h"
#include "common/token.h"

struct rekey {
    struct site site;
    struct site_secrets secrets;
    char secrets_path[CLI_PATH_MAX];
    struct address address;
    struct token token;
    struct enrol_line line;
};

static void release(struct rekey *rekey)
{
    enrol_line_close(&rekey->line);
    seal_wipe(&rekey->secrets, sizeof rekey->secrets);
    seal_wipe(&rekey->token, sizeof rekey->token);
}

static int prepare(struct cli *cli, struct rekey *rekey, struct err *err)
{
    if (token_parse(cli->arguments[0], &rekey->token) < 0)
        return cli_usage(err, "the token is not complete or mistyped; copy the one that `hcictl witness token` printed");
    cli_hide_argument(cli, 0);
    if (seal_init() < 0)
        return err_set(err, -EIO, "io", "no source of random numbers; see whether /dev/urandom works");
    int result = cli_load_pair(cli, "a witness", &rekey->site, err);
    if (result < 0)
        return result;
    if (!rekey->site.has_witness)
        return err_set(err, -ENOENT, "no_witness", "cluster '%s' has no witness, so this node has no keys for one",
                       rekey->site.name);
    result = address_parse("witness address", rekey->site.witness_address, rekey->site.witness_port, &rekey->address, err);
    if (result == 0)
        result = cli_path(rekey->secrets_path, cli_config_folder(cli), "secrets.conf", err);
    return result < 0 ? result : site_load_secrets(rekey->secrets_path, &rekey->secrets, err);
}

static json_t *pack_request(const struct rekey *rekey)
{
    const struct site_node *self = site_self(&rekey->site);
    char cluster[ID_TEXT_SIZE], node[ID_TEXT_SIZE], secret[2 * sizeof rekey->token.secret + 1];
    hex_format(rekey->token.secret, sizeof rekey->token.secret, secret);
    json_t *request = json_pack("{s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s}}", "method", "rekey", "secret", secret, "cluster", "id",
                                id_format(&rekey->site.id, cluster), "name", rekey->site.name, "node", "id",
                                id_format(&self->id, node), "name", self->name);
    seal_wipe(secret, sizeof secret);
    return request;
}

/* The witness takes both pairs until it has seen the new one, so that the order of file and restart does not matter. */
static int take_answer(struct rekey *rekey, const json_t *answer, struct err *err)
{
    struct site_secrets fresh = rekey->secrets;
    struct id witness;
    int result = -EPROTO;
    if (id_parse(output_text(answer, "witness", ""), &witness) < 0 || !id_equal(&witness, &rekey->site.witness_id))
        err_set(err, result, "protocol", "%s is not this cluster's witness; use a token of the witness that hci.conf names",
                rekey->line.other);
    else if (hex_parse(output_text(answer, "to_witness", NULL), fresh.to_witness, sizeof fresh.to_witness) < 0 ||
             hex_parse(output_text(answer, "from_witness", NULL), fresh.from_witness, sizeof fresh.from_witness) < 0)
        err_set(err, result, "protocol", "%s gave an answer without keys; use the same version on the witness",
                rekey->line.other);
    else
        result = site_save_secrets(rekey->secrets_path, &fresh, err);
    seal_wipe(&fresh, sizeof fresh);
    return result;
}

int witness_rekey_run(struct cli *cli, struct err *err)
{
    cleanup(release) struct rekey rekey = {.line = {.fd = -1}};
    json_owner json_t *request = NULL, *answer = NULL;
    int result = prepare(cli, &rekey, err);
    if (result < 0)
        return result;
    request = pack_request(&rekey);
    result = request != NULL ? 0 : err_set(err, -ENOMEM, "no_memory", "out of memory; try again");
    if (result == 0)
        result = enrol_line_connect(&rekey.address, rekey.token.ca_sha256, &rekey.line, NULL, err);
    if (result == 0)
        result = enrol_line_ask(&rekey.line, request, &answer, err);
    if (result == 0)
        result = take_answer(&rekey, answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_pack("{s:s}", "node", site_self(&rekey.site)->name), err);
    printf("Node '%s' has new keys for the witness. The old ones are good until hci-quorumd has used the new:\n\n"
           "  systemctl restart hci-quorumd      (guests stand still until the lease is back)\n",
           site_self(&rekey.site)->name);
    return 0;
}
