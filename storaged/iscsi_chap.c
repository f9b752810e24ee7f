/* CHAP as the target: chooses the algorithm, challenges, and compares in constant time. */
#include "storaged/iscsi_chap.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stddef.h>
#include <string.h>

#include "common/check.h"

#define CHAP_MD5 5
#define CHAP_SHA256 7

static gnutls_mac_algorithm_t mac_of(uint8_t algorithm)
{
    return algorithm == CHAP_MD5 ? GNUTLS_MAC_MD5 : algorithm == CHAP_SHA256 ? GNUTLS_MAC_SHA256 : GNUTLS_MAC_UNKNOWN;
}

size_t iscsi_chap_digest(uint8_t algorithm, uint8_t identifier, const char *secret, const uint8_t *challenge, size_t challenge_size,
                         uint8_t ret[static ISCSI_CHAP_DIGEST_MAX])
{
    gnutls_mac_algorithm_t mac = mac_of(algorithm);
    gnutls_hash_hd_t hash;
    if (mac == GNUTLS_MAC_UNKNOWN)
        return 0;
    GNUTLS_FIPS140_SET_LAX_MODE(); /* CHAP with MD5 is what initiators have */
    int r = gnutls_hash_init(&hash, (gnutls_digest_algorithm_t)mac);
    if (r < 0) {
        GNUTLS_FIPS140_SET_STRICT_MODE();
        return 0;
    }
    gnutls_hash(hash, &identifier, 1);
    gnutls_hash(hash, secret, strlen(secret));
    gnutls_hash(hash, challenge, challenge_size);
    gnutls_hash_deinit(hash, ret);
    GNUTLS_FIPS140_SET_STRICT_MODE();
    return gnutls_hash_get_len((gnutls_digest_algorithm_t)mac);
}

/* SHA-256 when the initiator knows it, in whatever order it lists. */
static int choose_algorithm(const char *offer, uint8_t *ret)
{
    if (iscsi_text_list_has(offer, "7"))
        *ret = CHAP_SHA256;
    else if (iscsi_text_list_has(offer, "5"))
        *ret = CHAP_MD5;
    else
        return -ENOENT;
    return 0;
}

static int challenge(struct iscsi_chap *chap, struct iscsi_text *text, struct iscsi_text_writer *answer, const char **ret_reason)
{
    const char *offer = iscsi_text_take(text, "CHAP_A");
    if (!offer || choose_algorithm(offer, &chap->algorithm) < 0) {
        *ret_reason = offer ? "it offers neither CHAP algorithm 5 (MD5) nor 7 (SHA-256)" : "it sent no CHAP_A";
        return -EACCES;
    }
    if (gnutls_rnd(GNUTLS_RND_NONCE, chap->challenge, sizeof(chap->challenge)) < 0 ||
        gnutls_rnd(GNUTLS_RND_NONCE, &chap->identifier, sizeof(chap->identifier)) < 0) {
        *ret_reason = "no random numbers for a challenge";
        return -EACCES;
    }
    iscsi_text_put(answer, "CHAP_A", "%u", chap->algorithm);
    iscsi_text_put(answer, "CHAP_I", "%u", chap->identifier);
    iscsi_text_put_binary(answer, "CHAP_C", chap->challenge, sizeof(chap->challenge));
    chap->state = ISCSI_CHAP_EXPECT_RESPONSE;
    return 0;
}

static bool names_equal(const char *given, const char *expected)
{
    char padded_given[64] = {0}, padded_expected[64] = {0};
    if (strlen(given) >= sizeof(padded_given))
        return false;
    memcpy(padded_given, given, strlen(given));
    memcpy(padded_expected, expected, strnlen(expected, sizeof(padded_expected) - 1));
    return gnutls_memcmp(padded_given, padded_expected, sizeof(padded_given)) == 0;
}

static int verify(struct iscsi_chap *chap, struct iscsi_text *text, const char **ret_reason)
{
    const char *name = iscsi_text_take(text, "CHAP_N"), *response = iscsi_text_take(text, "CHAP_R");
    const char *their_identifier = iscsi_text_take(text, "CHAP_I"), *their_challenge = iscsi_text_take(text, "CHAP_C");
    uint8_t given[ISCSI_CHAP_DIGEST_MAX] = {0}, expected[ISCSI_CHAP_DIGEST_MAX] = {0};
    size_t given_size = 0;

    if (!name || !response || iscsi_text_binary(response, given, sizeof(given), &given_size) < 0) {
        *ret_reason = "its CHAP_N or CHAP_R is missing or malformed";
        return -EACCES;
    }
    /* Answering a challenge of the initiator would also let it reflect ours back to learn the answer
     * (RFC 7143 §12.1.3): we answer none. */
    if (their_identifier || their_challenge) {
        *ret_reason = "it asks for mutual CHAP, which this target does not offer; configure one-way CHAP";
        return -EACCES;
    }
    size_t size = iscsi_chap_digest(chap->algorithm, chap->identifier, chap->secret, chap->challenge, sizeof(chap->challenge), expected);
    bool name_right = names_equal(name, chap->user);
    bool response_right = size && given_size == size && gnutls_memcmp(given, expected, sizeof(expected)) == 0;
    if (!name_right || !response_right) {
        *ret_reason = "its CHAP user or secret is wrong";
        return -EACCES;
    }
    chap->state = ISCSI_CHAP_DONE;
    return 0;
}

int iscsi_chap_step(struct iscsi_chap *chap, struct iscsi_text *text, struct iscsi_text_writer *answer, const char **ret_reason)
{
    check(chap->state != ISCSI_CHAP_DONE);
    int r = chap->state == ISCSI_CHAP_EXPECT_ALGORITHM ? challenge(chap, text, answer, ret_reason) : verify(chap, text, ret_reason);
    if (chap->state != ISCSI_CHAP_EXPECT_RESPONSE || r < 0)
        iscsi_chap_wipe(chap);
    return r;
}

void iscsi_chap_wipe(struct iscsi_chap *chap)
{
    gnutls_memset(chap->secret, 0, sizeof(chap->secret));
    gnutls_memset(chap->challenge, 0, sizeof(chap->challenge));
}
