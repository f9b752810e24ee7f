/* Names, addresses with ports, bytes as hexadecimal digits. */
#include "cli/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse_address(struct err *err, const char *what, const char *text)
{
    return err_set(err, -EINVAL, "invalid", "%s '%.80s' is no IP address; write it as 10.0.0.1 or 10.0.0.1:7204", what,
                   text);
}

static bool parse_port(const char *text, uint16_t *ret)
{
    char *end = NULL;
    if (*text < '0' || *text > '9')
        return false;
    unsigned long port = strtoul(text, &end, 10);
    if (*end || port < 1 || port > 65535)
        return false;
    *ret = (uint16_t)port;
    return true;
}

/* Splits "HOST:PORT" and "[HOST]:PORT"; an IPv6 address without brackets has no port. */
static bool split(const char *text, struct address *address)
{
    const char *host = text, *host_end = text + strlen(text), *port = NULL;
    if (*text == '[') {
        host = text + 1;
        host_end = strchr(host, ']');
        if (!host_end || (host_end[1] && host_end[1] != ':'))
            return false;
        port = host_end[1] ? host_end + 2 : NULL;
    } else if (strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
        host_end = strchr(text, ':');
        port = host_end + 1;
    }
    if ((size_t)(host_end - host) >= sizeof address->host)
        return false;
    snprintf(address->host, sizeof address->host, "%.*s", (int)(host_end - host), host);
    return !port || parse_port(port, &address->port);
}

int address_parse(const char *what, const char *text, uint16_t default_port, struct address *ret, struct err *err)
{
    struct address address = {.port = default_port};
    if (!split(text, &address))
        return refuse_address(err, what, text);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address.socket;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address.socket;
    if (inet_pton(AF_INET, address.host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(address.port);
        address.socket_size = sizeof *v4;
    } else if (inet_pton(AF_INET6, address.host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(address.port);
        address.socket_size = sizeof *v6;
    } else {
        return refuse_address(err, what, text);
    }
    *ret = address;
    return 0;
}

void address_format(const struct address *address, char *text, size_t size)
{
    bool brackets = strchr(address->host, ':');
    snprintf(text, size, "%s%s%s:%u", brackets ? "[" : "", address->host, brackets ? "]" : "", address->port);
}

static bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

int name_check(const char *what, const char *text, struct err *err)
{
    size_t length = strlen(text);
    bool good = length >= 1 && length <= 63 && is_letter_or_digit(text[0]) && is_letter_or_digit(text[length - 1]);
    for (size_t i = 0; good && i < length; i++)
        good = is_letter_or_digit(text[i]) || text[i] == '-';
    if (good)
        return 0;
    return err_set(err, -EINVAL, "invalid",
                   "%s '%.80s': use 1 to 63 of a-z, 0-9 and dashes, beginning and ending with a letter or digit", what,
                   text);
}

void hex_format(const void *data, size_t size, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * size] = 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int hex_parse(const char *text, void *ret, size_t size)
{
    if (!text || strlen(text) != 2 * size)
        return -EINVAL;
    for (size_t i = 0; i < 2 * size; i++)
        if (hex_digit(text[i]) < 0)
            return -EINVAL;
    uint8_t *bytes = ret;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    return 0;
}
