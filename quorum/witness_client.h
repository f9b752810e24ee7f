/* The conversation with the witness: leases every L/4, compare-and-swaps, and the records this node may not know. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/control.h"
#include "common/err.h"
#include "quorum/wire.h"

struct daemon;
struct witness_client;

#define WITNESS_CAS_MAX 64u
#define WITNESS_RECORDS_KNOWN 64u
#define WITNESS_REPEAT_MS 150u
#define WITNESS_GIVE_UP_MS 2000u

int witness_client_new(struct daemon *daemon, struct witness_client **ret, struct err *err);
void witness_client_free(struct witness_client *client);
/* Asks; the request is answered when W has, or after WITNESS_GIVE_UP_MS with "no_answer". `cas` gives group, from, to and
 * was_primary. */
void witness_client_cas(struct witness_client *client, const struct wire_message *cas, struct control_request *request);
/* storaged has applied every record up to `counter` (it may have seen more than this W holds: R5). */
void witness_client_note_counter(struct witness_client *client, uint64_t counter);
/* {"counter":…,"records":[…]}: all that is known; NULL when W has not told yet. A new reference. */
json_t *witness_client_records(const struct witness_client *client);
bool witness_client_is_reachable(const struct witness_client *client);
/* For `status`. */
json_t *witness_client_status(const struct witness_client *client);
