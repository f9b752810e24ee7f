/* What quorumd says, brought to the groups on the data thread: verdicts and records of the witness, the peer, its lease. */
#include <stdlib.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/engine/engine_private.h"

struct input_mail {
    struct ring_mail mail;
    struct engine *engine;
    struct engine_input input;
};

static const char *const verdict_names[] = {"ok", "stale", "adopt", "behind", "wait", "refused", "no answer"};

static void on_verdict(struct engine *engine, const struct engine_input *input)
{
    struct group *group = engine_find_group(engine, &input->group);
    if (!group)
        return;
    struct authority_event event = {
        .kind = AUTHORITY_EV_VERDICT,
        .verdict = input->verdict,
        .epoch = input->epoch,
        .members = input->members,
        .wait_ms = input->wait_ms,
        .serve_after_ms = input->serve_after_ms,
    };
    char members[160];
    log_notice("group '%s': the witness says %s; its record: epoch %llu with %s%s%s", group->name, verdict_names[input->verdict],
               (unsigned long long)input->epoch, group_members_text(group, input->members, members), input->reason[0] ? "; " : "",
               input->reason);
    group_event(group, &event);
}

static void on_records(struct engine *engine, const struct engine_input *input)
{
    for (unsigned i = 0; i < input->record_count; i++) {
        struct group *group = engine_find_group(engine, &input->records[i].group);
        struct authority_event event = {
            .kind = AUTHORITY_EV_RECORD, .epoch = input->records[i].epoch, .members = input->records[i].members};
        if (group)
            group_event(group, &event);
    }
    /* R8: each exclusion is in effect here: nothing of an excluded group completes any more. */
    if (input->counter) /* 0: more records follow */
        engine->options.port.records_applied(engine->options.port.userdata, input->counter);
}

static void tell_all(struct engine *engine, enum authority_event_kind kind, bool up)
{
    list_for_each(item, &engine->groups)
        group_tell(list_entry(item, struct group, link), kind, up);
}

static void on_peer(struct engine *engine, bool up)
{
    if (engine->peer_suspect == !up)
        return;
    engine->peer_suspect = !up;
    log_notice("node %s %s", site_peer(engine->site)->name, up ? "is heard" : "is suspect: nothing is heard of it on any link");
    tell_all(engine, AUTHORITY_EV_PEER, up);
    mirror_link_allow(engine->link, up && !engine->stopping, "the other node is suspect");
}

static void input_run(struct ring_mail *mail)
{
    struct input_mail *input_mail = list_entry(mail, struct input_mail, mail);
    struct engine *engine = input_mail->engine;
    const struct engine_input *input = &input_mail->input;
    switch (input->kind) {
    case ENGINE_VERDICT: on_verdict(engine, input); break;
    case ENGINE_PEER_LEASE: {
        struct group *group = engine_find_group(engine, &input->group);
        struct authority_event event = {.kind = AUTHORITY_EV_PEER_LEASE, .wait_ms = input->wait_ms};
        if (group)
            group_event(group, &event);
        break;
    }
    case ENGINE_RECORDS: on_records(engine, input); break;
    case ENGINE_PEER: on_peer(engine, input->up); break;
    case ENGINE_WITNESS:
        engine->witness_up = input->up;
        tell_all(engine, AUTHORITY_EV_WITNESS, input->up);
        break;
    }
    free(input_mail);
}

void engine_post(struct engine *engine, const struct engine_input *input)
{
    struct input_mail *mail = malloc(sizeof *mail);
    check(mail);
    mail->mail.run = input_run;
    mail->engine = engine;
    mail->input = *input;
    ring_post(engine->ring, &mail->mail);
}
