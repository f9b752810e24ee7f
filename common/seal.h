/* libsodium behind one door: datagrams sealed with XChaCha20-Poly1305 and random nonces
 * (protocol "Datagrams": one key per direction and node). The only file that includes sodium.h. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SEAL_KEY_SIZE 32u
#define SEAL_OVERHEAD 40u        /* nonce 24 + tag 16 */
#define SEAL_DATAGRAM_MAX 1200u  /* architecture: single datagrams */

/* Once per process, before anything else here. */
int seal_init(void);
void seal_random(void *ret, size_t size);
void seal_wipe(void *data, size_t size);
/* 0 when equal; constant time. */
int seal_compare(const void *left, const void *right, size_t size);
/* out = header (in clear, authenticated) is NOT copied; writes nonce ‖ ciphertext ‖ tag to `out`, returns its size:
 * plain_size + SEAL_OVERHEAD, which must be <= out_size. */
size_t seal_close(const uint8_t key[static SEAL_KEY_SIZE], const void *header, size_t header_size, const void *plain,
                  size_t plain_size, uint8_t *out, size_t out_size);
/* Returns the plain size, or -EBADMSG when forged, truncated or sealed with another key. */
ssize_t seal_open(const uint8_t key[static SEAL_KEY_SIZE], const void *header, size_t header_size, const uint8_t *sealed,
                  size_t sealed_size, void *ret_plain, size_t plain_size);
/* BLAKE2b-128 of data. */
void seal_hash128(const void *data, size_t size, uint8_t ret[static 16]);
