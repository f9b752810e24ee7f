/* Enrolment tokens, as people type them: what is accepted is written back the same. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/token.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct token token;
    char again[TOKEN_TEXT_SIZE], *text = fuzz_text(data, size);
    if (token_parse(text, &token) == 0) {
        token_format(&token, again);
        check(strcasecmp(again, text) == 0);
        fuzz_planted(true);
    }
    free(text);
    return 0;
}
