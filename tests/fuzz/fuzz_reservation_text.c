/* Persistent reservations and mode parameters as texts in a group's metadata: what is read can be stepped and written,
 * and is read back the same. */
#include <stdlib.h>
#include <string.h>

#include "storaged/lun.h"
#include "storaged/scsi/reservation_text.h"
#include "storaged/scsi/scsi_mode_state.h"
#include "tests/fuzz/fuzz.h"

static char written[2 * LUN_STATE_MAX];

static void check_state(const struct reservation_state *state)
{
    check(state->count <= RESERVATION_REGISTRANTS_MAX && state->holder >= -1 && state->holder < (int)state->count);
    check(state->type == RESERVATION_NONE || reservation_type_is_valid(state->type));
    for (unsigned i = 0; i < state->count; i++)
        check(state->registrants[i].key && memchr(state->registrants[i].nexus.initiator, 0, 224));
}

static void write_back(const struct reservation_state *state)
{
    struct reservation_state again;
    reservation_init(&again);
    if (reservation_encode(state, written, sizeof(written)) < 0)
        return;
    check(reservation_decode(written, &again) == 0);
    check(again.serial == state->serial && again.generation == state->generation && again.type == state->type);
    check(again.holder == state->holder && again.count == state->count && again.aptpl == state->aptpl);
    for (unsigned i = 0; i < state->count; i++)
        check(again.registrants[i].key == state->registrants[i].key &&
              reservation_nexus_equal(&again.registrants[i].nexus, &state->registrants[i].nexus));
}

static void take_request(struct fuzz_input *input, const struct reservation_state *state,
                         struct reservation_request *ret)
{
    static const uint8_t types[] = {1, 3, 5, 6, 7, 8};
    unsigned who = fuzz_u8(input);
    memset(ret, 0, sizeof(*ret));
    ret->action = fuzz_u8(input) % RESERVATION_ACTION_COUNT;
    ret->type = types[fuzz_u8(input) % sizeof(types)];
    ret->key = fuzz_u8(input);
    ret->service_key = fuzz_u8(input);
    ret->all_ports = who & 0x80;
    strcpy(ret->nexus.initiator, who & 0x40 ? "iqn.2026-01.io.hci:a" : "iqn.2026-01.io.hci:b");
    ret->nexus.port_group = 1;
    if (who & 0x20 && state->count) {
        const struct reservation_registrant *registrant = &state->registrants[who % state->count];
        ret->nexus = registrant->nexus;
        ret->key = registrant->key;
    }
}

static void reservations(struct fuzz_input *steps, const char *text)
{
    struct reservation_state state;
    reservation_init(&state);
    if (text[0] && reservation_decode(text, &state) < 0)
        return;
    check_state(&state);
    write_back(&state);
    while (steps->size) {
        struct reservation_request request;
        take_request(steps, &state, &request);
        enum reservation_result result = reservation_step(&state, &request);
        fuzz_planted(result == RESERVATION_CHANGED && request.action == RESERVATION_PREEMPT);
        check_state(&state);
    }
    write_back(&state);
}

static void modes(const char *text)
{
    struct scsi_mode_state state, again;
    memset(&state, 0, sizeof(state));
    memset(&again, 0, sizeof(again));
    if (scsi_mode_state_decode(text, &state) < 0 || scsi_mode_state_encode(&state, written, sizeof(written)) < 0)
        return;
    check(scsi_mode_state_decode(written, &again) == 0 && again.serial == state.serial);
    check(again.current.swp == state.current.swp && again.saved.swp == state.saved.swp);
    check(reservation_nexus_equal(&again.actor, &state.actor));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size}, steps = {0};
    uint8_t mode = fuzz_u8(&input);
    steps.data = fuzz_take(&input, mode & 0x7f, &steps.size);
    char *text = fuzz_text(input.data, input.size);
    if (mode & 0x80)
        modes(text);
    else
        reservations(&steps, text);
    free(text);
    return 0;
}
