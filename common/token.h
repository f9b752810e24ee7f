/* One-time enrolment tokens: a text that carries the CA fingerprint to trust and a secret to prove.
 * Form: "hci1-" + base32 (lower case, no padding) of fingerprint[32] ‖ secret[16]. */
#pragma once

#include <stdint.h>

#define TOKEN_TEXT_SIZE 96

struct token {
    uint8_t ca_sha256[32];
    uint8_t secret[16];
};

/* Fills the secret at random. */
void token_new(struct token *token, const uint8_t ca_sha256[static 32]);
void token_format(const struct token *token, char text[static TOKEN_TEXT_SIZE]);
/* -EINVAL when text is no token. */
int token_parse(const char *text, struct token *ret);
