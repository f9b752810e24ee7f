/* `hcictl cluster show`: this host's configuration, for people and programs; never a secret. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/enrol_files.h"
#include "cli/output.h"
#include "cli/site_json.h"
#include "cli/text.h"
#include "common/cleanup.h"
#include "common/files.h"
#include "common/pki.h"
#include "common/seal.h"

#define PEM_MAX 16384

static const struct output_column fields[] = {
    {"name", "cluster", OUTPUT_TEXT},
    {"uuid", "uuid", OUTPUT_TEXT},
    {"self", "this host", OUTPUT_TEXT},
    {"profile", "profile", OUTPUT_TEXT},
    {"nodes", "nodes", OUTPUT_LIST},
    {"portals", "iSCSI portals", OUTPUT_LIST},
    {"watchdog.device", "watchdog device", OUTPUT_TEXT},
    {"watchdog.socket", "watchdog socket", OUTPUT_TEXT},
    {"ca_sha256", "CA fingerprint", OUTPUT_TEXT},
    {NULL, NULL, OUTPUT_TEXT},
};

static const struct output_column node_columns[] = {
    {"name", "NODE", OUTPUT_TEXT},
    {"uuid", "UUID", OUTPUT_TEXT},
    {"links", "LINKS", OUTPUT_LIST},
    {NULL, NULL, OUTPUT_TEXT},
};

static int add_fingerprint(const struct enrol_files *files, json_t *document, struct err *err)
{
    cleanup_free char *pem = NULL;
    size_t size = 0;
    uint8_t fingerprint[32];
    char text[2 * sizeof fingerprint + 1];
    int result = files_read(files->ca_certificate, PEM_MAX, &pem, &size, err);
    if (result == 0)
        result = pki_fingerprint(pem, fingerprint, err);
    if (result < 0)
        return result;
    hex_format(fingerprint, sizeof fingerprint, text);
    json_object_set_new(document, "ca_sha256", json_string(text));
    return 0;
}

/* Reads the secrets too, so that a damaged file is found here and not by a daemon at night. */
static int add_witness_enrolled(const struct enrol_files *files, json_t *document, struct err *err)
{
    static const uint8_t zero[SEAL_KEY_SIZE];
    struct site_secrets secrets;
    int result = site_load_secrets(files->secrets, &secrets, err);
    if (result < 0)
        return result;
    json_object_set_new(document, "witness_enrolled", json_boolean(memcmp(secrets.to_witness, zero, sizeof zero)));
    seal_wipe(&secrets, sizeof secrets);
    return 0;
}

static void print(const struct site *site, json_t *document)
{
    if (site->standalone)
        json_object_del(document, "watchdog"); /* it has no use for one */
    output_fields(document, fields);
    if (site->standalone)
        puts("witness:         none: this node stands alone, nothing is mirrored");
    else if (site->has_witness)
        printf("witness:         %s port %u\n", site->witness_address, site->witness_port);
    else
        puts("witness:         none; the loss of a node stops both");
    printf("\n");
    output_table(json_object_get(document, "nodes"), node_columns, "no nodes");
}

int cluster_show_run(struct cli *cli, struct err *err)
{
    struct site site;
    struct enrol_files files;
    int result = cli_load_site(cli, &site, err);
    if (result == 0)
        result = enrol_files_plan(cli, site.state_folder, &files, err);
    if (result < 0)
        return result;
    json_t *document = site_json_encode(&site, site.self);
    result = site.standalone ? 0 : add_fingerprint(&files, document, err);
    if (result == 0 && !site.standalone)
        result = add_witness_enrolled(&files, document, err);
    if (result == 0 && cli->json)
        return output_json(document, err);
    if (result == 0)
        print(&site, document);
    json_decref(document);
    return result;
}
