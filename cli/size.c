/* Sizes as people write and read them. */
#include "cli/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char size_units[] = "KMGTP"; /* 2^10, 2^20, … */

static int refuse(struct err *err, const char *text, const char *why)
{
    return err_set(err, -EINVAL, "invalid",
                   "size '%.64s': %s; write a whole number and K, M, G or T, such as 10G (10 GiB)", text, why);
}

int size_parse(const char *text, uint64_t *ret_bytes, struct err *err)
{
    const char *position = text;
    uint64_t number = 0;
    if (!isdigit((unsigned char)*position))
        return refuse(err, text, "it does not begin with a number");
    for (; isdigit((unsigned char)*position); position++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*position - '0'), &number))
            return refuse(err, text, "it is too large");
    }
    if (!*position)
        return refuse(err, text, "it has no unit");
    const char *unit = strchr(size_units, toupper((unsigned char)*position));
    if (!unit)
        return refuse(err, text,
                      *position == '.' || *position == ',' ? "it is not a whole number" : "its unit is not known");
    position++;
    if (!strcasecmp(position, "B"))
        return refuse(err, text, "decimal units are not used here");
    if (*position && strcasecmp(position, "iB"))
        return refuse(err, text, "something follows the unit");
    unsigned shift = 10 * (unsigned)(unit - size_units + 1);
    if (number == 0)
        return refuse(err, text, "it is nothing");
    if (number > (UINT64_C(1) << 62) >> shift)
        return refuse(err, text, "it is too large");
    *ret_bytes = number << shift;
    return 0;
}

const char *size_format(uint64_t bytes, char text[static SIZE_TEXT_MAX])
{
    unsigned power = 0;
    while (power < sizeof size_units - 1 && bytes >> (10 * (power + 1)))
        power++;
    if (power == 0) {
        snprintf(text, SIZE_TEXT_MAX, "%u B", (unsigned)bytes);
        return text;
    }
    /* Rounded down: never say that more is there than is. */
    uint64_t whole = bytes >> (10 * power);
    uint64_t part = bytes & ((UINT64_C(1) << (10 * power)) - 1);
    unsigned tenth = (unsigned)((part >> (10 * (power - 1))) * 10 >> 10);
    if (tenth)
        snprintf(text, SIZE_TEXT_MAX, "%u.%u %ciB", (unsigned)whole, tenth, size_units[power - 1]);
    else
        snprintf(text, SIZE_TEXT_MAX, "%u %ciB", (unsigned)whole, size_units[power - 1]);
    return text;
}
