/* GnuTLS behind one door: TLS 1.3 between nodes, mutual, certificates that name node UUIDs.
 * The only file pair (with pki) that includes gnutls headers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/id.h"

struct tls_identity; /* CA + own certificate + key; shared by connections, outlives them */
struct tls;          /* one connection over a socket the caller owns and closes after tls_free */

/* Loads PEM files. A key file readable by others than its owner is refused. */
int tls_identity_load(const char *ca_path, const char *cert_path, const char *key_path, struct tls_identity **ret,
                      struct err *err);
void tls_identity_free(struct tls_identity *identity);

/* Mutual: the peer's certificate must come from our CA; its UUID is then in tls_peer_id. */
int tls_new(const struct tls_identity *identity, int fd, bool is_server, struct tls **ret);
void tls_free(struct tls *tls);

/* Enrolment, before the joiner has a certificate. Server: shows its certificate chain (leaf + CA), asks for none.
 * Client: accepts exactly the server whose CA certificate (last of the chain, self-signed, having signed the leaf)
 * has this SHA-256 fingerprint. */
int tls_new_enrol_server(const struct tls_identity *identity, int fd, struct tls **ret);
int tls_new_enrol_client(int fd, const uint8_t ca_sha256[static 32], struct tls **ret);

/* All three return bytes (handshake: 0 when done), 0 at end of stream for read, or a negative errno; -EAGAIN on a
 * non-blocking socket, then tls_wants_write says which readiness to wait for. On a blocking socket they block. */
int tls_handshake(struct tls *tls);
ssize_t tls_read(struct tls *tls, void *data, size_t size);
/* After -EAGAIN the same data must be offered again. */
ssize_t tls_write(struct tls *tls, const void *data, size_t size);
bool tls_wants_write(const struct tls *tls);
/* Bytes already decrypted that no poll will announce. */
size_t tls_pending(const struct tls *tls);
/* Why the last call failed, for a log line ("the certificate is signed by another CA"). */
const char *tls_reason(const struct tls *tls);
/* The node UUID the peer's verified certificate names. -ENOENT when it names none. */
int tls_peer_id(const struct tls *tls, struct id *ret);
