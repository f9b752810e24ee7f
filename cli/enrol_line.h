/* JSON lines over TLS with a deadline: how hosts talk during enrolment, before they share certificates. */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "cli/text.h"
#include "common/err.h"
#include "common/tls.h"

#define ENROL_LINE_MAX (64u * 1024)
#define ENROL_CONNECTION_MS 10000u /* one connection, from connect to the last answer */

/* One connection. Whoever fills it calls enrol_line_close. Zero-initialised with fd -1 is closed. */
struct enrol_line {
    int fd;
    struct tls *tls;
    uint64_t deadline_ms; /* clock_boottime_ms: after it everything fails with -ETIMEDOUT */
    char other[80];       /* "10.0.0.1:7204", for sentences */
    char *buffer;         /* ENROL_LINE_MAX bytes, what was received beyond the last line first */
    size_t used;
};

/* Connects and shakes hands with the host whose CA has this fingerprint. -ECONNREFUSED, -ETIMEDOUT, -EHOSTUNREACH…:
 * not reachable; -EBADE: somebody else answered. *ret_round_trip_ms (may be NULL): how long the connection took. */
int enrol_line_connect(const struct address *address, const uint8_t ca_sha256[static 32], struct enrol_line *ret,
                       unsigned *ret_round_trip_ms, struct err *err);
/* The server's side of an accepted, non-blocking socket, which it takes over (also on failure). */
int enrol_line_accept(int fd, const struct tls_identity *identity, const char *other, struct enrol_line *ret,
                      struct err *err);
void enrol_line_close(struct enrol_line *line);

/* `message` is borrowed. */
int enrol_line_send(struct enrol_line *line, const json_t *message, struct err *err);
/* -EPROTO when the line is too long or no JSON object, -ECONNRESET when the other closed. */
int enrol_line_receive(struct enrol_line *line, json_t **ret, struct err *err);
/* Sends a request and gives its "result"; the other's {"error"} comes back as -EREMOTEIO with its code and sentence. */
int enrol_line_ask(struct enrol_line *line, const json_t *request, json_t **ret_result, struct err *err);
