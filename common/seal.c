/* The only file that includes sodium.h: sealing of datagrams, random bytes, hashing, wiping. */
#include "common/seal.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "common/check.h"

#define NONCE_SIZE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_SIZE crypto_aead_xchacha20poly1305_ietf_ABYTES

static_assert(SEAL_KEY_SIZE == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "key size of XChaCha20-Poly1305");
static_assert(SEAL_OVERHEAD == NONCE_SIZE + TAG_SIZE, "nonce and tag");

int seal_init(void)
{
    return sodium_init() < 0 ? -EIO : 0;
}

void seal_random(void *ret, size_t size)
{
    randombytes_buf(ret, size);
}

void seal_wipe(void *data, size_t size)
{
    sodium_memzero(data, size);
}

int seal_compare(const void *left, const void *right, size_t size)
{
    return sodium_memcmp(left, right, size);
}

size_t seal_close(const uint8_t key[static SEAL_KEY_SIZE], const void *header, size_t header_size, const void *plain,
                  size_t plain_size, uint8_t *out, size_t out_size)
{
    check(out_size >= SEAL_OVERHEAD && plain_size <= out_size - SEAL_OVERHEAD);

    /* Random 192-bit nonces never repeat in practice, so no counter must survive a restart. */
    unsigned long long cipher_size = 0;
    randombytes_buf(out, NONCE_SIZE);
    check(crypto_aead_xchacha20poly1305_ietf_encrypt(out + NONCE_SIZE, &cipher_size, plain, plain_size, header,
                                                     header_size, NULL, out, key) == 0);
    check(cipher_size == plain_size + TAG_SIZE);
    return plain_size + SEAL_OVERHEAD;
}

ssize_t seal_open(const uint8_t key[static SEAL_KEY_SIZE], const void *header, size_t header_size,
                  const uint8_t *sealed, size_t sealed_size, void *ret_plain, size_t plain_size)
{
    unsigned long long opened_size = 0;

    if (sealed_size < SEAL_OVERHEAD || sealed_size - SEAL_OVERHEAD > plain_size)
        return -EBADMSG;
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(ret_plain, &opened_size, NULL, sealed + NONCE_SIZE,
                                                   sealed_size - NONCE_SIZE, header, header_size, sealed, key) != 0)
        return -EBADMSG;
    check(opened_size == sealed_size - SEAL_OVERHEAD);
    return (ssize_t)opened_size;
}

void seal_hash128(const void *data, size_t size, uint8_t ret[static 16])
{
    check(crypto_generichash(ret, 16, data, size, NULL, 0) == 0);
}
