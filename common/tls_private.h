/* What tls.c and tls_identity.c share. Private to them. */
#pragma once

#include <gnutls/gnutls.h>

struct tls_identity {
    gnutls_certificate_credentials_t credentials;
};
