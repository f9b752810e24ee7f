/* CHAP as the target: chooses the algorithm, challenges, and compares in constant time. */
#include "storaged/iscsi/iscsi_chap.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stddef.h>
#include <string.h>

#include "common/check.h"

/* Best first, in whatever order the initiator lists: MD5 last, since it is what every initiator has. */
static const struct {
    uint8_t number;
    char name[2];
    gnutls_digest_algorithm_t digest;
} algorithms[] = {
    {7, "7", GNUTLS_DIG_SHA256},
    {8, "8", GNUTLS_DIG_SHA3_256},
    {6, "6", GNUTLS_DIG_SHA1},
    {5, "5", GNUTLS_DIG_MD5},
};
#define ALGORITHM_COUNT (sizeof(algorithms) / sizeof(algorithms[0]))
#define CHAP_SHA256 7

static gnutls_digest_algorithm_t digest_of(uint8_t algorithm)
{
    for (unsigned i = 0; i < ALGORITHM_COUNT; i++)
        if (algorithms[i].number == algorithm)
            return algorithms[i].digest;
    return GNUTLS_DIG_UNKNOWN;
}

size_t iscsi_chap_digest(uint8_t algorithm, uint8_t identifier, const char *secret, const uint8_t *challenge, size_t challenge_size,
                         uint8_t ret[static ISCSI_CHAP_DIGEST_MAX])
{
    gnutls_digest_algorithm_t digest = digest_of(algorithm);
    gnutls_hash_hd_t hash;
    if (digest == GNUTLS_DIG_UNKNOWN)
        return 0;
    GNUTLS_FIPS140_SET_LAX_MODE(); /* CHAP with MD5 is what initiators have */
    int r = gnutls_hash_init(&hash, digest);
    if (r < 0) {
        GNUTLS_FIPS140_SET_STRICT_MODE();
        return 0;
    }
    gnutls_hash(hash, &identifier, 1);
    gnutls_hash(hash, secret, strlen(secret));
    gnutls_hash(hash, challenge, challenge_size);
    gnutls_hash_deinit(hash, ret);
    GNUTLS_FIPS140_SET_STRICT_MODE();
    return gnutls_hash_get_len(digest);
}

static int choose_algorithm(const char *offer, uint8_t *ret)
{
    for (unsigned i = 0; i < ALGORITHM_COUNT; i++) {
        if (!iscsi_text_list_has(offer, algorithms[i].name))
            continue;
        *ret = algorithms[i].number;
        return 0;
    }
    return -ENOENT;
}

static int challenge(struct iscsi_chap *chap, struct iscsi_text *text, struct iscsi_text_writer *answer, const char **ret_reason)
{
    const char *offer = iscsi_text_take(text, "CHAP_A");
    if (!offer || choose_algorithm(offer, &chap->algorithm) < 0) {
        *ret_reason = offer ? "it offers none of the CHAP algorithms 5 (MD5), 6 (SHA1), 7 (SHA-256), 8 (SHA3-256)"
                            : "it sent no CHAP_A";
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

static bool response_is_right(const struct iscsi_chap *chap, const char *name, const uint8_t *given, size_t given_size,
                              const char *user, const char *secret)
{
    uint8_t expected[ISCSI_CHAP_DIGEST_MAX] = {0};
    size_t size = iscsi_chap_digest(chap->algorithm, chap->identifier, secret, chap->challenge, sizeof(chap->challenge),
                                    expected);
    bool name_right = names_equal(name, user);
    bool right = size && given_size == size && gnutls_memcmp(given, expected, sizeof(expected)) == 0;
    gnutls_memset(expected, 0, sizeof(expected));
    return name_right && right && user[0] && secret[0]; /* nobody has an empty name or secret */
}

static const char *value_of(const struct iscsi_text *text, const char *key)
{
    for (unsigned i = 0; i < text->count; i++)
        if (strcmp(text->pairs[i].key, key) == 0)
            return text->pairs[i].value;
    return NULL;
}

bool iscsi_chap_would_pass(const struct iscsi_chap *chap, const struct iscsi_text *text, const char *user, const char *secret)
{
    const char *name = value_of(text, "CHAP_N"), *response = value_of(text, "CHAP_R");
    uint8_t given[ISCSI_CHAP_DIGEST_MAX] = {0};
    size_t size = 0;
    /* Asked for every volume there is: the hash only for those whose user it is. */
    return chap->state == ISCSI_CHAP_EXPECT_RESPONSE && name && response && names_equal(name, user) &&
           iscsi_text_binary(response, given, sizeof(given), &size) == 0 &&
           response_is_right(chap, name, given, size, user, secret);
}

/* The initiator's challenge, answered only now that it has proved itself: a stranger learns nothing to guess from. */
static int prove(struct iscsi_chap *chap, const char *identifier, const char *challenge, struct iscsi_text_writer *answer,
                 const char **ret_reason)
{
    uint8_t theirs[ISCSI_CHAP_CHALLENGE_MAX], proof[ISCSI_CHAP_DIGEST_MAX];
    size_t size = 0;
    uint32_t number;
    if (!identifier || !challenge || iscsi_text_number(identifier, &number) < 0 || number > 255 ||
        iscsi_text_binary(challenge, theirs, sizeof(theirs), &size) < 0) {
        *ret_reason = "its CHAP_I or CHAP_C is missing or malformed";
        return -EACCES;
    }
    if (!chap->mutual || !chap->mutual_user[0] || !chap->mutual_secret[0]) {
        *ret_reason = "it asks the target to prove itself, but no mutual user and secret are set; set them, or configure "
                      "one-way CHAP";
        return -EACCES;
    }
    /* RFC 7143 §12.1.3: with our own challenge, or with one secret for both ways, its answer could be ours reflected. */
    if ((size == sizeof(chap->challenge) && memcmp(theirs, chap->challenge, size) == 0) ||
        strcmp(chap->secret, chap->mutual_secret) == 0) {
        *ret_reason = "it sent the target's own challenge back, or both directions have the same secret";
        return -EACCES;
    }
    size = iscsi_chap_digest(chap->algorithm, (uint8_t)number, chap->mutual_secret, theirs, size, proof);
    iscsi_text_put(answer, "CHAP_N", "%s", chap->mutual_user);
    iscsi_text_put_binary(answer, "CHAP_R", proof, size);
    return 0;
}

static int verify(struct iscsi_chap *chap, struct iscsi_text *text, struct iscsi_text_writer *answer, const char **ret_reason)
{
    const char *name = iscsi_text_take(text, "CHAP_N"), *response = iscsi_text_take(text, "CHAP_R");
    const char *identifier = iscsi_text_take(text, "CHAP_I"), *challenge = iscsi_text_take(text, "CHAP_C");
    uint8_t given[ISCSI_CHAP_DIGEST_MAX] = {0};
    size_t given_size = 0;

    if (!name || !response || iscsi_text_binary(response, given, sizeof(given), &given_size) < 0) {
        *ret_reason = "its CHAP_N or CHAP_R is missing or malformed";
        return -EACCES;
    }
    if (!response_is_right(chap, name, given, given_size, chap->user, chap->secret)) {
        *ret_reason = "its CHAP user or secret is wrong";
        return -EACCES;
    }
    if ((identifier || challenge) && prove(chap, identifier, challenge, answer, ret_reason) < 0)
        return -EACCES;
    chap->state = ISCSI_CHAP_DONE;
    return 0;
}

int iscsi_chap_step(struct iscsi_chap *chap, struct iscsi_text *text, struct iscsi_text_writer *answer, const char **ret_reason)
{
    check(chap->state != ISCSI_CHAP_DONE);
    int r = chap->state == ISCSI_CHAP_EXPECT_ALGORITHM ? challenge(chap, text, answer, ret_reason)
                                                       : verify(chap, text, answer, ret_reason);
    if (chap->state != ISCSI_CHAP_EXPECT_RESPONSE || r < 0)
        iscsi_chap_wipe(chap);
    return r;
}

void iscsi_chap_wipe(struct iscsi_chap *chap)
{
    gnutls_memset(chap->secret, 0, sizeof(chap->secret));
    gnutls_memset(chap->mutual_secret, 0, sizeof(chap->mutual_secret));
    gnutls_memset(chap->challenge, 0, sizeof(chap->challenge));
}

int iscsi_credential_keep(struct iscsi_credential *credential, const char *user, const char *secret)
{
    if (strlen(user) >= sizeof(credential->user) ||
        gnutls_rnd(GNUTLS_RND_NONCE, credential->salt, sizeof(credential->salt)) < 0)
        return -EINVAL;
    if (iscsi_chap_digest(CHAP_SHA256, 0, secret, credential->salt, sizeof(credential->salt), credential->proof) == 0)
        return -EINVAL;
    strcpy(credential->user, user);
    return 0;
}

bool iscsi_credential_is(const struct iscsi_credential *credential, const char *user, const char *secret)
{
    uint8_t proof[ISCSI_CHAP_DIGEST_MAX];
    if (!credential->user[0] || strcmp(credential->user, user) != 0)
        return false;
    return iscsi_chap_digest(CHAP_SHA256, 0, secret, credential->salt, sizeof(credential->salt), proof) == sizeof(proof) &&
           gnutls_memcmp(proof, credential->proof, sizeof(proof)) == 0;
}
