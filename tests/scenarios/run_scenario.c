/* Plays a story to the core of hci-vmhad: events from a command list in, the log of its decisions out, compared with
 * the expected one. `run_scenario FOLDER` compares, `run_scenario --write FOLDER` writes expected.log anew.
 *
 * The story is told from node a. One command per line; '#' begins a comment; time stands still but for `at MS`, which
 * also ticks every deadline on the way. Answers are given by hand, so that a story can lose or delay them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "vmha/vmha_core.h"

#define WORDS_MAX 16u
#define LINE_MAX_SIZE 512u

struct story {
    struct vmha_core core;
    struct vmha_actions actions;
    uint64_t now_ms;
    uint64_t token;
    uint64_t register_serial;
    struct { struct id group; struct record record; bool removed; uint64_t version; } swaps[VMHA_GROUPS_MAX];
    FILE *log;
    unsigned word_count;
    char *words[WORDS_MAX];
    unsigned line;
};

static _Noreturn void give_up(const struct story *story, const char *why)
{
    fprintf(stderr, "line %u: %s\n", story->line, why);
    exit(2);
}

static struct id id_of(const char *name)
{
    struct id id = {0};

    memcpy(id.bytes, name, strnlen(name, sizeof id.bytes));
    return id;
}

static const char *name_of(const struct id *id, char text[static 17])
{
    memcpy(text, id->bytes, 16);
    text[16] = '\0';
    return text[0] ? text : "nobody";
}

static const char *word(const struct story *story, unsigned index)
{
    if (index >= story->word_count)
        give_up(story, "a word is missing");
    return story->words[index];
}

static bool has(const struct story *story, const char *text)
{
    for (unsigned i = 1; i < story->word_count; i++)
        if (!strcmp(story->words[i], text))
            return true;
    return false;
}

static uint64_t number(const struct story *story, unsigned index)
{
    char *end;
    uint64_t value = strtoull(word(story, index), &end, 10);

    if (*end)
        give_up(story, "not a number");
    return value;
}

static void log_record(struct story *story, const struct record *record)
{
    char node[17];

    fprintf(story->log, "(%s, %" PRIu64 ", %s", name_of(&record->node, node), record->incarnation,
            record_state_name(record->state));
    if (record->thaw)
        fprintf(story->log, ", thaw %" PRIu64, record->thaw);
    if (record->force)
        fprintf(story->log, ", at once");
    if (record->reason[0])
        fprintf(story->log, ", \"%s\"", record->reason);
    fputc(')', story->log);
}

static void log_swap(struct story *story, const struct vmha_action *action)
{
    static const char *const names[] = {"none", "claim", "prove", "stop", "release", "fail", "remove"};
    struct record before;
    unsigned i = 0;

    while (i < VMHA_GROUPS_MAX - 1 && !id_is_null(&story->swaps[i].group) && !id_equal(&story->swaps[i].group,
                                                                                       &action->group))
        i++;
    story->swaps[i].group = action->group;
    story->swaps[i].record = action->record;
    story->swaps[i].removed = action->swap == VMHA_SWAP_REMOVE;
    record_format(&story->swaps[i].record);
    check(!record_parse(action->expected, &before, NULL));
    fprintf(story->log, "swap %s of %s: ", names[action->swap], action->name);
    log_record(story, &before);
    fprintf(story->log, " -> ");
    if (action->swap == VMHA_SWAP_REMOVE)
        fprintf(story->log, "nothing");
    else
        log_record(story, &action->record);
    fputc('\n', story->log);
}

static void log_action(struct story *story, const struct vmha_action *action)
{
    char group[17];
    uint64_t incarnation = action->incarnation;

    fprintf(story->log, "         ");
    switch (action->kind) {
    case VMHA_ACTION_READ: fprintf(story->log, "read the metadata of group %s\n", name_of(&action->group,
                                                                                          group)); break;
    case VMHA_ACTION_SWAP: log_swap(story, action); break;
    case VMHA_ACTION_ASK_PEER_LEASE: fprintf(story->log, "ask when the peer's lease is over and it is killed\n"); break;
    case VMHA_ACTION_REGISTER:
        fprintf(story->log, "register the guests here:");
        for (unsigned i = 0; i < VMHA_GROUPS_MAX; i++)
            if (vmha_core_registers(&story->core.guests[i]))
                fprintf(story->log, " %s.%" PRIu64, story->core.guests[i].name, story->core.guests[i].here_incarnation);
        fputc('\n', story->log);
        story->register_serial = action->serial;
        break;
    case VMHA_ACTION_START: fprintf(story->log, "START %s.%" PRIu64 " paused\n", action->name, incarnation); break;
    case VMHA_ACTION_RESUME: fprintf(story->log, "RESUME %s.%" PRIu64 "\n", action->name, incarnation); break;
    case VMHA_ACTION_SHUTDOWN: fprintf(story->log, "ask %s.%" PRIu64 " to shut down\n", action->name,
                                       incarnation); break;
    case VMHA_ACTION_KILL: fprintf(story->log, "KILL %s.%" PRIu64 "\n", action->name, incarnation); break;
    case VMHA_ACTION_THAW: fprintf(story->log, "THAW %s.%" PRIu64 "\n", action->name, incarnation); break;
    case VMHA_ACTION_SIGN_GONE: fprintf(story->log, "sign gone %s.%" PRIu64 "\n", action->name, incarnation); break;
    case VMHA_ACTION_ANSWER:
        fprintf(story->log, "answer %s%s%s\n", action->ok ? "done: " : action->code, action->ok ? "" : ": ",
                action->text);
        break;
    case VMHA_ACTION_PUBLISH: {
        const struct vmha_guest *guest = vmha_core_by_group(&story->core, &action->group);
        fprintf(story->log, "tell: %s is %s on '%s'\n", guest->name, vmha_core_state_name(guest),
                vmha_core_node_name(&story->core, guest));
        break;
    }
    case VMHA_ACTION_NOTE: fprintf(story->log, "note: %s\n", action->text); break;
    }
}

static void step(struct story *story, struct vmha_event *event)
{
    event->now_ms = story->now_ms;
    vmha_core_step(&story->core, event, &story->actions);
    if (event->kind == VMHA_EVENT_TICK && story->actions.count)
        fprintf(story->log, "%8" PRIu64 " (due)\n", story->now_ms);
    for (unsigned i = 0; i < story->actions.count; i++)
        log_action(story, &story->actions.list[i]);
}

static void play_at(struct story *story, struct vmha_event *event)
{
    uint64_t until_ms = number(story, 1), due_ms;

    if (until_ms < story->now_ms)
        give_up(story, "time does not run backwards");
    while ((due_ms = vmha_core_deadline_ms(&story->core)) <= until_ms) {
        check(due_ms > story->now_ms);
        story->now_ms = due_ms;
        step(story, event);
    }
    story->now_ms = until_ms;
}

static void read_record(struct story *story, unsigned from, struct record *record)
{
    const char *state = word(story, from + 2);

    record->node = strcmp(word(story, from), "nobody") ? id_of(word(story, from)) : (struct id){0};
    record->incarnation = number(story, from + 1);
    record->state = !strcmp(state, "running") ? RECORD_RUNNING : !strcmp(state,
                                                                         "stopped") ? RECORD_STOPPED : RECORD_FAILED;
    record->thaw = story->word_count > from + 3 ? number(story, from + 4) : 0;
    record_format(record);
}

static void play_swap(struct story *story, struct vmha_event *event)
{
    const struct vmha_guest *guest = vmha_core_by_group(&story->core, &event->group);

    if (!guest || guest->swap == VMHA_SWAP_NONE)
        give_up(story, "no swap of this group is in flight");
    event->meta.has_record = true;
    event->meta.version = guest->version + 1;
    strcpy(event->meta.name, guest->name);
    event->swap_result = has(story, "ok") ? VMHA_SWAP_OK : has(story,
                                                               "changed") ? VMHA_SWAP_CHANGED : VMHA_SWAP_UNAVAILABLE;
    if (event->swap_result == VMHA_SWAP_CHANGED)
        read_record(story, 3, &event->meta.record);
    for (unsigned i = 0; event->swap_result == VMHA_SWAP_OK && i < VMHA_GROUPS_MAX; i++)
        if (id_equal(&story->swaps[i].group, &event->group)) {
            event->meta.record = story->swaps[i].record;
            event->meta.has_record = !story->swaps[i].removed;
        }
}

static void play_meta(struct story *story, struct vmha_event *event)
{
    event->meta.version = number(story, 2);
    if (has(story, "none"))
        return;
    event->meta.has_record = true;
    snprintf(event->meta.name, sizeof event->meta.name, "%s", word(story, 3));
    read_record(story, 4, &event->meta.record);
}

static void play_group(struct story *story, struct vmha_event *event)
{
    snprintf(event->view.name, sizeof event->view.name, "%s", word(story, 1));
    event->view.serving = has(story, "serving");
    event->view.local = has(story, "local");
    event->view.member = has(story, "a") || has(story, "ab");
    event->view.peer_member = has(story, "b") || has(story, "ab");
}

static void play_found(struct story *story, struct vmha_event *event)
{
    snprintf(event->name, sizeof event->name, "%s", word(story, 2));
    event->incarnation = number(story, 3);
    event->found.paused = has(story, "paused");
    event->found.frozen = has(story, "frozen");
}

static void play_frozen(struct story *story, struct vmha_event *event)
{
    event->frozen.names = (const char *const *)story->words + 1;
    event->frozen.count = story->word_count - 1;
}

static void play_lease(struct story *story, struct vmha_event *event)
{
    event->lease.valid = has(story, "valid");
    event->lease.generation = number(story, 2);
}

static void play_reason(struct story *story, struct vmha_event *event)
{
    const struct vmha_guest *guest = vmha_core_by_group(&story->core, &event->group);

    event->incarnation = guest ? guest->here_incarnation : 0;
    if (event->kind == VMHA_EVENT_SIGNED)
        event->incarnation = guest->signed_incarnation;
    if (!event->ok)
        snprintf(event->reason, sizeof event->reason, "it was told to fail");
}

static void play_peer_lease(struct story *story, struct vmha_event *event)
{
    event->ok = strcmp(word(story, 1), "failed");
    event->killed_in_ms = event->ok ? number(story, 1) : 0;
}

static void play_gone(struct story *story, struct vmha_event *event)
{
    event->incarnation = number(story, 2);
}

static void play_command(struct story *story, struct vmha_event *event)
{
    snprintf(event->name, sizeof event->name, "%s", word(story, 1));
    event->token = ++story->token;
    event->force = has(story, "force");
}

static void play_registered(struct story *story, struct vmha_event *event)
{
    event->serial = story->register_serial;
}

static const struct verb {
    const char *name;
    enum vmha_event_kind kind;
    void (*fill)(struct story *story, struct vmha_event *event);
    bool of_group; /* the first word is a group */
} verbs[] = {
    {"storage", VMHA_EVENT_STORAGE, NULL, false},
    {"quorum", VMHA_EVENT_QUORUM, NULL, false},
    {"lease", VMHA_EVENT_LEASE, play_lease, false},
    {"group", VMHA_EVENT_GROUP, play_group, true},
    {"meta-changed", VMHA_EVENT_META_CHANGED, NULL, true},
    {"meta", VMHA_EVENT_META, play_meta, true},
    {"swapped", VMHA_EVENT_SWAPPED, play_swap, true},
    {"peer-lease", VMHA_EVENT_PEER_LEASE, play_peer_lease, false},
    {"peer-gone", VMHA_EVENT_PEER_GONE, play_gone, true},
    {"frozen", VMHA_EVENT_FROZEN, play_frozen, false},
    {"registered", VMHA_EVENT_REGISTERED, play_registered, false},
    {"thawed", VMHA_EVENT_THAWED, NULL, true},
    {"signed", VMHA_EVENT_SIGNED, play_reason, true},
    {"listing", VMHA_EVENT_LISTING, NULL, false},
    {"found", VMHA_EVENT_DOMAIN_FOUND, play_found, true},
    {"listed", VMHA_EVENT_LISTED, NULL, false},
    {"hypervisor-lost", VMHA_EVENT_HYPERVISOR_LOST, NULL, false},
    {"started", VMHA_EVENT_STARTED, play_reason, true},
    {"resumed", VMHA_EVENT_RESUMED, play_reason, true},
    {"killed", VMHA_EVENT_KILLED, play_reason, true},
    {"ended", VMHA_EVENT_DOMAIN_ENDED, NULL, true},
    {"io-error", VMHA_EVENT_IO_ERROR, NULL, true},
    {"start", VMHA_EVENT_ASKED_START, play_command, false},
    {"stop", VMHA_EVENT_ASKED_STOP, play_command, false},
    {"remove", VMHA_EVENT_ASKED_REMOVE, play_command, false},
};

static void play(struct story *story)
{
    struct vmha_event event = {.kind = VMHA_EVENT_TICK};

    if (!strcmp(story->words[0], "at")) {
        play_at(story, &event);
        return;
    }
    for (unsigned i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(verbs[i].name, story->words[0]))
            continue;
        event.kind = verbs[i].kind;
        event.ok = !has(story, "failed");
        event.up = has(story, "up");
        event.by_guest = has(story, "by-guest");
        if (verbs[i].of_group)
            event.group = id_of(word(story, 1));
        if (verbs[i].fill)
            verbs[i].fill(story, &event);
        step(story, &event);
        return;
    }
    give_up(story, "no such command");
}

static void play_line(struct story *story, char *line)
{
    char *rest;

    line[strcspn(line, "#\n")] = '\0';
    story->word_count = 0;
    for (unsigned size = (unsigned)strlen(line); size && line[size - 1] == ' ';)
        line[--size] = '\0';
    if (!line[0])
        return;
    if (strncmp(line, "at ", 3))
        fprintf(story->log, "%8" PRIu64 " %s\n", story->now_ms, line);
    for (char *text = strtok_r(line, " ", &rest); text && story->word_count < WORDS_MAX; text = strtok_r(NULL, " ",
                                                                                                         &rest))
        story->words[story->word_count++] = text;
    play(story);
}

static FILE *open_in(const char *folder, const char *name, const char *mode)
{
    char path[1024];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    return file;
}

static void play_file(struct story *story, const char *folder)
{
    const struct id self = id_of("a"), peer = id_of("b");
    char line[LINE_MAX_SIZE];
    FILE *commands = open_in(folder, "commands", "r");

    vmha_core_init(&story->core, &self, "a", &peer, "b");
    while (fgets(line, sizeof line, commands)) {
        story->line++;
        play_line(story, line);
    }
    fclose(commands);
}

static int compare(const char *folder, const char *log)
{
    FILE *expected = open_in(folder, "expected.log", "r");
    char line[2 * LINE_MAX_SIZE];
    unsigned number_of_line = 0;

    while (fgets(line, sizeof line, expected)) {
        size_t size = strlen(line);
        number_of_line++;
        if (strncmp(log, line, size)) {
            printf("line %u differs\n expected: %s      got: %.*s\n", number_of_line, line, (int)strcspn(log, "\n"),
                   log);
            fclose(expected);
            return 1;
        }
        log += size;
    }
    fclose(expected);
    if (*log)
        printf("more than expected after line %u: %s", number_of_line, log);
    return *log != '\0';
}

int main(int argc, char **argv)
{
    bool write = argc == 3 && !strcmp(argv[1], "--write");
    cleanup_free struct story *story = calloc(1, sizeof *story);
    cleanup_free char *log = NULL;
    size_t size;

    if (argc != 2 + write) {
        fprintf(stderr, "usage: run_scenario [--write] FOLDER\n");
        return 2;
    }
    check(story);
    story->log = open_memstream(&log, &size);
    check(story->log);
    play_file(story, argv[argc - 1]);
    fclose(story->log);
    if (!write)
        return compare(argv[argc - 1], log);
    FILE *expected = open_in(argv[argc - 1], "expected.log", "w");
    fputs(log, expected);
    fclose(expected);
    return 0;
}
