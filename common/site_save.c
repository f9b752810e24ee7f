/* Writes hci.conf and secrets.conf so that site_load and site_load_secrets read them back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/files.h"
#include "common/site_private.h"

static void set_default_text(char *value, size_t size, const char *text)
{
    if (value[0] == '\0')
        snprintf(value, size, "%s", text);
}

static void set_default_port(uint16_t *value, uint16_t port)
{
    if (*value == 0)
        *value = port;
}

/* What enrolment left zero gets the value that site_load would give it. */
static void set_defaults(struct site *site)
{
    set_default_text(site->profile.name, sizeof(site->profile.name), SITE_DEFAULT_PROFILE);
    set_default_port(&site->witness_port, SITE_DEFAULT_WITNESS_PORT);
    set_default_port(&site->quorum_port, SITE_DEFAULT_QUORUM_PORT);
    set_default_port(&site->mirror_port, SITE_DEFAULT_MIRROR_PORT);
    if (site->portal_count == 0) {
        strcpy(site->portals[0], SITE_DEFAULT_PORTAL);
        site->portal_count = 1;
    }
    if (site->watchdog_reset_ms == 0)
        site->watchdog_reset_ms = SITE_DEFAULT_RESET_MS;
    set_default_text(site->cgroup_root, sizeof(site->cgroup_root), SITE_DEFAULT_CGROUP_ROOT);
    set_default_text(site->libvirt_uri, sizeof(site->libvirt_uri), SITE_DEFAULT_LIBVIRT_URI);
    set_default_text(site->pki_folder, sizeof(site->pki_folder), SITE_DEFAULT_PKI_FOLDER);
    set_default_text(site->state_folder, sizeof(site->state_folder), SITE_DEFAULT_STATE_FOLDER);
    set_default_text(site->run_folder, sizeof(site->run_folder), SITE_DEFAULT_RUN_FOLDER);
}

static void print_list(FILE *file, const char *name, unsigned count, const char values[][SITE_ADDRESS_MAX])
{
    fprintf(file, "    %s = {", name);
    for (unsigned index = 0; index < count; index++)
        fprintf(file, "%s\"%s\"", index == 0 ? "" : ", ", values[index]);
    fprintf(file, "}\n");
}

static void print_cluster(FILE *file, const struct site *site)
{
    char text[ID_TEXT_SIZE];

    fprintf(file, "cluster {\n    name = \"%s\"\n    uuid = \"%s\"\n    profile = \"%s\"\n}\n", site->name,
            id_format(&site->id, text), site->profile.name);
    fprintf(file, "self = \"%s\"\n", site_self(site)->name);
    for (unsigned index = 0; index < (site->standalone ? 1u : 2u); index++) {
        const struct site_node *node = &site->nodes[index];
        fprintf(file, "node \"%s\" {\n    uuid = \"%s\"\n", node->name, id_format(&node->id, text));
        print_list(file, "links", node->link_count, node->links);
        fprintf(file, "}\n");
    }
    if (site->has_witness)
        fprintf(file, "witness {\n    uuid = \"%s\"\n    address = \"%s\"\n    port = %u\n}\n",
                id_format(&site->witness_id, text), site->witness_address, site->witness_port);
}

static void print_settings(FILE *file, const struct site *site)
{
    fprintf(file, "storage {\n");
    print_list(file, "portals", site->portal_count, site->portals);
    fprintf(file, "    mirror_port = %u\n}\n", site->mirror_port);
    fprintf(file, "quorum {\n    port = %u\n}\n", site->quorum_port);
    fprintf(file, "watchdog {\n    device = \"%s\"\n    socket = \"%s\"\n", site->watchdog_device,
            site->watchdog_socket);
    if (site->watchdog_ms != 0)
        fprintf(file, "    period_ms = %u\n", site->watchdog_ms);
    fprintf(file, "    reset_ms = %u\n}\n", site->watchdog_reset_ms);
    fprintf(file, "guests {\n    cgroup_root = \"%s\"\n    libvirt_uri = \"%s\"\n}\n", site->cgroup_root,
            site->libvirt_uri);
    fprintf(file, "pki_folder = \"%s\"\nstate_folder = \"%s\"\nrun_folder = \"%s\"\n", site->pki_folder,
            site->state_folder, site->run_folder);
}

int site_save(const char *path, const struct site *site, struct err *err)
{
    struct site complete = *site;
    cleanup_free char *text = NULL;
    size_t size = 0;

    check(site->self < 2);
    set_defaults(&complete);
    int result = site_check(path, &complete, err);
    if (result < 0)
        return result;

    FILE *file = open_memstream(&text, &size);
    if (file == NULL)
        return err_set(err, -ENOMEM, "no_memory", "%s: no memory to write it; free some memory", path);
    fprintf(file, "# This node's configuration.%s\n",
            site->standalone ? "" : " The same on both nodes but for the line 'self'.");
    print_cluster(file, &complete);
    print_settings(file, &complete);
    if (fclose(file) != 0)
        return err_set(err, -ENOMEM, "no_memory", "%s: no memory to write it; free some memory", path);
    return files_replace(path, text, size, 0644, err);
}

static char *print_key(char *place, const char *name, const uint8_t key[static SEAL_KEY_SIZE])
{
    place += sprintf(place, "%s = \"", name);
    for (unsigned index = 0; index < SEAL_KEY_SIZE; index++)
        place += sprintf(place, "%02x", key[index]);
    return place + sprintf(place, "\"\n");
}

int site_save_secrets(const char *path, const struct site_secrets *secrets, struct err *err)
{
    char text[4 * (SEAL_KEY_SIZE * 2 + 32) + 128];
    char *place = text;

    place += sprintf(place, "# The keys of this node's datagrams, one per direction. Never share this file.\n");
    place = print_key(place, "to_peer", secrets->to_peer);
    place = print_key(place, "from_peer", secrets->from_peer);
    place = print_key(place, "to_witness", secrets->to_witness);
    place = print_key(place, "from_witness", secrets->from_witness);
    check((size_t)(place - text) < sizeof(text));
    int result = files_replace(path, text, (size_t)(place - text), 0600, err);
    seal_wipe(text, sizeof(text));
    return result;
}
