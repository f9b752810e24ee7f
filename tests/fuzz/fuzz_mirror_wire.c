/* Frames of the mirror link. The checksums are put right, so that the fuzzer meets the schema and not CRC32C. */
#include <stdlib.h>
#include <string.h>

#include "storaged/crc32c.h"
#include "storaged/mirror/mirror_wire.h"
#include "tests/fuzz/fuzz.h"

static void put_u32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* The body's size and all three checksums. */
static void mend(uint8_t *head, const uint8_t *body, size_t body_size)
{
    memcpy(head, "HCM1", 4);
    head[6] = (uint8_t)body_size;
    head[7] = (uint8_t)(body_size >> 8);
    put_u32(head + 16, crc32c(body, body_size));
    put_u32(head + 20, crc32c(head, 20));
}

/* The schema is exact: what is understood is written back byte for byte. */
static void write_back(const struct mirror_message *message, const uint8_t *body, size_t body_size)
{
    uint8_t again[MIRROR_FRAME_MAX];
    uint8_t *data = calloc(1, message->data_size + 1u);
    check(data && message->data_size <= MIRROR_DATA_MAX);
    check(mirror_wire_encode(message, data, again) == MIRROR_HEAD_SIZE + body_size);
    check(memcmp(again + MIRROR_HEAD_SIZE, body, body_size) == 0);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mirror_head head;
    struct mirror_message message;
    const char *reason = NULL;
    uint8_t bytes[MIRROR_HEAD_SIZE];
    struct fuzz_input input = {data, size};
    bool mended = !(fuzz_u8(&input) & 1);
    fuzz_fill(&input, bytes, sizeof(bytes));
    uint8_t *body = fuzz_copy(input.data, input.size);
    if (mended)
        mend(bytes, body, input.size);
    if (mirror_wire_decode_head(bytes, &head, &reason) < 0) {
        check(reason);
    } else if (head.body_size == input.size) {
        if (mirror_wire_decode_body(&head, body, &message, &reason) == 0) {
            check(mirror_wire_kind_name(message.kind));
            write_back(&message, body, input.size);
            fuzz_planted(message.kind == MIRROR_FORWARD);
        } else {
            check(reason);
        }
    }
    free(body);
    return 0;
}
