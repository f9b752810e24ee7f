/* Text of login and text requests: pairs, numbers, binary values, lists, and the negotiation of every key. */
#include <stdlib.h>
#include <string.h>

#include "storaged/iscsi/iscsi_keys.h"
#include "storaged/iscsi/iscsi_text.h"
#include "tests/fuzz/fuzz.h"

static void values(const struct iscsi_text *text)
{
    static const char *const known[] = {"CRC32C", "None", NULL};
    for (unsigned i = 0; i < text->count; i++) {
        const char *value = text->pairs[i].value, *chosen;
        uint8_t binary[32];
        size_t size = 0;
        uint32_t number;
        check(strlen(text->pairs[i].key) <= ISCSI_TEXT_KEY_MAX);
        (void)iscsi_text_number(value, &number);
        if (iscsi_text_binary(value, binary, sizeof(binary), &size) == 0)
            check(size <= sizeof(binary));
        chosen = iscsi_text_list_choose(value, known);
        check(!chosen || iscsi_text_list_has(value, chosen));
    }
}

/* What was agreed is within what we can do, whatever was offered. */
static void negotiate(struct iscsi_text *text, size_t room)
{
    struct iscsi_parameters parameters;
    char *memory = malloc(room ? room : 1);
    struct iscsi_text_writer answer = {.data = memory, .size = room};
    check(memory);
    iscsi_parameters_init(&parameters);
    int r = iscsi_parameters_negotiate(&parameters, text, &answer);
    iscsi_parameters_declare(&parameters, &answer);
    check(answer.used <= answer.size);
    if (r == 0) {
        check(parameters.send_segment_max >= 512 && parameters.burst_max >= 512 && parameters.first_burst_max >= 512);
        check(parameters.burst_max <= ISCSI_BURST_MAX && parameters.first_burst_max <= ISCSI_FIRST_BURST_MAX);
        fuzz_planted(parameters.header_digest && parameters.data_digest && !parameters.initial_r2t);
    }
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct iscsi_text text;
    struct fuzz_input input = {data, size};
    size_t room = fuzz_u16(&input) % (ISCSI_LOGIN_SEGMENT_MAX + 1);
    char *copy = (char *)fuzz_copy(input.data, input.size);
    if (iscsi_text_parse(copy, input.size, &text) == 0) {
        values(&text);
        negotiate(&text, room);
    }
    free(copy);
    return 0;
}
