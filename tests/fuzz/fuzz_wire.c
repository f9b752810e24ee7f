/* Datagrams of the nodes and the witness, beyond the seal: the plain text, and the clear header. */
#include <stdlib.h>
#include <string.h>

#include "quorum/wire.h"
#include "tests/fuzz/fuzz.h"

/* The schema is exact: what is understood is written back byte for byte. */
static void plain_text(const uint8_t *data, size_t size)
{
    struct wire_message message;
    uint8_t again[WIRE_PLAIN_MAX], *copy = fuzz_copy(data, size);
    memset(&message, 0xa5, sizeof(message));
    if (wire_decode(copy, size, &message) == 0 && size <= sizeof(again)) {
        check(wire_encode(&message, again, sizeof(again)) == (ssize_t)size);
        check(memcmp(again, copy, size) == 0);
        fuzz_planted(message.kind == WIRE_CAS && message.from_count == WIRE_FROM_MAX);
    }
    free(copy);
}

static void datagram(const uint8_t *data, size_t size)
{
    static const uint8_t key[SEAL_KEY_SIZE];
    static struct wire_message message;
    struct wire_header header;
    uint8_t *copy = fuzz_copy(data, size);
    if (wire_peek(copy, size, &header) == 0)
        check(wire_open(key, copy, size, &message) < 0); /* nobody forges a seal */
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(seal_init() == 0);
    plain_text(data, size);
    datagram(data, size);
    return 0;
}
