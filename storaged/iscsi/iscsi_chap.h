/* CHAP (RFC 7143 §12.1, RFC 1994): the target challenges the initiator and, when asked to, proves itself in return. The
 * only file pair that uses gnutls for iSCSI. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "storaged/iscsi/iscsi_text.h"

#define ISCSI_CHAP_CHALLENGE_SIZE 32u
#define ISCSI_CHAP_CHALLENGE_MAX 256u /* of an initiator; RFC 7143 §12.1.3 would let it be 1024 */
#define ISCSI_CHAP_DIGEST_MAX 32u

enum iscsi_chap_state {
    ISCSI_CHAP_EXPECT_ALGORITHM, /* waiting for CHAP_A */
    ISCSI_CHAP_EXPECT_RESPONSE,  /* challenged; waiting for CHAP_N and CHAP_R */
    ISCSI_CHAP_DONE,
};

struct iscsi_chap {
    enum iscsi_chap_state state;
    uint8_t algorithm, identifier;
    uint8_t challenge[ISCSI_CHAP_CHALLENGE_SIZE];
    char user[64], secret[64]; /* empty: nobody passes */
    bool mutual;               /* the target answers a challenge, too: as mutual_user, who knows mutual_secret */
    char mutual_user[64], mutual_secret[64];
};

/* One step: takes the CHAP_ keys of the initiator's text and writes the answer. 0: go on or done (see state);
 * -EACCES: wrong, with a reason for the log that holds no secret; a challenge serves one answer only. */
int iscsi_chap_step(struct iscsi_chap *chap, struct iscsi_text *text, struct iscsi_text_writer *answer, const char **ret_reason);
/* The response to a challenge: a hash over identifier, secret, challenge. Returns its size, 0 when the algorithm
 * (number of the IANA registry "iSCSI CHAP algorithms": 5 MD5, 6 SHA1, 7 SHA-256, 8 SHA3-256) is not known here. */
size_t iscsi_chap_digest(uint8_t algorithm, uint8_t identifier, const char *secret, const uint8_t *challenge, size_t challenge_size,
                         uint8_t ret[static ISCSI_CHAP_DIGEST_MAX]);
/* Would this text's CHAP_N and CHAP_R pass with these credentials? Takes nothing, changes nothing. */
bool iscsi_chap_would_pass(const struct iscsi_chap *chap, const struct iscsi_text *text, const char *user, const char *secret);
void iscsi_chap_wipe(struct iscsi_chap *chap);

/* Who was authenticated in a discovery session, kept without the secret. */
struct iscsi_credential {
    char user[64]; /* empty: nobody */
    uint8_t salt[ISCSI_CHAP_CHALLENGE_SIZE], proof[ISCSI_CHAP_DIGEST_MAX];
};
int iscsi_credential_keep(struct iscsi_credential *credential, const char *user, const char *secret);
bool iscsi_credential_is(const struct iscsi_credential *credential, const char *user, const char *secret);
