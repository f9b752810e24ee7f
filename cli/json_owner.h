/* Scope-bound ownership of a JSON value. */
#pragma once

#include <jansson.h>

#include "common/cleanup.h"

static inline void json_owner_release(json_t **value) { json_decref(*value); }

#define json_owner cleanup(json_owner_release)
