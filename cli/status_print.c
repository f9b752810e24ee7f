/* The screen of `hcictl status`: what a technician reads at three in the morning, most of it in sentences. */
#include "cli/status.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"
#include "cli/size.h"

#define LABEL "%-10s "

static const char *unanswered(const json_t *document, const char *daemon)
{
    return output_text(json_object_get(document, daemon), "error.message", "no answer");
}

static void print_links(const json_t *node)
{
    size_t index;
    json_t *link;
    json_array_foreach(output_find(node, "links"), index, link) {
        const json_t *up = output_find(link, "up");
        printf("%s%s %s", index ? ", " : "; links ", output_text(link, "peer", "?"),
               json_is_true(up) ? "up" : json_is_false(up) ? "DOWN" : "not known");
    }
}

static void print_nodes(const json_t *document)
{
    size_t index;
    json_t *node;
    const json_t *peer = output_find(status_answer(document, "quorumd"), "peer");
    const char *self = output_text(document, "cluster.self", "");
    static const char *const states[] = {"not known", "NOT HEARD", "alive"}; /* -1, 0, 1 */
    json_array_foreach(output_find(document, "cluster.nodes"), index, node) {
        const char *name = output_text(node, "name", "?");
        bool is_self = !strcmp(name, self);
        printf(LABEL "%s: %s", index ? "" : "nodes", name,
               is_self ? "this node" : states[status_peer_alive(document) + 1]);
        if (!is_self)
            print_links(peer);
        putchar('\n');
    }
}

static void print_witness(const json_t *document)
{
    const json_t *quorumd = status_answer(document, "quorumd"), *reachable = output_find(quorumd, "witness.reachable");
    if (!json_is_object(output_find(document, "cluster.witness"))) {
        printf(LABEL "none\n", "witness");
        return;
    }
    printf(LABEL "%s port %lld: %s", "witness", output_text(document, "cluster.witness.address", "?"),
           (long long)output_number(document, "cluster.witness.port", 0),
           json_is_true(reachable) ? "answers" : json_is_false(reachable) ? "DOES NOT ANSWER" : "not known");
    if (json_is_true(reachable) && json_is_number(output_find(quorumd, "witness.rtt_ms")))
        printf(" in %.1f ms", json_number_value(output_find(quorumd, "witness.rtt_ms")));
    putchar('\n');
}

/* R8: valid while the other node's or the witness's acknowledgement lasts. */
static void print_lease(const json_t *quorumd)
{
    const json_t *valid = output_find(quorumd, "lease.valid");
    if (!json_is_boolean(valid))
        return;
    printf(LABEL "%s", "lease", json_is_true(valid) ? "valid" : "OVER");
    if (json_is_true(valid))
        printf(": %lld ms from the other node, %lld ms from the witness, renewed all the time",
               (long long)output_number(quorumd, "lease.from_peer_ms", 0),
               (long long)output_number(quorumd, "lease.from_witness_ms", 0));
    printf(" (generation %lld)\n", (long long)output_number(quorumd, "lease.generation", 0));
}

/* R11: T_kill, the promise on which the other node takes this node's guests over. */
static void print_watchdog(const json_t *quorumd)
{
    const char *sentence = output_text(quorumd, "watchdog.sentence", NULL);
    json_int_t t_kill_ms = output_number(quorumd, "watchdog.t_kill_ms", -1);
    if (!sentence)
        return;
    printf(LABEL "%s", "watchdog", !strncmp(sentence, "watchdog ", 9) ? sentence + 9 : sentence);
    if (t_kill_ms >= 0)
        printf("; promise to the other node: dead within %lld ms", (long long)t_kill_ms);
    putchar('\n');
}

static void print_corosync(const json_t *quorumd)
{
    const json_t *corosync = output_find(quorumd, "corosync");
    const char *key;
    json_t *connected;
    if (!json_is_object(corosync))
        return;
    if (strcmp(output_text(corosync, "state", ""), "running")) {
        printf(LABEL "%s (no decision needs it)\n", "corosync", output_text(corosync, "state", "not known"));
        return;
    }
    printf(LABEL "%s, %lld of 2 nodes", "corosync", output_is_true(corosync, "quorate") ? "quorate" : "not quorate",
           (long long)output_number(corosync, "votes", 0));
    json_object_foreach(output_find(corosync, "links"), key, connected)
        if (json_is_false(connected))
            printf(", link %s DOWN", key);
    putchar('\n');
}

/* Asked for, so no problem; but worth knowing before somebody pulls the disk. */
static void print_drains(const json_t *pool)
{
    size_t index;
    json_t *disk;
    char left[SIZE_TEXT_MAX];
    json_array_foreach(output_find(pool, "disks"), index, disk)
        if (!strcmp(output_text(disk, "state", ""), "draining"))
            printf(LABEL "%s is being drained, %s left; do not take it away yet\n", "", output_text(disk, "path", "?"),
                   size_format((uint64_t)output_number(disk, "drain_left_bytes", 0), left));
}

static void print_pool(const json_t *document)
{
    char total[SIZE_TEXT_MAX], reserved[SIZE_TEXT_MAX], used[SIZE_TEXT_MAX];
    const json_t *storaged = status_answer(document, "storaged"), *pool = output_find(storaged, "pool");
    size_t disks = json_array_size(output_find(pool, "disks"));
    if (!storaged) {
        printf(LABEL "not known: %s\n", "pool", unanswered(document, "storaged"));
        return;
    }
    if (!json_is_object(pool)) {
        printf(LABEL "none\n", "pool");
        return;
    }
    printf(LABEL "%s on %zu disk%s, %s promised to volumes, %s used\n", "pool",
           size_format((uint64_t)output_number(pool, "total_bytes", 0), total), disks, disks == 1 ? "" : "s",
           size_format((uint64_t)output_number(pool, "reserved_bytes", 0), reserved),
           size_format((uint64_t)output_number(pool, "used_bytes", 0), used));
    print_drains(pool);
}

static void print_volumes(const json_t *document)
{
    size_t index;
    json_t *volume;
    const json_t *answer = status_answer(document, "volumes");
    const json_t *volumes = output_find(answer, "volumes");
    puts("\nvolumes");
    if (!answer)
        printf("  not known: %s\n", unanswered(document, "volumes"));
    else if (json_array_size(volumes) == 0)
        puts("  none");
    json_array_foreach(volumes, index, volume) {
        char size[SIZE_TEXT_MAX];
        const char *primary = output_text(volume, "primary_node", NULL);
        printf("  %-16s %8s  %s", output_text(volume, "name", "?"),
               size_format((uint64_t)output_number(volume, "size_bytes", 0), size),
               output_text(volume, "state", "state not known"));
        if (primary)
            printf("; served by %s", primary);
        putchar('\n');
    }
}

static void print_guests(const json_t *document)
{
    size_t index;
    json_t *guest;
    const json_t *answer = status_answer(document, "guests");
    const json_t *guests = output_find(answer, "guests");
    puts("guests");
    if (!answer)
        printf("  not known: %s\n", unanswered(document, "guests"));
    else if (json_array_size(guests) == 0)
        puts("  none");
    json_array_foreach(guests, index, guest) {
        const char *node = output_text(guest, "node", ""), *reason = output_text(guest, "reason", "");
        printf("  %-16s %s%s%s%s%s\n", output_text(guest, "name", "?"), output_text(guest, "state", "state not known"),
               node[0] ? " on " : "", node, reason[0] ? ": " : "", reason);
    }
}

/* Red where a person looks (https://no-color.org is respected), plain where a program does. */
static void print_urgent(const json_t *document)
{
    size_t index;
    json_t *problem;
    const char *no_color = getenv("NO_COLOR");
    bool red = isatty(STDOUT_FILENO) && !(no_color && no_color[0]);
    json_array_foreach(output_find(document, "problems"), index, problem)
        if (output_is_true(problem, "urgent"))
            printf("%s! %s%s: %s\n", red ? "\033[1;31m" : "", output_text(problem, "what", "?"), red ? "\033[0m" : "",
                   output_text(problem, "remedy", "?"));
}

static void print_problems(const json_t *document)
{
    size_t index;
    json_t *problem;
    putchar('\n');
    json_array_foreach(output_find(document, "problems"), index, problem)
        if (!output_is_true(problem, "urgent")) /* those were told first */
            printf("! %s\n  -> %s\n", output_text(problem, "what", "?"), output_text(problem, "remedy", "?"));
    puts(output_text(document, "summary", "?"));
}

void status_print(const json_t *document)
{
    const json_t *quorumd = status_answer(document, "quorumd");
    print_urgent(document);
    if (status_stands_alone(document)) {
        printf(LABEL "%s, node %s alone: nothing is mirrored\n", "cluster", output_text(document, "cluster.name", "?"),
               output_text(document, "cluster.self", "?"));
        print_pool(document);
        print_volumes(document);
        print_problems(document);
        return;
    }
    printf(LABEL "%s, profile %s\n", "cluster", output_text(document, "cluster.name", "?"),
           output_text(document, "cluster.profile", "?"));
    print_nodes(document);
    print_witness(document);
    print_pool(document);
    if (quorumd) {
        print_lease(quorumd);
        print_watchdog(quorumd);
        print_corosync(quorumd);
    } else {
        printf(LABEL "not known: %s\n", "lease", unanswered(document, "quorumd"));
    }
    print_volumes(document);
    print_guests(document);
    print_problems(document);
}
