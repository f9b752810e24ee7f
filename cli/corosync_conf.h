/* Writes corosync's configuration for the pair: the same file on both nodes, made from hci.conf. */
#pragma once

#include <stddef.h>

#include "common/err.h"
#include "common/site.h"

#define COROSYNC_CONF_MAX 8192
#define COROSYNC_AUTHKEY_SIZE 256

/* The text of corosync.conf; two nodes with nodeid 1 and 2 in the order of their ids, one knet link for each of the
 * site's. -EINVAL with a sentence when the nodes do not have the same number of links. */
int corosync_conf_format(const struct site *site, char ret_text[static COROSYNC_CONF_MAX], struct err *err);
