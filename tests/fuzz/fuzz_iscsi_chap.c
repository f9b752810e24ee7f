/* The CHAP exchange: whatever the initiator sends, only the right answer to this challenge opens the door, and the
 * target's own challenge sent back is never answered. */
#include <stdlib.h>
#include <string.h>

#include "storaged/iscsi/iscsi_chap.h"
#include "tests/fuzz/fuzz.h"

#define ANSWER_MAX 2048u

enum flags { MUTUAL = 1, RIGHT_ANSWER = 2, REFLECTS = 4, NO_SECRET = 8 };

static int step(struct iscsi_chap *chap, char *data, size_t size)
{
    char answer[ANSWER_MAX];
    struct iscsi_text text;
    struct iscsi_text_writer writer = {.data = answer, .size = sizeof(answer)};
    const char *reason = NULL;
    if (iscsi_text_parse(data, size, &text) < 0)
        return -1;
    int r = iscsi_chap_step(chap, &text, &writer, &reason);
    check(r == 0 || reason);
    return r;
}

/* What the initiator of these flags says in front of the fuzzer's own keys; returns its size. */
static size_t prepare(const struct iscsi_chap *chap, unsigned flags, char *to, size_t size)
{
    struct iscsi_text_writer writer = {.data = to, .size = size};
    uint8_t digest[ISCSI_CHAP_DIGEST_MAX];
    if (flags & RIGHT_ANSWER) {
        size_t digest_size = iscsi_chap_digest(chap->algorithm, chap->identifier, chap->secret, chap->challenge,
                                               sizeof(chap->challenge), digest);
        iscsi_text_put(&writer, "CHAP_N", "%s", chap->user);
        iscsi_text_put_binary(&writer, "CHAP_R", digest, digest_size);
    }
    if (flags & REFLECTS) {
        iscsi_text_put(&writer, "CHAP_I", "%u", 7);
        iscsi_text_put_binary(&writer, "CHAP_C", chap->challenge, sizeof(chap->challenge));
    }
    return writer.used;
}

static void answer_challenge(struct iscsi_chap *chap, unsigned flags, const struct fuzz_input *input)
{
    char said[ANSWER_MAX];
    size_t ours = prepare(chap, flags, said, sizeof(said));
    char *whole = malloc(ours + input->size + 1);
    check(whole);
    memcpy(whole, said, ours);
    if (input->size)
        memcpy(whole + ours, input->data, input->size);
    int r = step(chap, whole, ours + input->size);
    check(r < 0 || (chap->state == ISCSI_CHAP_DONE && flags & RIGHT_ANSWER && !(flags & (REFLECTS | NO_SECRET))));
    fuzz_planted(r == 0 && flags & MUTUAL);
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct iscsi_chap chap = {.user = "guest", .secret = "not for everyone", .mutual_user = "target",
                              .mutual_secret = "nor this for all"};
    struct fuzz_input input = {data, size};
    unsigned flags = fuzz_u8(&input);
    size_t first_size;
    const uint8_t *first = fuzz_take(&input, fuzz_u8(&input), &first_size);
    char *copy = (char *)fuzz_copy(first, first_size);
    chap.mutual = flags & MUTUAL;
    if (flags & NO_SECRET)
        chap.user[0] = chap.secret[0] = 0;
    if (step(&chap, copy, first_size) == 0) {
        check(chap.state == ISCSI_CHAP_EXPECT_RESPONSE);
        answer_challenge(&chap, flags, &input);
    }
    iscsi_chap_wipe(&chap);
    free(copy);
    return 0;
}
