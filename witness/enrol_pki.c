/* The witness's own CA and certificate: made on the first start, loaded on every other. */
#include "witness/enrol_pki.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/pki.h"

#define PEM_MAX 16384u

struct paths {
    char ca_key[PATH_MAX], ca[PATH_MAX], key[PATH_MAX], certificate[PATH_MAX];
};

static void cleanup_secret_pointer(char **pem)
{
    pki_free_secret(*pem);
}

static int make_paths(const char *folder, struct paths *ret, struct err *err)
{
    if ((size_t)snprintf(ret->ca_key, PATH_MAX, "%s/pki/ca.key", folder) >= PATH_MAX ||
        (size_t)snprintf(ret->ca, PATH_MAX, "%s/pki/ca.crt", folder) >= PATH_MAX ||
        (size_t)snprintf(ret->key, PATH_MAX, "%s/pki/witness.key", folder) >= PATH_MAX ||
        (size_t)snprintf(ret->certificate, PATH_MAX, "%s/pki/witness.crt", folder) >= PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "invalid", "state folder '%s': the path is too long", folder);
    return 0;
}

static int save(const char *path, const char *pem, mode_t mode, struct err *err)
{
    return files_replace(path, pem, strlen(pem), mode, err);
}

/* The certificate comes last: while it is missing everything is made anew, so that a crash in between leaves no halves. */
static int make_identity(const struct paths *paths, const struct id *witness, struct err *err)
{
    cleanup(cleanup_secret_pointer) char *ca_key = NULL;
    cleanup(cleanup_secret_pointer) char *key = NULL;
    cleanup_free char *ca = NULL;
    cleanup_free char *public_key = NULL;
    cleanup_free char *certificate = NULL;
    int error = pki_make_key(&ca_key, err);
    if (error == 0)
        error = pki_make_ca(ca_key, "hci-witness", &ca, err);
    if (error == 0)
        error = pki_make_key(&key, err);
    if (error == 0)
        error = pki_public_key(key, &public_key, err);
    if (error == 0)
        error = pki_issue(ca_key, ca, public_key, witness, "witness", &certificate, err);
    if (error == 0)
        error = save(paths->ca_key, ca_key, 0600, err);
    if (error == 0)
        error = save(paths->ca, ca, 0644, err);
    if (error == 0)
        error = save(paths->key, key, 0600, err);
    if (error == 0)
        error = save(paths->certificate, certificate, 0644, err);
    return error;
}

int enrol_load_identity(const char *folder, const struct id *witness, struct tls_identity **ret,
                        uint8_t ret_ca_sha256[static 32], struct err *err)
{
    struct paths paths;
    char pki_folder[PATH_MAX];
    int error = make_paths(folder, &paths, err);
    if (error < 0)
        return error;
    snprintf(pki_folder, sizeof pki_folder, "%s/pki", folder);
    error = files_make_folder(pki_folder, 0700, err);
    if (error == 0 && access(paths.certificate, F_OK) < 0)
        error = make_identity(&paths, witness, err);
    cleanup_free char *ca = NULL;
    size_t size;
    if (error == 0)
        error = files_read(paths.ca, PEM_MAX, &ca, &size, err);
    if (error == 0)
        error = pki_fingerprint(ca, ret_ca_sha256, err);
    if (error == 0)
        error = tls_identity_load(paths.ca, paths.certificate, paths.key, ret, err);
    return error;
}
