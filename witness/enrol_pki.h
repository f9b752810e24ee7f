/* The witness's own CA and certificate, made once in its state folder. */
#pragma once

#include "common/err.h"
#include "common/id.h"
#include "common/tls.h"

int enrol_load_identity(const char *folder, const struct id *witness, struct tls_identity **ret,
                        uint8_t ret_ca_sha256[static 32], struct err *err);
