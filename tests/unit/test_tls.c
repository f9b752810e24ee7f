/* TLS between nodes and for enrolment, with certificates made by pki: who is let in, who is not and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/pki.h"
#include "common/seal.h"
#include "common/tls.h"
#include "common/tls_private.h"

static char folder[] = "/tmp/hci-test-tls.XXXXXX";

static const char *path_of(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

struct cluster {
    char *ca_key, *ca_cert;
    uint8_t ca_sha256[32];
    struct id ids[2];
    struct tls_identity *nodes[2];
};

static void write_file(const char *name, const char *text, mode_t mode)
{
    struct err err;
    assert_int_equal(files_replace(path_of(name), text, strlen(text), mode, &err), 0);
}

static struct tls_identity *make_identity(const struct cluster *cluster, const struct id *id, const char *name)
{
    struct tls_identity *identity = NULL;
    struct err err;
    char *key = NULL, *public_key = NULL, *cert = NULL;

    assert_int_equal(pki_make_key(&key, &err), 0);
    assert_int_equal(pki_public_key(key, &public_key, &err), 0);
    assert_int_equal(pki_issue(cluster->ca_key, cluster->ca_cert, public_key, id, name, &cert, &err), 0);
    write_file("ca.crt", cluster->ca_cert, 0644);
    write_file("node.crt", cert, 0644);
    write_file("node.key", key, 0600);
    assert_int_equal(tls_identity_load(path_of("ca.crt"), path_of("node.crt"), path_of("node.key"), &identity, &err), 0);
    pki_free_secret(key);
    free(public_key);
    free(cert);
    return identity;
}

static struct cluster make_cluster(const char *name)
{
    struct cluster cluster = {0};
    struct err err;

    assert_int_equal(pki_make_key(&cluster.ca_key, &err), 0);
    assert_int_equal(pki_make_ca(cluster.ca_key, name, &cluster.ca_cert, &err), 0);
    assert_int_equal(pki_fingerprint(cluster.ca_cert, cluster.ca_sha256, &err), 0);
    for (unsigned node = 0; node < 2; node++) {
        cluster.ids[node] = id_random();
        cluster.nodes[node] = make_identity(&cluster, &cluster.ids[node], node == 0 ? "a" : "b");
    }
    return cluster;
}

static void free_cluster(struct cluster *cluster)
{
    pki_free_secret(cluster->ca_key);
    free(cluster->ca_cert);
    for (unsigned node = 0; node < 2; node++)
        tls_identity_free(cluster->nodes[node]);
}

static struct cluster ours, others;

/* Two ends over a non-blocking socket pair, driven in turns by one thread. */
struct pair {
    int fds[2];
    struct tls *ends[2];
    int results[2];
};

static void open_pair(struct pair *pair)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair->fds), 0);
    pair->ends[0] = pair->ends[1] = NULL;
}

static void shake_hands(struct pair *pair)
{
    pair->results[0] = pair->results[1] = -EAGAIN;
    for (unsigned round = 0; round < 100; round++)
        for (unsigned end = 0; end < 2; end++)
            if (pair->results[end] == -EAGAIN)
                pair->results[end] = tls_handshake(pair->ends[end]);
}

static void close_pair(struct pair *pair)
{
    for (unsigned end = 0; end < 2; end++) {
        tls_free(pair->ends[end]);
        close(pair->fds[end]);
    }
}

static void open_mutual(struct pair *pair, const struct tls_identity *client, const struct tls_identity *server)
{
    open_pair(pair);
    assert_int_equal(tls_new(client, pair->fds[0], false, &pair->ends[0]), 0);
    assert_int_equal(tls_new(server, pair->fds[1], true, &pair->ends[1]), 0);
    shake_hands(pair);
}

static void test_mutual(void **state)
{
    struct pair pair;
    struct id seen;
    char data[16] = "";

    open_mutual(&pair, ours.nodes[0], ours.nodes[1]);
    assert_int_equal(pair.results[0], 0);
    assert_int_equal(pair.results[1], 0);
    assert_int_equal(tls_peer_id(pair.ends[0], &seen), 0);
    assert_true(id_equal(&seen, &ours.ids[1]));
    assert_int_equal(tls_peer_id(pair.ends[1], &seen), 0);
    assert_true(id_equal(&seen, &ours.ids[0]));

    assert_int_equal(tls_read(pair.ends[1], data, sizeof(data)), -EAGAIN);
    assert_false(tls_wants_write(pair.ends[1]));
    assert_int_equal(tls_write(pair.ends[0], "hello", 5), 5);
    assert_int_equal(tls_read(pair.ends[1], data, 2), 2);
    assert_int_equal(tls_pending(pair.ends[1]), 3);
    assert_int_equal(tls_read(pair.ends[1], data + 2, sizeof(data) - 2), 3);
    assert_string_equal(data, "hello");
    tls_free(pair.ends[0]);
    pair.ends[0] = NULL;
    assert_int_equal(tls_read(pair.ends[1], data, sizeof(data)), 0); /* a proper end */
    close_pair(&pair);
}

static void test_cut_is_no_end(void **state)
{
    struct pair pair;
    char data[16];

    open_mutual(&pair, ours.nodes[0], ours.nodes[1]);
    shutdown(pair.fds[0], SHUT_RDWR);
    assert_int_equal(tls_read(pair.ends[1], data, sizeof(data)), -ECONNRESET);
    assert_string_not_equal(tls_reason(pair.ends[1]), "nothing failed");
    close_pair(&pair);
}

static void test_full_socket(void **state)
{
    enum { SIZE = 16000, COUNT = 200 };
    struct pair pair;
    static char written[SIZE], read[SIZE];
    uint64_t sent = 0, got = 0;
    bool waited = false;

    open_mutual(&pair, ours.nodes[0], ours.nodes[1]);
    for (unsigned index = 0; index < SIZE; index++)
        written[index] = (char)(index * 31);
    while (got < (uint64_t)SIZE * COUNT) {
        ssize_t moved = 0;
        while (sent < (uint64_t)SIZE * COUNT && (moved = tls_write(pair.ends[0], written, SIZE)) > 0) {
            assert_int_equal(moved, SIZE);
            sent += SIZE;
        }
        if (moved < 0) {
            assert_int_equal(moved, -EAGAIN);
            assert_true(tls_wants_write(pair.ends[0]));
            waited = true;
        }
        while ((moved = tls_read(pair.ends[1], read, SIZE)) > 0) {
            assert_memory_equal(read, written + got % SIZE, (size_t)moved < SIZE - got % SIZE ? (size_t)moved
                                                                                              : SIZE - got % SIZE);
            got += (uint64_t)moved;
        }
        assert_int_equal(moved, -EAGAIN);
    }
    assert_true(waited);
    close_pair(&pair);
}

static void test_wrong_ca(void **state)
{
    struct pair pair;
    struct id seen;

    open_mutual(&pair, ours.nodes[0], others.nodes[1]); /* the client sees a stranger */
    assert_int_equal(pair.results[0], -EKEYREJECTED);
    assert_string_equal(tls_reason(pair.ends[0]), "the certificate is signed by another CA");
    assert_int_equal(tls_peer_id(pair.ends[0], &seen), -ENOENT);
    assert_true(pair.results[1] < 0 && pair.results[1] != -EAGAIN);
    close_pair(&pair);
}

/* A stranger who believes our CA, so that only the server can refuse him. */
static void test_stranger_as_client(void **state)
{
    struct pair pair;
    struct tls_identity *stranger = NULL;
    struct err err;
    struct id id = id_random();
    char data[8];

    tls_identity_free(make_identity(&others, &id, "stranger")); /* leaves node.crt and node.key */
    write_file("ca.crt", ours.ca_cert, 0644);
    assert_int_equal(tls_identity_load(path_of("ca.crt"), path_of("node.crt"), path_of("node.key"), &stranger, &err), 0);
    open_mutual(&pair, stranger, ours.nodes[1]);
    assert_int_equal(pair.results[1], -EKEYREJECTED);
    assert_true(pair.results[0] < 0 || tls_read(pair.ends[0], data, sizeof(data)) < 0);
    close_pair(&pair);
    tls_identity_free(stranger);
}

static void test_client_without_certificate(void **state)
{
    struct pair pair;
    char data[8];

    open_pair(&pair);
    assert_int_equal(tls_new_enrol_client(pair.fds[0], ours.ca_sha256, &pair.ends[0]), 0);
    assert_int_equal(tls_new(ours.nodes[1], pair.fds[1], true, &pair.ends[1]), 0);
    shake_hands(&pair);
    assert_int_equal(pair.results[1], -EKEYREJECTED);
    assert_string_equal(tls_reason(pair.ends[1]), "the peer shows no certificate of this cluster");
    assert_true(pair.results[0] < 0 || tls_read(pair.ends[0], data, sizeof(data)) < 0);
    close_pair(&pair);
}

static void open_enrolment(struct pair *pair, const uint8_t sha256[static 32], const struct tls_identity *server)
{
    open_pair(pair);
    assert_int_equal(tls_new_enrol_client(pair->fds[0], sha256, &pair->ends[0]), 0);
    assert_int_equal(tls_new_enrol_server(server, pair->fds[1], &pair->ends[1]), 0);
    shake_hands(pair);
}

static void test_enrol(void **state)
{
    struct pair pair;
    struct id seen;
    char data[8] = "";

    open_enrolment(&pair, ours.ca_sha256, ours.nodes[1]);
    assert_int_equal(pair.results[0], 0);
    assert_int_equal(pair.results[1], 0);
    assert_int_equal(tls_peer_id(pair.ends[0], &seen), 0);
    assert_true(id_equal(&seen, &ours.ids[1]));
    assert_int_equal(tls_peer_id(pair.ends[1], &seen), -ENOENT);
    assert_int_equal(tls_write(pair.ends[0], "join", 4), 4);
    assert_int_equal(tls_read(pair.ends[1], data, sizeof(data)), 4);
    close_pair(&pair);
}

static void test_enrol_wrong_fingerprint(void **state)
{
    struct pair pair;

    open_enrolment(&pair, others.ca_sha256, ours.nodes[1]);
    assert_int_equal(pair.results[0], -EKEYREJECTED);
    assert_string_equal(tls_reason(pair.ends[0]), "the server's CA is not the one that the token names");
    assert_int_not_equal(pair.results[1], 0);
    close_pair(&pair);
}

static gnutls_datum_t datum_of(const char *text)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)text, .size = (unsigned)strlen(text)};
}

/* Someone who shows our CA, which is no secret, behind a leaf that another CA signed. Loading such files drops the CA
 * that does not fit, so the impostor's credentials are put together by hand; they own chain and key. */
static void make_impostor(struct tls_identity *ret)
{
    gnutls_privkey_t private_key;
    gnutls_pcert_st chain[2];
    struct err err;
    struct id id = id_random();
    char *key = NULL, *cert = NULL;

    tls_identity_free(make_identity(&others, &id, "impostor")); /* leaves node.crt and node.key */
    assert_int_equal(files_read(path_of("node.key"), 65536, &key, NULL, &err), 0);
    assert_int_equal(files_read(path_of("node.crt"), 65536, &cert, NULL, &err), 0);
    gnutls_datum_t key_datum = datum_of(key), leaf_datum = datum_of(cert), ca_datum = datum_of(ours.ca_cert);
    assert_int_equal(gnutls_privkey_init(&private_key), 0);
    assert_int_equal(gnutls_privkey_import_x509_raw(private_key, &key_datum, GNUTLS_X509_FMT_PEM, NULL, 0), 0);
    assert_int_equal(gnutls_pcert_import_x509_raw(&chain[0], &leaf_datum, GNUTLS_X509_FMT_PEM, 0), 0);
    assert_int_equal(gnutls_pcert_import_x509_raw(&chain[1], &ca_datum, GNUTLS_X509_FMT_PEM, 0), 0);
    assert_int_equal(gnutls_certificate_allocate_credentials(&ret->credentials), 0);
    assert_true(gnutls_certificate_set_key(ret->credentials, NULL, 0, chain, 2, private_key) >= 0);
    pki_free_secret(key);
    free(cert);
}

static void test_enrol_borrowed_ca(void **state)
{
    struct tls_identity impostor;
    struct pair pair;

    make_impostor(&impostor);
    open_enrolment(&pair, ours.ca_sha256, &impostor);
    assert_int_equal(pair.results[0], -EKEYREJECTED);
    assert_string_equal(tls_reason(pair.ends[0]), "the server's certificate is not signed by the CA that the token names");
    close_pair(&pair);
    gnutls_certificate_free_credentials(impostor.credentials);
}

/* A plain library client restricted to one version, against our server. */
static void *shake_plain(void *userdata)
{
    gnutls_session_t session = userdata;
    int result;

    do
        result = gnutls_handshake(session);
    while (result < 0 && !gnutls_error_is_fatal(result));
    return (void *)(intptr_t)result;
}

static int handshake_with_version(const char *priority, int *ret_server)
{
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session;
    pthread_t thread;
    int fds[2];
    struct tls *server = NULL;
    void *result;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(gnutls_certificate_allocate_credentials(&credentials), 0);
    assert_int_equal(gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL), 0);
    assert_int_equal(gnutls_priority_set_direct(session, priority, NULL), 0);
    assert_int_equal(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials), 0);
    gnutls_transport_set_int(session, fds[0]);
    assert_int_equal(tls_new_enrol_server(ours.nodes[1], fds[1], &server), 0);
    assert_int_equal(pthread_create(&thread, NULL, shake_plain, session), 0);
    *ret_server = tls_handshake(server);
    shutdown(fds[1], *ret_server < 0 ? SHUT_RDWR : SHUT_WR);
    pthread_join(thread, &result);
    tls_free(server);
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(credentials);
    close(fds[0]);
    close(fds[1]);
    return (int)(intptr_t)result;
}

static void test_only_tls13(void **state)
{
    int server = 0;

    assert_int_equal(handshake_with_version("NORMAL:-VERS-ALL:+VERS-TLS1.3", &server), 0);
    assert_int_equal(server, 0);
    assert_true(handshake_with_version("NORMAL:-VERS-ALL:+VERS-TLS1.2", &server) < 0);
    assert_true(server < 0);
}

static void test_blocking(void **state)
{
    int result = 0;

    assert_int_equal(handshake_with_version("NORMAL", &result), 0); /* both ends block in their own thread */
    assert_int_equal(result, 0);
}

static void test_identity_files(void **state)
{
    struct tls_identity *identity = NULL;
    struct err err;
    struct id id = id_random();
    char *key = NULL;

    tls_identity_free(make_identity(&ours, &id, "c"));
    assert_int_equal(chmod(path_of("node.key"), 0640), 0);
    assert_int_equal(tls_identity_load(path_of("ca.crt"), path_of("node.crt"), path_of("node.key"), &identity, &err), -EPERM);
    assert_non_null(strstr(err.text, "node.key"));
    assert_non_null(strstr(err.text, "0640"));
    assert_int_equal(pki_make_key(&key, &err), 0);
    write_file("node.key", key, 0600); /* another key than the certificate's */
    assert_int_equal(tls_identity_load(path_of("ca.crt"), path_of("node.crt"), path_of("node.key"), &identity, &err), -EINVAL);
    assert_non_null(strstr(err.text, "node.crt"));
    write_file("ca.crt", "nothing", 0644);
    assert_int_equal(tls_identity_load(path_of("ca.crt"), path_of("node.crt"), path_of("node.key"), &identity, &err), -EINVAL);
    assert_non_null(strstr(err.text, "ca.crt"));
    unlink(path_of("ca.crt"));
    assert_int_equal(tls_identity_load(path_of("ca.crt"), path_of("node.crt"), path_of("node.key"), &identity, &err), -ENOENT);
    assert_null(identity);
    pki_free_secret(key);
}

static void test_issue_refuses(void **state)
{
    static const char ed25519[] = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
                                   "-----END PUBLIC KEY-----\n"; /* Ed25519, RFC 8410 §10.1 */
    struct id id = id_random();
    struct err err;
    char *cert = NULL, *public_key = NULL;

    assert_int_equal(pki_public_key(ours.ca_key, &public_key, &err), 0);
    assert_non_null(strstr(public_key, "BEGIN PUBLIC KEY"));
    assert_int_equal(pki_issue(ours.ca_key, ours.ca_cert, ed25519, &id, "x", &cert, &err), -EINVAL);
    assert_non_null(strstr(err.text, "P-256"));
    assert_int_equal(pki_issue(ours.ca_key, ours.ca_cert, "nonsense", &id, "x", &cert, &err), -EINVAL);
    assert_int_equal(pki_issue(others.ca_key, ours.ca_cert, public_key, &id, "x", &cert, &err), -EINVAL);
    assert_non_null(strstr(err.text, "CA key"));
    assert_int_equal(pki_public_key("nonsense", &cert, &err), -EINVAL);
    assert_null(cert);
    pki_free_secret(NULL);
    free(public_key);
}

static int set_up(void **state)
{
    if (mkdtemp(folder) == NULL || seal_init() < 0)
        return -1;
    ours = make_cluster("ours");
    others = make_cluster("others");
    return 0;
}

static int tear_down(void **state)
{
    free_cluster(&ours);
    free_cluster(&others);
    unlink(path_of("ca.crt"));
    unlink(path_of("node.crt"));
    unlink(path_of("node.key"));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutual),
        cmocka_unit_test(test_cut_is_no_end),
        cmocka_unit_test(test_full_socket),
        cmocka_unit_test(test_wrong_ca),
        cmocka_unit_test(test_stranger_as_client),
        cmocka_unit_test(test_client_without_certificate),
        cmocka_unit_test(test_enrol),
        cmocka_unit_test(test_enrol_wrong_fingerprint),
        cmocka_unit_test(test_enrol_borrowed_ca),
        cmocka_unit_test(test_only_tls13),
        cmocka_unit_test(test_blocking),
        cmocka_unit_test(test_identity_files),
        cmocka_unit_test(test_issue_refuses),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
