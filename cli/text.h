/* Small texts of the command line and of enrolment: names, addresses with ports, bytes as hexadecimal digits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/err.h"

struct address {
    char host[64]; /* numeric, without brackets */
    uint16_t port;
    struct sockaddr_storage socket;
    socklen_t socket_size;
};

/* "10.0.0.1", "10.0.0.1:7204", "fd00::1", "[fd00::1]:7204". Only numbers: what a node needs at three in the morning
 * must not depend on a name server. `what` names the value in the sentence ("witness address"). */
int address_parse(const char *what, const char *text, uint16_t default_port, struct address *ret, struct err *err);
/* "10.0.0.1:7204" or "[fd00::1]:7204", as address_parse reads it. */
void address_format(const struct address *address, char *text, size_t size);

/* 1 to 63 of a-z, 0-9 and dashes, beginning and ending with a letter or digit. */
int name_check(const char *what, const char *text, struct err *err);

/* `text` has room for 2 * size + 1. */
void hex_format(const void *data, size_t size, char *text);
/* Exactly `size` bytes; -EINVAL otherwise. */
int hex_parse(const char *text, void *ret, size_t size);
