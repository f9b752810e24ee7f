/* Makes keys and certificates of a cluster with GnuTLS. */
#include "common/pki.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"

#define SERIAL_SIZE 16
/* A clock that is wrong on the day of enrolment must not make a certificate of the future. */
#define BACKDATE_SEC (10ll * 365 * 24 * 3600)

static void cleanup_key(gnutls_x509_privkey_t *key)
{
    if (*key != NULL)
        gnutls_x509_privkey_deinit(*key);
}

static void cleanup_cert(gnutls_x509_crt_t *cert)
{
    if (*cert != NULL)
        gnutls_x509_crt_deinit(*cert);
}

static void cleanup_public(gnutls_pubkey_t *key)
{
    if (*key != NULL)
        gnutls_pubkey_deinit(*key);
}

static void cleanup_datum(gnutls_datum_t *datum)
{
    if (datum->data == NULL)
        return;
    explicit_bzero(datum->data, datum->size);
    gnutls_free(datum->data);
}

static int fail(struct err *err, const char *what, int error)
{
    return err_set(err, error == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL, "invalid",
                   "%s: %s; check that it is complete and was made by enrolment", what, gnutls_strerror(error));
}

static gnutls_datum_t datum_of(const char *text)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)text, .size = (unsigned)strlen(text)};
}

static int copy_text(const gnutls_datum_t *datum, char **ret, struct err *err)
{
    char *text = strndup((const char *)datum->data, datum->size);
    if (text == NULL)
        return err_set(err, -ENOMEM, "no_memory", "a certificate or key: no memory for it; free some memory");
    *ret = text;
    return 0;
}

static int import_key(const char *pem, gnutls_x509_privkey_t *ret, struct err *err)
{
    gnutls_datum_t datum = datum_of(pem);
    int result = gnutls_x509_privkey_init(ret);
    if (result >= 0)
        result = gnutls_x509_privkey_import(*ret, &datum, GNUTLS_X509_FMT_PEM);
    return result < 0 ? fail(err, "private key", result) : 0;
}

static int import_cert(const char *pem, gnutls_x509_crt_t *ret, struct err *err)
{
    gnutls_datum_t datum = datum_of(pem);
    int result = gnutls_x509_crt_init(ret);
    if (result >= 0)
        result = gnutls_x509_crt_import(*ret, &datum, GNUTLS_X509_FMT_PEM);
    return result < 0 ? fail(err, "certificate", result) : 0;
}

/* What a stranger sends to be signed: nothing but a P-256 key is accepted. */
static int import_public(const char *pem, gnutls_pubkey_t *ret, struct err *err)
{
    gnutls_datum_t datum = datum_of(pem);
    gnutls_ecc_curve_t curve = GNUTLS_ECC_CURVE_INVALID;
    int result = gnutls_pubkey_init(ret);

    if (result >= 0)
        result = gnutls_pubkey_import(*ret, &datum, GNUTLS_X509_FMT_PEM);
    if (result < 0)
        return fail(err, "public key", result);
    if (gnutls_pubkey_get_pk_algorithm(*ret, NULL) != GNUTLS_PK_ECDSA ||
        gnutls_pubkey_export_ecc_raw2(*ret, &curve, NULL, NULL, 0) < 0 || curve != GNUTLS_ECC_CURVE_SECP256R1)
        return err_set(err, -EINVAL, "invalid", "public key: is not an ECDSA P-256 key; make it with "
                       "'hcictl cluster join'");
    return 0;
}

int pki_make_key(char **ret_key_pem, struct err *err)
{
    cleanup(cleanup_key) gnutls_x509_privkey_t key = NULL;
    cleanup(cleanup_datum) gnutls_datum_t pem = {0};
    int result = gnutls_x509_privkey_init(&key);

    if (result >= 0)
        result = gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
                                              0);
    if (result >= 0)
        result = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem);
    return result < 0 ? fail(err, "new private key", result) : copy_text(&pem, ret_key_pem, err);
}

static int public_of(gnutls_x509_privkey_t key, gnutls_pubkey_t *ret)
{
    gnutls_privkey_t abstract = NULL;
    int result = gnutls_privkey_init(&abstract);
    if (result < 0)
        return result;
    result = gnutls_privkey_import_x509(abstract, key, 0);
    if (result >= 0)
        result = gnutls_pubkey_init(ret);
    if (result >= 0)
        result = gnutls_pubkey_import_privkey(*ret, abstract, 0, 0);
    gnutls_privkey_deinit(abstract);
    return result;
}

int pki_public_key(const char *key_pem, char **ret_public_pem, struct err *err)
{
    cleanup(cleanup_key) gnutls_x509_privkey_t key = NULL;
    cleanup(cleanup_public) gnutls_pubkey_t public_key = NULL;
    cleanup(cleanup_datum) gnutls_datum_t pem = {0};
    int result = import_key(key_pem, &key, err);

    if (result < 0)
        return result;
    result = public_of(key, &public_key);
    if (result >= 0)
        result = gnutls_pubkey_export2(public_key, GNUTLS_X509_FMT_PEM, &pem);
    return result < 0 ? fail(err, "public key", result) : copy_text(&pem, ret_public_pem, err);
}

/* What every certificate has: version, random serial, validity without an end (tls_identity.c says why). */
static int start_cert(gnutls_x509_crt_t *ret)
{
    uint8_t serial[SERIAL_SIZE];
    int result = gnutls_x509_crt_init(ret);

    if (result >= 0)
        result = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive and without leading zeros, RFC 5280 §4.1.2.2 */
    if (result >= 0)
        result = gnutls_x509_crt_set_version(*ret, 3);
    if (result >= 0)
        result = gnutls_x509_crt_set_serial(*ret, serial, sizeof(serial));
    if (result >= 0)
        result = gnutls_x509_crt_set_activation_time(*ret, time(NULL) - BACKDATE_SEC);
    if (result >= 0)
        result = gnutls_x509_crt_set_expiration_time(*ret, GNUTLS_X509_NO_WELL_DEFINED_EXPIRATION);
    return result;
}

static int set_name(gnutls_x509_crt_t cert, const char *oid, const char *name)
{
    return gnutls_x509_crt_set_dn_by_oid(cert, oid, 0, name, (unsigned)strlen(name));
}

static int set_key_id(gnutls_x509_crt_t cert)
{
    uint8_t key_id[64];
    size_t size = sizeof(key_id);
    int result = gnutls_x509_crt_get_key_id(cert, GNUTLS_KEYID_USE_SHA256, key_id, &size);
    return result < 0 ? result : gnutls_x509_crt_set_subject_key_id(cert, key_id, size);
}

static int sign_and_export(gnutls_x509_crt_t cert, gnutls_x509_crt_t ca, gnutls_x509_privkey_t ca_key, char **ret,
                           struct err *err)
{
    cleanup(cleanup_datum) gnutls_datum_t pem = {0};
    int result = gnutls_x509_crt_sign2(cert, ca, ca_key, GNUTLS_DIG_SHA256, 0);

    if (result >= 0)
        result = gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &pem);
    return result < 0 ? fail(err, "new certificate", result) : copy_text(&pem, ret, err);
}

int pki_make_ca(const char *ca_key_pem, const char *cluster_name, char **ret_cert_pem, struct err *err)
{
    cleanup(cleanup_key) gnutls_x509_privkey_t key = NULL;
    cleanup(cleanup_cert) gnutls_x509_crt_t cert = NULL;
    int result = import_key(ca_key_pem, &key, err);

    if (result < 0)
        return result;
    result = start_cert(&cert);
    if (result >= 0)
        result = set_name(cert, GNUTLS_OID_X520_COMMON_NAME, "hci cluster CA");
    if (result >= 0)
        result = set_name(cert, GNUTLS_OID_X520_ORGANIZATION_NAME, cluster_name);
    if (result >= 0)
        result = gnutls_x509_crt_set_key(cert, key);
    if (result >= 0)
        result = gnutls_x509_crt_set_basic_constraints(cert, 1, 0);
    if (result >= 0)
        result = gnutls_x509_crt_set_key_usage(cert, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
    if (result >= 0)
        result = set_key_id(cert);
    return result < 0 ? fail(err, "new CA certificate", result) : sign_and_export(cert, cert, key, ret_cert_pem, err);
}

static int set_usage(gnutls_x509_crt_t cert)
{
    int result = gnutls_x509_crt_set_basic_constraints(cert, 0, -1);

    if (result >= 0)
        result = gnutls_x509_crt_set_key_usage(cert, GNUTLS_KEY_DIGITAL_SIGNATURE);
    if (result >= 0)
        result = gnutls_x509_crt_set_key_purpose_oid(cert, GNUTLS_KP_TLS_WWW_SERVER, 0);
    if (result >= 0)
        result = gnutls_x509_crt_set_key_purpose_oid(cert, GNUTLS_KP_TLS_WWW_CLIENT, 0);
    return result;
}

static int set_node(gnutls_x509_crt_t cert, const struct id *node, const char *node_name)
{
    char text[ID_TEXT_SIZE], uri[64];
    int length = snprintf(uri, sizeof(uri), "urn:uuid:%s", id_format(node, text));
    int result = set_name(cert, GNUTLS_OID_X520_COMMON_NAME, node_name);

    if (result >= 0)
        result = gnutls_x509_crt_set_subject_alt_name(cert, GNUTLS_SAN_URI, uri, (unsigned)length, GNUTLS_FSAN_SET);
    return result;
}

/* gnutls_x509_crt_sign2 does not look whether the key is the CA's; a leaf that nobody trusts must not leave here. */
static int check_ca_key(gnutls_x509_crt_t ca, gnutls_x509_privkey_t ca_key, struct err *err)
{
    uint8_t of_cert[64], of_key[64];
    size_t cert_size = sizeof(of_cert), key_size = sizeof(of_key);

    if (gnutls_x509_crt_get_key_id(ca, GNUTLS_KEYID_USE_SHA256, of_cert, &cert_size) < 0 ||
        gnutls_x509_privkey_get_key_id(ca_key, GNUTLS_KEYID_USE_SHA256, of_key, &key_size) < 0 ||
        cert_size != key_size || memcmp(of_cert, of_key, key_size) != 0)
        return err_set(err, -EINVAL, "invalid", "CA key: does not belong to the CA certificate; use the key that "
                       "was made with it");
    return 0;
}

static int issue(gnutls_x509_crt_t ca, gnutls_x509_privkey_t ca_key, gnutls_pubkey_t public_key, const struct id *node,
                 const char *node_name, char **ret_cert_pem, struct err *err)
{
    cleanup(cleanup_cert) gnutls_x509_crt_t cert = NULL;
    uint8_t ca_id[64];
    size_t size = sizeof(ca_id);
    int result = start_cert(&cert);

    if (result >= 0)
        result = gnutls_x509_crt_set_pubkey(cert, public_key);
    if (result >= 0)
        result = set_node(cert, node, node_name);
    if (result >= 0)
        result = set_usage(cert);
    if (result >= 0)
        result = set_key_id(cert);
    if (result >= 0)
        result = gnutls_x509_crt_get_subject_key_id(ca, ca_id, &size, NULL);
    if (result >= 0)
        result = gnutls_x509_crt_set_authority_key_id(cert, ca_id, size);
    if (result < 0)
        return fail(err, "new node certificate", result);
    return sign_and_export(cert, ca, ca_key, ret_cert_pem, err);
}

int pki_issue(const char *ca_key_pem, const char *ca_cert_pem, const char *public_pem, const struct id *node,
              const char *node_name, char **ret_cert_pem, struct err *err)
{
    cleanup(cleanup_key) gnutls_x509_privkey_t ca_key = NULL;
    cleanup(cleanup_cert) gnutls_x509_crt_t ca = NULL;
    cleanup(cleanup_public) gnutls_pubkey_t public_key = NULL;
    int result = import_key(ca_key_pem, &ca_key, err);

    if (result == 0)
        result = import_cert(ca_cert_pem, &ca, err);
    if (result == 0)
        result = check_ca_key(ca, ca_key, err);
    if (result == 0)
        result = import_public(public_pem, &public_key, err);
    if (result == 0)
        result = issue(ca, ca_key, public_key, node, node_name, ret_cert_pem, err);
    return result;
}

int pki_fingerprint(const char *cert_pem, uint8_t ret_sha256[static 32], struct err *err)
{
    cleanup(cleanup_cert) gnutls_x509_crt_t cert = NULL;
    size_t size = 32;
    int result = import_cert(cert_pem, &cert, err);

    if (result < 0)
        return result;
    result = gnutls_x509_crt_get_fingerprint(cert, GNUTLS_DIG_SHA256, ret_sha256, &size);
    return result < 0 ? fail(err, "certificate", result) : 0;
}

void pki_free_secret(char *pem)
{
    if (pem == NULL)
        return;
    explicit_bzero(pem, strlen(pem));
    free(pem);
}
