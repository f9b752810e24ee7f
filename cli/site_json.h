/* hci.conf's content as JSON: what the first node hands to the joining one, and what `cluster show --json` prints. */
#pragma once

#include <jansson.h>

#include "common/site.h"

/* `self` is the index of the node that shall be "self" in the document. The caller owns the result. Without the paths
 * of this host (pki, state, run folder): these are each host's own. */
json_t *site_json_encode(const struct site *site, unsigned self);
/* Fills *ret, paths of this host excepted (left empty). -EINVAL with a sentence when a part is missing, too long or
 * wrong; *ret is then undefined. */
int site_json_decode(const json_t *document, struct site *ret, struct err *err);

/* {"to_peer","from_peer","to_witness","from_witness"}: hexadecimal keys. Wipe what you decode. */
json_t *secrets_json_encode(const struct site_secrets *secrets);
int secrets_json_decode(const json_t *document, struct site_secrets *ret);
