/* Enrolment at the witness: TLS on TCP, one JSON line in, one out; a one-time token admits one cluster. Served by a thread
 * of its own, so that no stranger's handshake delays a lease. */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/token.h"
#include "witness/server.h"

#define ENROL_CONNECTIONS_MAX 16u
#define ENROL_PER_ADDRESS_MAX 4u
#define ENROL_HANDSHAKE_RATE 20u /* new connections a second, from everybody */
#define ENROL_LINE_MAX (64u * 1024)
#define ENROL_TIMEOUT_S 10u
#define ENROL_TOKEN_LIFE_S 3600

struct enrol;

/* Makes the witness's own CA and certificate in `folder` on the first start. `event` is the server's loop, where records are
 * changed; `server`, `store` and `counters` are borrowed. Signals must be blocked before: the thread takes none. */
int enrol_new(sd_event *event, struct server *server, struct store *store, struct counters *counters, const char *folder,
              const char *address, uint16_t port, struct enrol **ret, struct err *err);
void enrol_free(struct enrol *enrol);
/* A new token, valid once and for an hour; only its hash is kept. */
int enrol_new_token(struct enrol *enrol, char ret_text[static TOKEN_TEXT_SIZE], struct err *err);
