/* Loads the CA, the own certificate and the own key that a node's connections share. */
#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/pki.h"
#include "common/tls.h"
#include "common/tls_private.h"

#define PEM_FILE_MAX (64u * 1024)

static void cleanup_secret(char **pem) { pki_free_secret(*pem); }

static gnutls_datum_t datum_of(char *text)
{
    return (gnutls_datum_t){.data = (unsigned char *)text, .size = (unsigned)strlen(text)};
}

static int load_key(const char *path, char **ret, struct err *err)
{
    struct stat status;

    if (stat(path, &status) == 0 && (status.st_mode & 077) != 0)
        return err_set(err, -EPERM, "unsafe", "%s: mode %04o lets others read the key; run 'chmod 600 %s' and enrol "
                       "this node again if somebody did", path, status.st_mode & 07777u, path);
    return files_read(path, PEM_FILE_MAX, ret, NULL, err);
}

static int load_trust(struct tls_identity *identity, const char *ca_path, char *ca, struct err *err)
{
    gnutls_datum_t ca_datum = datum_of(ca);
    int count = gnutls_certificate_set_x509_trust_mem(identity->credentials, &ca_datum, GNUTLS_X509_FMT_PEM);

    if (count != 1)
        return err_set(err, -EINVAL, "invalid", "%s: holds %d certificates in PEM form, not the one of the cluster's "
                       "CA; enrol this node again", ca_path, count < 0 ? 0 : count);
    /* A mirror must not stop because a clock is wrong or a date has come: whoever the CA signed stays trusted, and
     * the end of trust is a new CA. */
    gnutls_certificate_set_verify_flags(identity->credentials, GNUTLS_VERIFY_DISABLE_TIME_CHECKS);
    return 0;
}

/* Shows leaf and CA, because a joiner knows the CA by its fingerprint only. */
static int load_own(struct tls_identity *identity, const char *cert_path, const char *cert, const char *ca, char *key,
                    struct err *err)
{
    cleanup_free char *chain = NULL;
    if (asprintf(&chain, "%s\n%s", cert, ca) < 0) {
        chain = NULL;
        return err_set(err, -ENOMEM, "no_memory", "%s: no memory to load it; free some memory", cert_path);
    }
    gnutls_datum_t chain_datum = datum_of(chain), key_datum = datum_of(key);
    int result = gnutls_certificate_set_x509_key_mem(identity->credentials, &chain_datum, &key_datum,
                                                     GNUTLS_X509_FMT_PEM);
    if (result < 0)
        return err_set(err, -EINVAL, "invalid", "%s: cannot be used with its key: %s; enrol this node again", cert_path,
                       gnutls_strerror(result));
    return 0;
}

int tls_identity_load(const char *ca_path, const char *cert_path, const char *key_path, struct tls_identity **ret,
                      struct err *err)
{
    cleanup_free char *ca = NULL, *cert = NULL;
    cleanup(cleanup_secret) char *key = NULL;
    struct tls_identity *identity = calloc(1, sizeof(*identity));

    if (identity == NULL || gnutls_certificate_allocate_credentials(&identity->credentials) < 0) {
        free(identity);
        return err_set(err, -ENOMEM, "no_memory", "%s: no memory to load it; free some memory", cert_path);
    }
    int result = files_read(ca_path, PEM_FILE_MAX, &ca, NULL, err);
    if (result == 0)
        result = files_read(cert_path, PEM_FILE_MAX, &cert, NULL, err);
    if (result == 0)
        result = load_key(key_path, &key, err);
    if (result == 0)
        result = load_trust(identity, ca_path, ca, err);
    if (result == 0)
        result = load_own(identity, cert_path, cert, ca, key, err);
    if (result < 0) {
        tls_identity_free(identity);
        return result;
    }
    *ret = identity;
    return 0;
}

void tls_identity_free(struct tls_identity *identity)
{
    if (identity == NULL)
        return;
    gnutls_certificate_free_credentials(identity->credentials);
    free(identity);
}
