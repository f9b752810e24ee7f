/* Judges what the daemons said: is all well, and if not, what is degraded and what to do about it. */
#include "cli/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/disk.h"
#include "cli/output.h"
#include "cli/size.h"

#define SENTENCE_MAX 512

json_t *status_answer(const json_t *document, const char *daemon)
{
    json_t *answer = json_object_get(document, daemon);
    return json_object_get(answer, "error") ? NULL : answer;
}

const char *status_peer_name(const json_t *document)
{
    size_t index;
    json_t *node;
    const char *self = output_text(document, "cluster.self", "");
    if (status_stands_alone(document))
        return NULL;
    json_array_foreach(output_find(document, "cluster.nodes"), index, node)
        if (strcmp(output_text(node, "name", ""), self))
            return output_text(node, "name", NULL);
    return NULL;
}

bool status_stands_alone(const json_t *document) { return output_is_true(document, "cluster.standalone"); }

static const char *peer_name(const json_t *document)
{
    const char *name = status_peer_name(document);
    return name ? name : "?";
}

/* quorumd's view of the other node. */
static json_t *peer_of(const json_t *document) { return output_find(status_answer(document, "quorumd"), "peer"); }

/* quorumd suspects nobody before it has had the time to hear him: a node heard on no link is not called alive here. */
int status_peer_alive(const json_t *document)
{
    size_t index;
    json_t *link;
    const char *state = output_text(peer_of(document), "state", NULL);
    if (!state || strcmp(state, "alive"))
        return state ? 0 : -1;
    json_array_foreach(output_find(peer_of(document), "links"), index, link)
        if (!json_is_false(output_find(link, "up")))
            return 1;
    return index == 0;
}

static void add(json_t *problems, bool urgent, const char *remedy, const char *format, va_list arguments)
{
    char what[SENTENCE_MAX];
    vsnprintf(what, sizeof what, format, arguments);
    /* A name that was cut in the middle of a UTF-8 character would make no JSON text. */
    json_t *problem = json_pack("{s:s, s:s, s:b}", "what", what, "remedy", remedy, "urgent", urgent);
    if (!problem)
        problem = json_pack("{s:s, s:s, s:b}", "what", "something is wrong", "remedy", "see `hcictl status --json`",
                            "urgent", urgent);
    json_array_append_new(problems, problem);
}

static void add_problem(json_t *problems, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add_problem(json_t *problems, const char *remedy, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add(problems, false, remedy, format, arguments);
    va_end(arguments);
}

/* What is losing data or already stands still: told above everything else. */
static void add_urgent(json_t *problems, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add_urgent(json_t *problems, const char *remedy, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add(problems, true, remedy, format, arguments);
    va_end(arguments);
}

/* One daemon that does not answer is one problem, however many questions it was asked. */
static void judge_daemons(const json_t *document, json_t *problems)
{
    static const char *const keys[] = {"quorumd", "storaged", "vmhad"};
    static const char *const losses[] = {"this node cannot hold a lease", "this node serves no volume",
                                         "guests here are neither watched nor restarted"};
    for (unsigned i = 0; i < 3; i++) {
        const json_t *error = output_find(json_object_get(document, keys[i]), "error");
        if (!error)
            continue;
        const char *message = output_text(error, "message", "a daemon did not answer");
        const char *remedy = strchr(message, ';'); /* a sentence names the remedy after its semicolon */
        add_problem(problems, remedy ? remedy + strspn(remedy, "; ") : "see its log", "%.*s: %s",
                    (int)(remedy ? (size_t)(remedy - message) : strlen(message)), message, losses[i]);
    }
}

static void judge_peer(const json_t *document, json_t *problems)
{
    size_t index;
    json_t *link;
    const json_t *peer = peer_of(document);
    if (status_peer_alive(document) == 0) {
        add_problem(problems, "look at its power and its network; when it is back it catches up by itself",
                    "node %s is not heard on any link", peer_name(document));
        return;
    }
    json_array_foreach(output_find(peer, "links"), index, link)
        if (json_is_false(output_find(link, "up")))
            add_problem(problems, "look at this link's cables, ports and switch; the other links carry on meanwhile",
                        "node %s is not heard on the link %s", peer_name(document), output_text(link, "peer", "?"));
    /* R11: without its promise this node may not restart its guests, however long it is silent. */
    if (output_number(peer, "t_kill_ms", 0) < 0)
        add_problem(problems, "see `hcictl status` there",
                    "node %s promises no reset: it has no armed watchdog, and its guests "
                    "cannot be taken over",
                    peer_name(document));
}

static void judge_witness(const json_t *document, json_t *problems)
{
    if (!json_is_object(output_find(document, "cluster.witness"))) {
        add_problem(problems, "a witness is enrolled before the second node joins",
                    "there is no witness: when one node is lost the other waits for it");
        return;
    }
    const json_t *witness = output_find(status_answer(document, "quorumd"), "witness");
    if (output_is_true(witness, "old_store"))
        add_problem(problems, "bring its present store back; until then do not switch off either node",
                    "the witness %s has lost records (its store was wiped or restored) and refuses to decide",
                    output_text(document, "cluster.witness.address", "?"));
    if (json_is_false(output_find(witness, "reachable")))
        add_problem(problems, "look at that host and the line to it; nothing stops as long as both nodes are up",
                    "the witness %s does not answer", output_text(document, "cluster.witness.address", "?"));
}

static bool is_sole(const json_t *document)
{
    size_t index;
    json_t *volume;
    json_array_foreach(output_find(status_answer(document, "volumes"), "volumes"), index, volume)
        if (!strcmp(output_text(volume, "role", ""), "sole"))
            return true;
    return false;
}

/* A sole member needs no lease (R1a), so its lapse is told only where something stopped by it. */
static void judge_lease(const json_t *document, json_t *problems)
{
    const json_t *quorumd = status_answer(document, "quorumd");
    size_t index;
    json_t *guest;
    if (json_is_false(output_find(quorumd, "lease.valid")) && !is_sole(document))
        add_problem(problems, "bring back the other node or the witness; guests go on as soon as one of them answers",
                    "this node has no lease: it neither serves as primary nor runs guests");
    if (json_is_false(output_find(quorumd, "lease.storage_alive")) && status_answer(document, "storaged"))
        add_problem(problems, "see the log of hci-storaged and whether a disk hangs",
                    "the storage of this node stands still, so its lease is no longer renewed");
    json_array_foreach(output_find(quorumd, "guests"), index, guest)
        if (!strcmp(output_text(guest, "state", ""), "frozen") || !strcmp(output_text(guest, "state", ""), "freezing"))
            add_problem(problems,
                        "it goes on when the lease is back and nobody took it over; else it runs on the other node",
                        "guest '%s' is frozen on this node", output_text(guest, "name", "?"));
}

static void judge_watchdog(const json_t *document, json_t *problems)
{
    const json_t *watchdog = output_find(status_answer(document, "quorumd"), "watchdog");
    bool is_named = output_text(document, "cluster.watchdog.device", "")[0] ||
                    output_text(document, "cluster.watchdog.socket", "")[0];
    if (!is_named)
        add_problem(problems, "name one in hci.conf (watchdog) and restart hci-quorumd",
                    "this node has no watchdog: if it hangs, its guests cannot be taken over safely");
    else if (json_is_false(output_find(watchdog, "armed")))
        add_problem(problems, "see the log of hci-quorumd and whether the device exists", "%s",
                    output_text(watchdog, "sentence", "the watchdog is not armed"));
}

/* A refusal that is not "the daemon does not answer": that one was told already. */
static void judge_answer(const json_t *document, const char *key, const char *daemon, json_t *problems)
{
    const json_t *error = output_find(json_object_get(document, key), "error");
    if (!error || !status_answer(document, daemon))
        return;
    const char *message = output_text(error, "message", "no answer");
    const char *remedy = strchr(message, ';');
    add_problem(problems, remedy ? remedy + strspn(remedy, "; ") : "see the daemon's log", "%.*s",
                (int)(remedy ? (size_t)(remedy - message) : strlen(message)), message);
}

static void judge_volume(const json_t *document, const json_t *volume, json_t *problems)
{
    const char *name = output_text(volume, "name", "?"), *state = output_text(volume, "state", "");
    json_int_t behind = output_number(volume, "behind_bytes", 0);
    char size[SIZE_TEXT_MAX];
    if (output_number(volume, "lost_bytes", 0) > 0)
        add_problem(problems,
                    status_stands_alone(document)
                        ? "restore these places from a backup; until they are written again they read as errors"
                        : "until they are written again this copy cannot give them",
                    "volume '%s' has lost %s on this node with a disk", name,
                    size_format((uint64_t)output_number(volume, "lost_bytes", 0), size));
    if (!output_text(volume, "primary_node", NULL) && status_stands_alone(document))
        add_problem(problems, "see the log of hci-storaged", "volume '%s' is not served: %s", name, state);
    else if (status_stands_alone(document))
        return;
    else if (!output_text(volume, "primary_node", NULL))
        add_problem(problems, "it is served again when the node with the current copy, or the witness, is back",
                    "volume '%s' is not served: %s", name, state);
    else if (json_array_size(output_find(volume, "members")) < 2 && behind > 0)
        add_problem(problems, "nothing to do while both nodes are up: it is being copied",
                    "volume '%s' has one current copy, the other is %s behind", name,
                    size_format((uint64_t)behind, size));
    else if (json_array_size(output_find(volume, "members")) < 2)
        add_problem(problems,
                    status_peer_alive(document) == 1 ? "nothing to do: the other copy is being brought up to date"
                                                     : "bring back the other node; do not switch this one off",
                    "volume '%s' has one current copy: %s", name, state);
}

static void judge_volumes(const json_t *document, json_t *problems)
{
    size_t index;
    json_t *volume;
    judge_answer(document, "volumes", "storaged", problems);
    json_array_foreach(output_find(status_answer(document, "volumes"), "volumes"), index, volume)
        judge_volume(document, volume, problems);
}

static bool is_settled(const char *state) { return !strcmp(state, "running") || !strcmp(state, "stopped"); }

/* Between "absent" and "running" a guest is on its way; that is no fault, but it is not yet well. */
static bool is_on_its_way(const char *state)
{
    static const char *const names[] = {"claiming", "starting", "registering", "resuming",
                                        "proving",  "thawing",  "stopping",    "killing"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(state, names[i]))
            return true;
    return false;
}

static void judge_guests(const json_t *document, json_t *problems)
{
    size_t index;
    json_t *guest;
    const json_t *vmhad = status_answer(document, "vmhad");
    if (json_is_false(output_find(vmhad, "hypervisor")))
        add_problem(problems, "start it with 'systemctl start libvirtd'; running guests are not harmed meanwhile",
                    "libvirt (%s) does not answer on this node", output_text(vmhad, "libvirt_uri", "?"));
    judge_answer(document, "guests", "vmhad", problems);
    json_array_foreach(output_find(status_answer(document, "guests"), "guests"), index, guest) {
        const char *name = output_text(guest, "name", "?"), *state = output_text(guest, "state", "unknown");
        const char *reason = output_text(guest, "reason", "");
        if (is_settled(state) || (!strcmp(state, "frozen") && status_answer(document, "quorumd")))
            continue; /* a frozen one was told with the lease */
        add_problem(problems, is_on_its_way(state) ? "nothing to do unless it stays so: then see the log of hci-vmhad"
                                                   : "see `hcictl vm show` and the log of hci-vmhad",
                    "guest '%s' is %s%s%s", name, state, reason[0] ? ": " : "", reason);
    }
}

/* "12 min", from the document's own time: the judge has no clock. */
static void format_ago(const json_t *document, json_int_t since_s, char *text, size_t size)
{
    json_int_t seconds = output_number(document, "time", 0) - since_s;
    if (since_s == 0 || seconds < 0)
        text[0] = 0;
    else if (seconds < 120)
        snprintf(text, size, " %lld s ago", (long long)seconds);
    else if (seconds < 120 * 60)
        snprintf(text, size, " %lld min ago", (long long)seconds / 60);
    else
        snprintf(text, size, " %lld h ago", (long long)seconds / 3600);
}

static void judge_disk(const json_t *document, const json_t *disk, json_t *problems)
{
    const char *path = disk_name(disk), *state = output_text(disk, "state", "");
    char remedy[SENTENCE_MAX], ago[64];
    json_int_t rotten = output_number(disk, "checksum_errors", 0), unread = output_number(disk, "read_errors", 0);
    snprintf(remedy, sizeof remedy, "run 'hcictl disk replace %.200s NEW-PATH --lost'", path);
    format_ago(document, output_number(disk, "since", 0), ago, sizeof ago);
    if (!strcmp(state, "failed"))
        add_urgent(problems, remedy, "disk %.200s failed%s: %lld write and %lld read errors, and it is no longer used",
                   path, ago, (long long)output_number(disk, "write_errors", 0), (long long)unread);
    else if (!strcmp(state, "missing"))
        add_urgent(problems, remedy, "disk %.200s is missing: the pool goes on without it", path);
    else if (rotten > 0 || unread > 0) {
        snprintf(remedy, sizeof remedy, "run 'hcictl disk replace %.200s NEW-PATH' before it fails", path);
        add_problem(problems, remedy, "disk %.200s gave back %lld wrong and %lld unreadable blocks", path,
                    (long long)rotten, (long long)unread);
    }
}

static void judge_pool(const json_t *document, json_t *problems)
{
    size_t index;
    json_t *disk;
    const json_t *storaged = status_answer(document, "storaged"), *pool = output_find(storaged, "pool");
    const char *failure = output_text(pool, "failure", NULL), *none = output_text(storaged, "pool_error", NULL);
    json_array_foreach(output_find(pool, "disks"), index, disk)
        judge_disk(document, disk, problems);
    if (failure)
        add_urgent(problems, "see the log of hci-storaged; restart it when the disks are mended",
                   "the pool of this node failed (%s): it serves nothing", failure);
    if (output_number(pool, "reserved_bytes", 0) > output_number(pool, "total_bytes", 0))
        add_urgent(problems, "add one with 'hcictl disk add PATH'",
                   "the pool of this node has promised more to its volumes than its disks can hold");
    if (none && json_is_null(pool)) {
        const char *remedy = strrchr(none, ';'); /* why may have one, too */
        add_problem(problems, remedy ? remedy + strspn(remedy, "; ") : "see the log of hci-storaged", "%.*s",
                    (int)(remedy ? (size_t)(remedy - none) : strlen(none)), none);
    }
}

static size_t count_running(const json_t *guests)
{
    size_t index, count = 0;
    json_t *guest;
    json_array_foreach(guests, index, guest)
        count += !strcmp(output_text(guest, "state", ""), "running");
    return count;
}

/* The first problem is the likeliest cause of the others: daemons and nodes are judged before what they carry. */
static void describe_degraded(const json_t *problems, size_t count, char text[static SENTENCE_MAX])
{
    const json_t *first = json_array_get(problems, 0);
    int used = snprintf(text, SENTENCE_MAX, "DEGRADED: %.220s; what to do: %.200s", output_text(first, "what", "?"),
                        output_text(first, "remedy", "?"));
    if (count > 1 && used > 0 && used < SENTENCE_MAX)
        snprintf(text + used, SENTENCE_MAX - (size_t)used, " (and %zu more, above)", count - 1);
}

static void summarize(json_t *document, const json_t *problems)
{
    char text[SENTENCE_MAX];
    size_t volumes = json_array_size(output_find(document, "volumes.volumes"));
    size_t disks = json_array_size(output_find(document, "storaged.pool.disks"));
    size_t guests = count_running(output_find(document, "guests.guests")), count = json_array_size(problems);
    if (count == 0 && status_stands_alone(document))
        snprintf(text, sizeof text,
                 "all is well: this node serves %zu volume%s from %zu disk%s; it stands alone, so nothing is mirrored",
                 volumes, volumes == 1 ? "" : "s", disks, disks == 1 ? "" : "s");
    else if (count == 0)
        snprintf(text, sizeof text,
                 "all is well: both nodes and the witness answer, %zu volume%s with both copies current, "
                 "%zu guest%s running",
                 volumes, volumes == 1 ? "" : "s", guests, guests == 1 ? "" : "s");
    else
        describe_degraded(problems, count, text);
    json_t *summary = json_string(text);
    json_object_set_new(document, "summary", summary ? summary : json_string("DEGRADED"));
}

void status_judge(json_t *document)
{
    json_t *problems = json_array();
    judge_daemons(document, problems);
    judge_pool(document, problems);
    if (!status_stands_alone(document)) {
        judge_peer(document, problems);
        judge_witness(document, problems);
        judge_lease(document, problems);
        judge_watchdog(document, problems);
    }
    judge_volumes(document, problems);
    if (!status_stands_alone(document))
        judge_guests(document, problems);
    summarize(document, problems);
    json_object_set_new(document, "well", json_boolean(json_array_size(problems) == 0));
    json_object_set_new(document, "problems", problems);
}
