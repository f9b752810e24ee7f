/* Writes corosync's configuration for the pair. corosync carries the administration between the nodes and shows its
 * own view of them; no safety decision reads it (architecture: "External parts"), so its settings are plain. */
#include "cli/corosync_conf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct writer {
    char *text;
    size_t used;
    unsigned depth;
};

/* One line, indented; a line that does not fit makes the text count as overflowed. */
static void put(struct writer *writer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct writer *writer, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (writer->used < COROSYNC_CONF_MAX)
        writer->used += (size_t)snprintf(writer->text + writer->used, COROSYNC_CONF_MAX - writer->used, "%*s%s\n",
                                         (int)(4 * writer->depth), "", line);
}

/* corosync's parser wants every `{` and each setting on a line of its own. */
static void open_section(struct writer *writer, const char *name)
{
    put(writer, "%s {", name);
    writer->depth++;
}

static void close_section(struct writer *writer)
{
    writer->depth--;
    put(writer, "}");
}

static void put_totem(struct writer *writer, const struct site *site)
{
    open_section(writer, "totem");
    put(writer, "version: 2");
    put(writer, "cluster_name: %s", site->name);
    put(writer, "transport: knet");
    put(writer, "crypto_cipher: aes256");
    put(writer, "crypto_hash: sha256");
    put(writer, "token: 1000");
    close_section(writer);
}

static void put_node(struct writer *writer, const struct site_node *node, unsigned nodeid)
{
    open_section(writer, "node");
    put(writer, "name: %s", node->name);
    put(writer, "nodeid: %u", nodeid);
    for (unsigned link = 0; link < node->link_count; link++)
        put(writer, "ring%u_addr: %s", link, node->links[link]);
    close_section(writer);
}

/* two_node lets the survivor stay quorate for corosync; wait_for_all: 0 lets a node that starts alone form a ring. Who
 * may write or run a guest is decided by leases and records, never by this quorum. */
static void put_quorum(struct writer *writer)
{
    open_section(writer, "quorum");
    put(writer, "provider: corosync_votequorum");
    put(writer, "two_node: 1");
    put(writer, "wait_for_all: 0");
    close_section(writer);
}

static void put_logging(struct writer *writer)
{
    open_section(writer, "logging");
    put(writer, "to_stderr: yes");
    put(writer, "to_syslog: yes");
    put(writer, "timestamp: on");
    close_section(writer);
}

int corosync_conf_format(const struct site *site, char ret_text[static COROSYNC_CONF_MAX], struct err *err)
{
    if (site->nodes[0].link_count != site->nodes[1].link_count || site->nodes[0].link_count == 0)
        return err_set(err, -EINVAL, "invalid",
                       "node '%s' has %u links and node '%s' has %u: give both the same number", site->nodes[0].name,
                       site->nodes[0].link_count, site->nodes[1].name, site->nodes[1].link_count);
    struct writer writer = {.text = ret_text};
    put(&writer, "# Written by hcictl from hci.conf; the same on both nodes.");
    put_totem(&writer, site);
    open_section(&writer, "nodelist");
    put_node(&writer, &site->nodes[0], 1);
    put_node(&writer, &site->nodes[1], 2);
    close_section(&writer);
    put_quorum(&writer);
    put_logging(&writer);
    if (writer.used >= COROSYNC_CONF_MAX)
        return err_set(err, -EMSGSIZE, "invalid",
                       "cluster '%s': its corosync.conf would be longer than %u bytes; use shorter names", site->name,
                       COROSYNC_CONF_MAX);
    return 0;
}
