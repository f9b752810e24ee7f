/* Enrolment at the witness: TLS on TCP, one JSON line in, one out; a one-time token admits one cluster. */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/token.h"
#include "witness/server.h"

#define ENROL_CONNECTIONS_MAX 16u
#define ENROL_LINE_MAX (64u * 1024)
#define ENROL_TIMEOUT_S 10u
#define ENROL_TOKEN_LIFE_S 3600

struct enrol;

/* Makes the witness's own CA and certificate in `folder` on the first start. `server` and `store` are borrowed. */
int enrol_new(sd_event *event, struct server *server, struct store *store, const char *folder, const char *address,
              uint16_t port, struct enrol **ret, struct err *err);
void enrol_free(struct enrol *enrol);
/* A new token, valid once and for an hour; only its hash is kept. */
int enrol_new_token(struct enrol *enrol, char ret_text[static TOKEN_TEXT_SIZE], struct err *err);
