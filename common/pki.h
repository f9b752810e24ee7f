/* Makes the cluster's keys and certificates (ECDSA P-256, PEM): the CA, and leaves that name node UUIDs
 * as the URI "urn:uuid:UUID" in subjectAltName. Used by enrolment only. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/id.h"

/* Every *_pem result is NUL-terminated and freed by the caller (keys: pki_free_secret). */
int pki_make_key(char **ret_key_pem, struct err *err);
int pki_make_ca(const char *ca_key_pem, const char *cluster_name, char **ret_cert_pem, struct err *err);
/* The public half of a key, PEM, to be sent to the CA. */
int pki_public_key(const char *key_pem, char **ret_public_pem, struct err *err);
/* Issues a certificate for a public key: CN = node name, URI = urn:uuid:node, usable as client and server. */
int pki_issue(const char *ca_key_pem, const char *ca_cert_pem, const char *public_pem, const struct id *node,
              const char *node_name, char **ret_cert_pem, struct err *err);
/* SHA-256 of the certificate's DER form. */
int pki_fingerprint(const char *cert_pem, uint8_t ret_sha256[static 32], struct err *err);
/* Wipes and frees. NULL is fine. */
void pki_free_secret(char *pem);
