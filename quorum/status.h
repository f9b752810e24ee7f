/* What `status` tells people. */
#pragma once

#include <jansson.h>

struct daemon;

json_t *quorum_status(struct daemon *daemon);
