/* What storaged asks of quorumd and hears from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/control/control_private.h"

#define AGAIN_US 200000u /* quorumd is not there: the same question a little later, not a thousand times a second */

/* ---- questions of one group ---------------------------------------------------------------------------------------------- */

struct question {
    struct control *control;
    struct id group;
    struct engine_input input; /* the answer, when it is given after a pause */
};

static struct question *question_new(struct control *control, const struct id *group)
{
    struct question *question = calloc(1, sizeof *question);
    check(question);
    question->control = control;
    question->group = question->input.group = *group;
    return question;
}

static int pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct question *question = userdata;
    engine_post(question->control->engine, &question->input);
    free(question);
    return 0;
}

static void answer_later(struct question *question)
{
    int error = sd_event_add_time_relative(question->control->event, NULL, CLOCK_BOOTTIME, AGAIN_US, 10000, pause_over, question);
    if (error < 0)
        pause_over(NULL, 0, question);
}

static enum authority_verdict verdict_of(const char *name)
{
    static const char *const names[] = {"ok", "stale", "adopt", "behind", "wait", "refused"};
    for (unsigned i = 0; name && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum authority_verdict)i;
    return AUTHORITY_NO_ANSWER;
}

static uint32_t milliseconds_of(json_t *json, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(json, key));
    return value < 0 ? 0 : value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static void cas_answered(json_t *result, json_t *error, void *userdata)
{
    struct question *question = userdata;
    struct engine_input *input = &question->input;
    input->kind = ENGINE_VERDICT;
    const char *reason = json_string_value(json_object_get(error ? error : result, error ? "message" : "reason"));
    snprintf(input->reason, sizeof input->reason, "%s", reason ? reason : "");
    if (error) {
        input->verdict = AUTHORITY_NO_ANSWER;
        answer_later(question);
        return;
    }
    input->verdict = verdict_of(json_string_value(json_object_get(result, "verdict")));
    input->epoch = (uint64_t)json_integer_value(json_object_get(result, "epoch"));
    input->members = (uint8_t)(json_integer_value(json_object_get(result, "members")) & AUTHORITY_BOTH);
    input->wait_ms = milliseconds_of(result, "wait_ms");
    input->serve_after_ms = milliseconds_of(result, "serve_after_ms");
    engine_post(question->control->engine, input);
    free(question);
}

void quorum_ask_cas(struct control *control, const struct engine_cas *cas)
{
    json_t *from = json_array();
    for (unsigned i = 0; i < cas->from_count; i++)
        json_array_append_new(from, json_pack("{s:I, s:i}", "epoch", (json_int_t)cas->from[i].epoch, "members", cas->from[i].members));
    json_t *params = json_pack("{s:o, s:o, s:{s:I, s:i}, s:b}", "group", json_of_id(&cas->group), "from", from, "to", "epoch",
                               (json_int_t)cas->to.epoch, "members", cas->to.members, "was_primary", cas->was_primary);
    control_client_call(control->quorumd, "cas", params, cas_answered, question_new(control, &cas->group));
}

static void lease_answered(json_t *result, json_t *error, void *userdata)
{
    struct question *question = userdata;
    question->input.kind = ENGINE_PEER_LEASE;
    if (error || !json_is_integer(json_object_get(result, "over_in_ms"))) {
        question->input.wait_ms = AGAIN_US / 1000; /* not known is not over */
        answer_later(question);
        return;
    }
    question->input.wait_ms = milliseconds_of(result, "over_in_ms");
    engine_post(question->control->engine, &question->input);
    free(question);
}

void quorum_ask_peer_lease(struct control *control, const struct id *group)
{
    control_client_call(control->quorumd, "peer.fence", json_pack("{s:o}", "group", json_of_id(group)), lease_answered, question_new(control, group));
}

/* ---- claims and records ------------------------------------------------------------------------------------------------------ */

static void ignore_answer(json_t *result, json_t *error, void *userdata)
{
    if (error)
        log_debug("quorumd: %s", json_string_value(json_object_get(error, "message")));
}

static json_t *id_array(const struct id *ids, unsigned count)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(array, json_of_id(&ids[i]));
    return array;
}

void quorum_claim(struct control *control)
{
    const struct engine_claim *claim = &control->claim;
    if (control->site->standalone || !control_client_is_connected(control->quorumd))
        return; /* nobody wants to know; or told when it is */
    control_client_call(control->quorumd, "storage.claim",
                        json_pack("{s:o, s:o}", "primary", id_array(claim->primary, claim->primary_count), "sole",
                                  id_array(claim->sole, claim->sole_count)),
                        ignore_answer, NULL);
}

void quorum_applied(struct control *control, uint64_t counter)
{
    control_client_call(control->quorumd, "records.applied", json_pack("{s:I}", "counter", (json_int_t)counter), ignore_answer, NULL);
}

/* ---- events -------------------------------------------------------------------------------------------------------------------- */

/* R8: the counter is applied only when the last part is; more records than fit one mail go in several. */
static void records_arrived(struct control *control, json_t *data)
{
    json_t *records = json_object_get(data, "records"), *record;
    struct engine_input input = {.kind = ENGINE_RECORDS};
    size_t index;
    json_array_foreach(records, index, record) {
        const char *group = json_string_value(json_object_get(record, "group"));
        if (input.record_count == ENGINE_RECORDS_MAX) {
            engine_post(control->engine, &input); /* counter 0 applies nothing */
            input.record_count = 0;
        }
        if (!group || id_parse(group, &input.records[input.record_count].group) < 0)
            continue;
        input.records[input.record_count].epoch = (uint64_t)json_integer_value(json_object_get(record, "epoch"));
        input.records[input.record_count].members = (uint8_t)(json_integer_value(json_object_get(record, "members")) & AUTHORITY_BOTH);
        input.record_count++;
    }
    input.counter = (uint64_t)json_integer_value(json_object_get(data, "counter"));
    engine_post(control->engine, &input);
}

static void event_arrived(const char *name, json_t *data, void *userdata)
{
    struct control *control = userdata;
    struct engine_input input = {0};
    if (strcmp(name, "peer") == 0) {
        const char *state = json_string_value(json_object_get(data, "state"));
        input.kind = ENGINE_PEER;
        input.up = state && strcmp(state, "alive") == 0;
        engine_post(control->engine, &input);
    } else if (strcmp(name, "witness") == 0) {
        input.kind = ENGINE_WITNESS;
        input.up = json_is_true(json_object_get(data, "reachable"));
        engine_post(control->engine, &input);
    } else if (strcmp(name, "records") == 0) {
        records_arrived(control, data);
    }
    /* "lease": the page tells sooner. */
}

static void connected(void *userdata)
{
    log_info("connected with hci-quorumd");
    quorum_claim(userdata);
}

static void disconnected(void *userdata)
{
    log_warning("the connection to hci-quorumd is lost; trying again");
}

int quorum_start(struct control *control)
{
    static const struct control_client_callbacks callbacks = {connected, disconnected, event_arrived};
    char path[160];
    snprintf(path, sizeof path, "%s/quorumd.sock", control->site->run_folder);
    return control_client_new(control->event, path, &callbacks, control, &control->quorumd);
}
