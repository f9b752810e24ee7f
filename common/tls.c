/* TLS 1.3 connections between nodes and with the witness. */
#include "common/tls.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/seal.h"
#include "common/tls_private.h"

#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define URI_PREFIX "urn:uuid:"

struct tls {
    gnutls_session_t session;
    gnutls_certificate_credentials_t own_credentials; /* of an enrolling client, else NULL */
    uint8_t ca_sha256[32];
    bool established, failed;
    bool has_reason;  /* set by the verification, which knows better than the library's error number */
    bool has_peer_id;
    struct id peer_id;
    char reason[256];
};

static int refuse(struct tls *tls, const char *reason)
{
    snprintf(tls->reason, sizeof(tls->reason), "%s", reason);
    tls->has_reason = true;
    return GNUTLS_E_CERTIFICATE_ERROR;
}

static void cleanup_cert(gnutls_x509_crt_t *cert)
{
    if (*cert != NULL)
        gnutls_x509_crt_deinit(*cert);
}

static int import_cert(const gnutls_datum_t *der, gnutls_x509_crt_t *ret)
{
    int result = gnutls_x509_crt_init(ret);
    return result < 0 ? result : gnutls_x509_crt_import(*ret, der, GNUTLS_X509_FMT_DER);
}

static void take_peer_id(struct tls *tls, gnutls_x509_crt_t cert)
{
    for (unsigned index = 0;; index++) {
        char name[128];
        size_t size = sizeof(name) - 1;
        int type = gnutls_x509_crt_get_subject_alt_name(cert, index, name, &size, NULL);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            return;
        if (type != GNUTLS_SAN_URI || size >= sizeof(name))
            continue;
        name[size] = '\0';
        if (strncmp(name, URI_PREFIX, strlen(URI_PREFIX)) == 0 &&
            id_parse(name + strlen(URI_PREFIX), &tls->peer_id) == 0) {
            tls->has_peer_id = true;
            return;
        }
    }
}

static int refuse_status(struct tls *tls, unsigned status)
{
    gnutls_datum_t text = {0};

    if ((status & GNUTLS_CERT_SIGNER_NOT_FOUND) != 0)
        return refuse(tls, "the certificate is signed by another CA");
    if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0)
        return refuse(tls, "the certificate is not trusted");
    refuse(tls, (const char *)text.data);
    gnutls_free(text.data);
    return GNUTLS_E_CERTIFICATE_ERROR;
}

static int verify_mutual(gnutls_session_t session)
{
    struct tls *tls = gnutls_session_get_ptr(session);
    cleanup(cleanup_cert) gnutls_x509_crt_t leaf = NULL;
    unsigned status = 0, count = 0;

    if (gnutls_certificate_verify_peers3(session, NULL, &status) < 0)
        return refuse(tls, "the peer shows no certificate of this cluster");
    if (status != 0)
        return refuse_status(tls, status);
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
    if (chain == NULL || count == 0 || import_cert(&chain[0], &leaf) < 0)
        return refuse(tls, "the peer's certificate cannot be read");
    take_peer_id(tls, leaf);
    return 0;
}

static bool has_fingerprint(const gnutls_datum_t *der, const uint8_t sha256[static 32])
{
    uint8_t found[32];
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, der->data, der->size, found) == 0 &&
           seal_compare(found, sha256, sizeof(found)) == 0;
}

static bool is_signed_by(gnutls_x509_crt_t cert, gnutls_x509_crt_t ca)
{
    unsigned status = 0;
    return gnutls_x509_crt_check_issuer(cert, ca) == 1 &&
           gnutls_x509_crt_verify(cert, &ca, 1, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status) == 0 && status == 0;
}

/* The joiner trusts nothing but the fingerprint in its token: the chain is exactly leaf and CA, the CA is the one
 * that the token names, signs itself, may sign, and signed the leaf. */
static int verify_enrol(gnutls_session_t session)
{
    struct tls *tls = gnutls_session_get_ptr(session);
    cleanup(cleanup_cert) gnutls_x509_crt_t leaf = NULL, ca = NULL;
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);

    if (gnutls_certificate_type_get(session) != GNUTLS_CRT_X509 || chain == NULL || count != 2)
        return refuse(tls, "the server does not show its certificate and its CA");
    if (!has_fingerprint(&chain[1], tls->ca_sha256))
        return refuse(tls, "the server's CA is not the one that the token names");
    if (import_cert(&chain[0], &leaf) < 0 || import_cert(&chain[1], &ca) < 0)
        return refuse(tls, "the server's certificate cannot be read");
    if (gnutls_x509_crt_get_ca_status(ca, NULL) <= 0 || !is_signed_by(ca, ca) || !is_signed_by(leaf, ca))
        return refuse(tls, "the server's certificate is not signed by the CA that the token names");
    take_peer_id(tls, leaf);
    return 0;
}

/* Tickets are off: every session proves the certificates anew, and nothing arrives that nobody asked for. */
static int create(int fd, unsigned flags, gnutls_certificate_credentials_t credentials, struct tls **ret)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    if (tls == NULL)
        return -ENOMEM;
    if (gnutls_init(&tls->session, flags | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS) < 0) {
        free(tls);
        return -ENOMEM;
    }
    if (gnutls_priority_set_direct(tls->session, PRIORITY, NULL) < 0 ||
        gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, credentials) < 0) {
        gnutls_deinit(tls->session);
        free(tls);
        return -ENOMEM;
    }
    gnutls_session_set_ptr(tls->session, tls);
    gnutls_transport_set_int(tls->session, fd);
    *ret = tls;
    return 0;
}

int tls_new(const struct tls_identity *identity, int fd, bool is_server, struct tls **ret)
{
    struct tls *tls;
    int result = create(fd, is_server ? GNUTLS_SERVER : GNUTLS_CLIENT, identity->credentials, &tls);
    if (result < 0)
        return result;
    if (is_server)
        gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUIRE);
    gnutls_session_set_verify_function(tls->session, verify_mutual);
    *ret = tls;
    return 0;
}

int tls_new_enrol_server(const struct tls_identity *identity, int fd, struct tls **ret)
{
    return create(fd, GNUTLS_SERVER, identity->credentials, ret);
}

int tls_new_enrol_client(int fd, const uint8_t ca_sha256[static 32], struct tls **ret)
{
    gnutls_certificate_credentials_t credentials;
    struct tls *tls;

    if (gnutls_certificate_allocate_credentials(&credentials) < 0)
        return -ENOMEM;
    int result = create(fd, GNUTLS_CLIENT, credentials, &tls);
    if (result < 0) {
        gnutls_certificate_free_credentials(credentials);
        return result;
    }
    tls->own_credentials = credentials;
    memcpy(tls->ca_sha256, ca_sha256, sizeof(tls->ca_sha256));
    gnutls_session_set_verify_function(tls->session, verify_enrol);
    *ret = tls;
    return 0;
}

void tls_free(struct tls *tls)
{
    if (tls == NULL)
        return;
    /* One attempt to say goodbye, so that the peer tells an end from a cut. */
    if (tls->established && !tls->failed)
        gnutls_bye(tls->session, GNUTLS_SHUT_WR);
    gnutls_deinit(tls->session);
    if (tls->own_credentials != NULL)
        gnutls_certificate_free_credentials(tls->own_credentials);
    free(tls);
}

static bool is_retry(ssize_t result)
{
    return result == GNUTLS_E_INTERRUPTED || result == GNUTLS_E_WARNING_ALERT_RECEIVED;
}

static int errno_of(int error)
{
    switch (error) {
    case GNUTLS_E_PREMATURE_TERMINATION:
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
        return -ECONNRESET;
    case GNUTLS_E_CERTIFICATE_ERROR:
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
    case GNUTLS_E_CERTIFICATE_REQUIRED:
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
        return -EKEYREJECTED;
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
        return -ECONNABORTED;
    case GNUTLS_E_MEMORY_ERROR:
        return -ENOMEM;
    default:
        return -EPROTO;
    }
}

/* Translates a library error and keeps the reason. */
static int fail(struct tls *tls, int error)
{
    if (error == GNUTLS_E_AGAIN)
        return -EAGAIN;
    tls->failed = true;
    if (error == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        const char *alert = gnutls_alert_get_name(gnutls_alert_get(tls->session));
        snprintf(tls->reason, sizeof(tls->reason), "the peer refused the connection: %s",
                 alert == NULL ? "unknown alert" : alert);
    } else if (error == GNUTLS_E_NO_CERTIFICATE_FOUND || error == GNUTLS_E_CERTIFICATE_REQUIRED) {
        snprintf(tls->reason, sizeof(tls->reason), "the peer shows no certificate of this cluster");
    } else if (!tls->has_reason) {
        snprintf(tls->reason, sizeof(tls->reason), "%s", gnutls_strerror(error));
    }
    return errno_of(error);
}

int tls_handshake(struct tls *tls)
{
    int result;

    do
        result = gnutls_handshake(tls->session);
    while (is_retry(result));
    if (result < 0) {
        /* Tells the peer why: best effort on a connection that ends anyway. */
        if (result != GNUTLS_E_AGAIN && result != GNUTLS_E_FATAL_ALERT_RECEIVED)
            gnutls_alert_send_appropriate(tls->session, result);
        return fail(tls, result);
    }
    check(gnutls_protocol_get_version(tls->session) == GNUTLS_TLS1_3);
    tls->established = true;
    return 0;
}

ssize_t tls_read(struct tls *tls, void *data, size_t size)
{
    ssize_t result;

    do
        result = gnutls_record_recv(tls->session, data, size);
    while (is_retry(result));
    return result < 0 ? fail(tls, (int)result) : result;
}

ssize_t tls_write(struct tls *tls, const void *data, size_t size)
{
    ssize_t result;

    do
        result = gnutls_record_send(tls->session, data, size);
    while (is_retry(result));
    return result < 0 ? fail(tls, (int)result) : result;
}

bool tls_wants_write(const struct tls *tls)
{
    return gnutls_record_get_direction(tls->session) == 1;
}

size_t tls_pending(const struct tls *tls)
{
    return gnutls_record_check_pending(tls->session);
}

const char *tls_reason(const struct tls *tls)
{
    return tls->reason[0] == '\0' ? "nothing failed" : tls->reason;
}

int tls_peer_id(const struct tls *tls, struct id *ret)
{
    if (!tls->established || !tls->has_peer_id)
        return -ENOENT;
    *ret = tls->peer_id;
    return 0;
}
