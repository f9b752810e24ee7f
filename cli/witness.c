/* `hcictl witness …`: the third host that decides when the nodes cannot. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/enrol_files.h"
#include "cli/enrol_line.h"
#include "cli/join_state.h"
#include "cli/json_owner.h"
#include "cli/output.h"
#include "cli/text.h"
#include "common/files.h"
#include "common/seal.h"
#include "common/token.h"

#define WITNESS_PORT 7203
#define PEM_MAX 16384

int witness_token_run(struct cli *cli, struct err *err)
{
    json_owner json_t *answer = NULL;
    int result = client_ask(cli, &client_witnessd, "token.new", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_incref(answer), err);
    printf("On the cluster's first node, within an hour:\n\n  hcictl witness enroll ADDRESS %s\n\n"
           "ADDRESS is this host's, as the nodes reach it. The token works once.\n", output_text(answer, "token", "?"));
    return 0;
}

struct enroll {
    struct site site;
    struct enrol_files files;
    struct join_state join;
    struct site_secrets secrets;
    struct address address;
    struct token token;
    struct enrol_line line;
    unsigned round_trip_ms;
};

static void release(struct enroll *enroll)
{
    enrol_line_close(&enroll->line);
    seal_wipe(&enroll->join, sizeof enroll->join);
    seal_wipe(&enroll->secrets, sizeof enroll->secrets);
    seal_wipe(&enroll->token, sizeof enroll->token);
}

/* The second node gets its keys for the witness when it joins, so the witness must be known before. */
static int refuse_late(const struct enroll *enroll, struct err *err)
{
    const struct site *site = &enroll->site;
    if (site->has_witness)
        return err_set(err, -EEXIST, "exists",
                       "cluster '%s' already has the witness %s port %u; a cluster has exactly one", site->name,
                       site->witness_address, site->witness_port);
    if (enroll->join.joined)
        return err_set(
            err, -EALREADY, "joined",
            "node '%s' has already joined, and this version enrols a witness only before that; make the cluster "
            "anew and enrol the witness first",
            site_peer(site)->name);
    if (enroll->join.handed_out)
        return err_set(
            err, -EALREADY, "joined",
            "node '%s' has already been given its keys and this version enrols a witness only before that; let it "
            "join, or make the cluster anew and enrol the witness first",
            site_peer(site)->name);
    return 0;
}

static int prepare(struct cli *cli, struct enroll *enroll, struct err *err)
{
    if (address_parse("witness address", cli->arguments[0], WITNESS_PORT, &enroll->address, err) < 0)
        return cli_usage(err, "witness address '%.80s' is no IP address; write it as 10.13.0.3 or 10.13.0.3:7203",
                         cli->arguments[0]);
    if (token_parse(cli->arguments[1], &enroll->token) < 0)
        return cli_usage(err,
                         "the token is not complete or mistyped; copy the one that `hcictl witness token` printed");
    cli_hide_argument(cli, 1);
    if (seal_init() < 0)
        return err_set(err, -EIO, "io", "no source of random numbers; see whether /dev/urandom works");
    int result = cli_load_pair(cli, "a witness", &enroll->site, err);
    if (result == 0)
        result =
            enrol_files_plan(cli, cli_option_or(cli, "state-folder", enroll->site.state_folder), &enroll->files, err);
    if (result == 0)
        result = join_state_load(enroll->files.join, &enroll->join, err);
    if (result == 0)
        result = site_load_secrets(enroll->files.secrets, &enroll->secrets, err);
    return result < 0 ? result : refuse_late(enroll, err);
}

static int pack_request(const struct enroll *enroll, json_t **ret, struct err *err)
{
    const struct site *site = &enroll->site;
    char cluster[ID_TEXT_SIZE], nodes[2][ID_TEXT_SIZE], secret[2 * sizeof enroll->token.secret + 1];
    cleanup_free char *ca = NULL;
    size_t size = 0;
    int result = files_read(enroll->files.ca_certificate, PEM_MAX, &ca, &size, err);
    if (result < 0)
        return result;
    hex_format(enroll->token.secret, sizeof enroll->token.secret, secret);
    *ret = json_pack("{s:s, s:s, s:{s:s, s:s}, s:[{s:s, s:s}, {s:s, s:s}], s:s}", "method", "enrol", "secret", secret,
                     "cluster", "id", id_format(&site->id, cluster), "name", site->name, "nodes", "id",
                     id_format(&site->nodes[0].id, nodes[0]), "name", site->nodes[0].name, "id",
                     id_format(&site->nodes[1].id, nodes[1]), "name", site->nodes[1].name, "ca", ca);
    seal_wipe(secret, sizeof secret);
    return *ret ? 0 : err_set(err, -ENOMEM, "no_memory", "out of memory while talking to the witness; try again");
}

static int take_keys(const json_t *keys, const struct site_node *node, struct site_secrets *ret)
{
    char uuid[ID_TEXT_SIZE];
    const json_t *own = json_object_get(keys, id_format(&node->id, uuid));
    if (hex_parse(output_text(own, "to_witness", NULL), ret->to_witness, sizeof ret->to_witness) < 0 ||
        hex_parse(output_text(own, "from_witness", NULL), ret->from_witness, sizeof ret->from_witness) < 0)
        return -EPROTO;
    return 0;
}

static int take_answer(struct enroll *enroll, const json_t *answer, struct err *err)
{
    const json_t *keys = json_object_get(answer, "keys");
    const char *witness = output_text(answer, "witness", "");
    if (id_parse(witness, &enroll->site.witness_id) < 0 ||
        take_keys(keys, site_self(&enroll->site), &enroll->secrets) < 0 ||
        take_keys(keys, site_peer(&enroll->site), &enroll->join.secrets) < 0)
        return err_set(err, -EPROTO, "protocol",
                       "%s gave an answer without keys for both nodes; use the same version on the "
                       "witness",
                       enroll->line.other);
    enroll->site.has_witness = true;
    snprintf(enroll->site.witness_address, sizeof enroll->site.witness_address, "%s", enroll->address.host);
    enroll->site.witness_port = enroll->address.port;
    return 0;
}

/* hci.conf last: until it names the witness, the command can be given again with a new token. */
static int write_all(const struct enroll *enroll, struct err *err)
{
    int result = join_state_save(enroll->files.join, &enroll->join, err);
    if (result == 0)
        result = site_save_secrets(enroll->files.secrets, &enroll->secrets, err);
    if (result == 0)
        result = enrol_files_write_config(&enroll->files, &enroll->site, err);
    return result;
}

static int say_done(const struct cli *cli, const struct enroll *enroll, struct err *err)
{
    const struct site *site = &enroll->site;
    char uuid[ID_TEXT_SIZE];
    if (cli->json)
        return output_json(json_pack("{s:s, s:s, s:i, s:i}", "witness", id_format(&site->witness_id, uuid), "address",
                                     site->witness_address, "port", (int)site->witness_port, "round_trip_ms",
                                     (int)enroll->round_trip_ms), err);
    printf("Witness %s port %u is enrolled; it answered in %u ms.\n", site->witness_address, site->witness_port,
           enroll->round_trip_ms);
    /* protocol "Timing profiles": L >= 3 round trips. */
    if (3 * enroll->round_trip_ms > site->profile.lease_ms)
        printf("That is slow for profile '%s' (lease %u ms): write profile = \"slow\" into hci.conf before the other "
               "node joins.\n",
               site->profile.name, site->profile.lease_ms);
    puts("Next, here:  hcictl cluster invite");
    return 0;
}

int witness_enroll_run(struct cli *cli, struct err *err)
{
    cleanup(release) struct enroll enroll = {.line = {.fd = -1}};
    json_owner json_t *request = NULL, *answer = NULL;
    int result = prepare(cli, &enroll, err);
    if (result == 0)
        result = pack_request(&enroll, &request, err);
    if (result == 0)
        result = enrol_line_connect(&enroll.address, enroll.token.ca_sha256, &enroll.line, &enroll.round_trip_ms, err);
    if (result == 0)
        result = enrol_line_ask(&enroll.line, request, &answer, err);
    if (result == 0)
        result = take_answer(&enroll, answer, err);
    if (result == 0)
        result = write_all(&enroll, err);
    return result < 0 ? result : say_done(cli, &enroll, err);
}

static void print_witness(const struct site *site, const json_t *answer)
{
    printf("witness:    %s port %u\n", site->witness_address, site->witness_port);
    if (!output_find(answer, "witness.reachable"))
        return;
    printf("reachable:  %s\n", output_is_true(answer, "witness.reachable") ? "yes" : "no");
    if (output_is_true(answer, "witness.reachable") && json_is_number(output_find(answer, "witness.rtt_ms")))
        printf("answers in: %.1f ms\n", json_number_value(output_find(answer, "witness.rtt_ms")));
}

int witness_show_run(struct cli *cli, struct err *err)
{
    struct site site;
    char uuid[ID_TEXT_SIZE];
    json_owner json_t *answer = NULL;
    int result = cli_load_pair(cli, "a witness", &site, err);
    if (result < 0)
        return result;
    if (!site.has_witness)
        return err_set(
            err, -ENOENT, "no_witness",
            "cluster '%s' has no witness: when a node is lost the other waits for it; a witness is enrolled before "
            "the second node joins",
            site.name);
    result = client_ask(cli, &client_quorumd, "status", NULL, CLIENT_QUICK_MS, &answer, err);
    if (result < 0)
        return result;
    if (cli->json)
        return output_json(json_pack("{s:s, s:s, s:i, s:O*}", "uuid", id_format(&site.witness_id, uuid), "address",
                                     site.witness_address, "port", (int)site.witness_port, "status",
                                     output_find(answer, "witness")), err);
    print_witness(&site, answer);
    return 0;
}
