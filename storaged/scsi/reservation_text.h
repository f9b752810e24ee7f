/* Persistent reservations as the text that is kept with the group (lun.h: state "reservations"). */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "storaged/scsi/reservation_core.h"

/* -EBADMSG: it is no such text, or what it says cannot be; then *ret is left alone. */
int reservation_decode(const char *text, struct reservation_state *ret);
/* Returns the length, or -ENOSPC (with the NUL it does not fit), -ENOMEM, -EINVAL (an initiator's name is no UTF-8). */
int reservation_encode(const struct reservation_state *state, char *ret, size_t size);
/* A nexus as members of an object, for texts that name one. */
json_t *reservation_nexus_put(json_t *object, const struct reservation_nexus *nexus);
bool reservation_nexus_get(const json_t *object, struct reservation_nexus *ret);
