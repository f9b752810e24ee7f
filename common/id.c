/* Random UUIDs (RFC 9562 version 4) and their canonical text. */
#include "common/id.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/check.h"

struct id id_random(void)
{
    struct id id;
    size_t filled = 0;

    while (filled < sizeof(id.bytes)) {
        ssize_t got = getrandom(id.bytes + filled, sizeof(id.bytes) - filled, 0);
        check(got > 0 || errno == EINTR); /* the kernel's generator has no other way to fail */
        if (got > 0)
            filled += (size_t)got;
    }
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | 0x40); /* version 4 */
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80); /* variant 10 */
    return id;
}

bool id_is_null(const struct id *id)
{
    static const struct id null_id;
    return id_equal(id, &null_id);
}

bool id_equal(const struct id *left, const struct id *right)
{
    return id_compare(left, right) == 0;
}

int id_compare(const struct id *left, const struct id *right)
{
    return memcmp(left->bytes, right->bytes, sizeof(left->bytes));
}

static bool is_dash_place(size_t place)
{
    return place == 8 || place == 13 || place == 18 || place == 23;
}

const char *id_format(const struct id *id, char text[static ID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    size_t place = 0;

    for (size_t index = 0; index < sizeof(id->bytes); index++) {
        if (is_dash_place(place))
            text[place++] = '-';
        text[place++] = digits[id->bytes[index] >> 4];
        text[place++] = digits[id->bytes[index] & 0x0f];
    }
    text[place++] = '\0';
    check(place == ID_TEXT_SIZE);
    return text;
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

int id_parse(const char *text, struct id *ret)
{
    struct id id;
    size_t place = 0;

    if (text == NULL || strlen(text) != ID_TEXT_SIZE - 1)
        return -EINVAL;
    for (size_t index = 0; index < sizeof(id.bytes); index++) {
        if (is_dash_place(place) && text[place++] != '-')
            return -EINVAL;
        int high = hex_digit(text[place++]);
        int low = hex_digit(text[place++]);
        if (high < 0 || low < 0)
            return -EINVAL;
        id.bytes[index] = (uint8_t)(high << 4 | low);
    }
    *ret = id;
    return 0;
}
