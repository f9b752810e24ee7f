/* One-time enrolment tokens as text that a person can copy. */
#include "common/token.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "common/seal.h"

#define PREFIX "hci1-"
#define PREFIX_LENGTH (sizeof(PREFIX) - 1)
#define PAYLOAD_SIZE 48u                                /* fingerprint 32 + secret 16 */
#define PAYLOAD_DIGITS ((PAYLOAD_SIZE * 8 + 4) / 5)     /* base32: five bits each */

static_assert(sizeof(struct token) == PAYLOAD_SIZE, "a token has no padding");
static_assert(PREFIX_LENGTH + PAYLOAD_DIGITS < TOKEN_TEXT_SIZE, "the text fits");

static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567"; /* RFC 4648 §6, lower case */

void token_new(struct token *token, const uint8_t ca_sha256[static 32])
{
    memcpy(token->ca_sha256, ca_sha256, sizeof(token->ca_sha256));
    seal_random(token->secret, sizeof(token->secret));
}

void token_format(const struct token *token, char text[static TOKEN_TEXT_SIZE])
{
    const uint8_t *payload = (const uint8_t *)token;
    uint32_t bits = 0;
    unsigned bit_count = 0;
    char *place = text;

    memcpy(place, PREFIX, PREFIX_LENGTH);
    place += PREFIX_LENGTH;
    for (size_t index = 0; index < PAYLOAD_SIZE; index++) {
        bits = bits << 8 | payload[index];
        for (bit_count += 8; bit_count >= 5; bit_count -= 5)
            *place++ = digits[bits >> (bit_count - 5) & 31];
    }
    if (bit_count > 0)
        *place++ = digits[bits << (5 - bit_count) & 31];
    *place++ = '\0';
    check((size_t)(place - text) <= TOKEN_TEXT_SIZE);
}

int token_parse(const char *text, struct token *ret)
{
    uint8_t payload[PAYLOAD_SIZE];
    uint32_t bits = 0;
    unsigned bit_count = 0;
    size_t size = 0;

    if (text == NULL || strlen(text) != PREFIX_LENGTH + PAYLOAD_DIGITS || memcmp(text, PREFIX, PREFIX_LENGTH) != 0)
        return -EINVAL;
    for (const char *place = text + PREFIX_LENGTH; *place != '\0'; place++) {
        const char *digit = strchr(digits, *place);
        if (digit == NULL)
            return -EINVAL;
        bits = bits << 5 | (uint32_t)(digit - digits);
        bit_count += 5;
        if (bit_count >= 8) {
            bit_count -= 8;
            payload[size++] = (uint8_t)(bits >> bit_count);
        }
    }
    check(size == PAYLOAD_SIZE);
    if ((bits & ((UINT32_C(1) << bit_count) - 1)) != 0) /* one text per token: unused bits are zero */
        return -EINVAL;
    memcpy(ret, payload, sizeof(*ret));
    seal_wipe(payload, sizeof(payload));
    return 0;
}
