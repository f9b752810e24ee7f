/* Parses and writes iSCSI key=value text; every byte of it may come from a stranger. */
#include "storaged/iscsi/iscsi_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_key(const char *key, size_t size)
{
    if (size == 0 || size > ISCSI_TEXT_KEY_MAX)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (key[i] <= ' ' || key[i] > '~')
            return false;
    }
    return true;
}

/* Values are UTF-8 in places (aliases): only control characters are refused, they would forge log lines. */
static bool is_value(const char *value)
{
    for (; *value; value++) {
        if ((unsigned char)*value < ' ' || *value == 0x7f)
            return false;
    }
    return true;
}

static bool has_key(const struct iscsi_text *text, const char *key)
{
    for (unsigned i = 0; i < text->count; i++)
        if (strcmp(text->pairs[i].key, key) == 0)
            return true;
    return false;
}

int iscsi_text_parse(char *data, size_t size, struct iscsi_text *ret)
{
    ret->count = 0;
    for (char *at = data, *end = data + size; at < end;) {
        char *stop = memchr(at, 0, (size_t)(end - at));
        if (!stop)
            return -EPROTO;
        if (stop == at) { /* padding that some initiators count in */
            at++;
            continue;
        }
        char *equals = memchr(at, '=', (size_t)(stop - at));
        if (!equals || !is_key(at, (size_t)(equals - at)) || !is_value(equals + 1) || ret->count == ISCSI_TEXT_PAIRS_MAX)
            return -EPROTO;
        *equals = 0;
        if (has_key(ret, at)) /* RFC 7143 §6.2: no key twice */
            return -EPROTO;
        ret->pairs[ret->count++] = (struct iscsi_text_pair){.key = at, .value = equals + 1};
        at = stop + 1;
    }
    return 0;
}

const char *iscsi_text_take(struct iscsi_text *text, const char *key)
{
    for (unsigned i = 0; i < text->count; i++) {
        if (text->pairs[i].taken || strcmp(text->pairs[i].key, key) != 0)
            continue;
        text->pairs[i].taken = true;
        return text->pairs[i].value;
    }
    return NULL;
}

int iscsi_text_number(const char *value, uint32_t *ret)
{
    bool hexadecimal = value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
    const char *digits = hexadecimal ? value + 2 : value;
    uint64_t number = 0;
    if (!*digits)
        return -EPROTO;
    for (; *digits; digits++) {
        int digit = *digits >= '0' && *digits <= '9' ? *digits - '0'
                  : hexadecimal && *digits >= 'a' && *digits <= 'f' ? *digits - 'a' + 10
                  : hexadecimal && *digits >= 'A' && *digits <= 'F' ? *digits - 'A' + 10 : -1;
        if (digit < 0)
            return -EPROTO;
        number = number * (hexadecimal ? 16 : 10) + (unsigned)digit;
        if (number > UINT32_MAX)
            return -ERANGE;
    }
    *ret = (uint32_t)number;
    return 0;
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static int decode_hex(const char *text, uint8_t *ret, size_t capacity, size_t *ret_size)
{
    size_t digits = strlen(text), size = (digits + 1) / 2;
    if (digits == 0)
        return -EPROTO;
    if (size > capacity)
        return -EMSGSIZE;
    memset(ret, 0, size);
    for (size_t i = 0; i < digits; i++) { /* an odd count means a leading zero */
        int digit = hex_digit(text[digits - 1 - i]);
        if (digit < 0)
            return -EPROTO;
        ret[size - 1 - i / 2] |= (uint8_t)(digit << (i % 2 ? 4 : 0));
    }
    *ret_size = size;
    return 0;
}

static int base64_digit(char digit)
{
    if (digit >= 'A' && digit <= 'Z')
        return digit - 'A';
    if (digit >= 'a' && digit <= 'z')
        return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9')
        return digit - '0' + 52;
    return digit == '+' ? 62 : digit == '/' ? 63 : -1;
}

static int decode_base64(const char *text, uint8_t *ret, size_t capacity, size_t *ret_size)
{
    size_t length = strlen(text), size = 0;
    uint32_t bits = 0;
    if (length == 0 || length % 4)
        return -EPROTO;
    for (size_t pads = 0; pads < 2 && text[length - 1] == '='; pads++)
        length--;
    for (size_t i = 0; i < length; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0)
            return -EPROTO;
        bits = bits << 6 | (unsigned)digit;
        if (i % 4 == 0)
            continue;
        if (size == capacity)
            return -EMSGSIZE;
        ret[size++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    *ret_size = size;
    return 0;
}

int iscsi_text_binary(const char *value, uint8_t *ret, size_t capacity, size_t *ret_size)
{
    if (value[0] == '0' && (value[1] == 'x' || value[1] == 'X'))
        return decode_hex(value + 2, ret, capacity, ret_size);
    if (value[0] == '0' && (value[1] == 'b' || value[1] == 'B'))
        return decode_base64(value + 2, ret, capacity, ret_size);
    return -EPROTO;
}

static bool item_is(const char *item, size_t size, const char *wanted)
{
    return strlen(wanted) == size && memcmp(item, wanted, size) == 0;
}

bool iscsi_text_list_has(const char *list, const char *item)
{
    const char *known[] = {item, NULL};
    return iscsi_text_list_choose(list, known) != NULL;
}

const char *iscsi_text_list_choose(const char *list, const char *const *known)
{
    for (const char *item = list;;) {
        size_t size = strcspn(item, ",");
        for (const char *const *candidate = known; *candidate; candidate++) {
            if (item_is(item, size, *candidate))
                return *candidate;
        }
        if (!item[size])
            return NULL;
        item += size + 1;
    }
}

void iscsi_text_put(struct iscsi_text_writer *writer, const char *key, const char *format, ...)
{
    size_t room = writer->size - writer->used, key_size = strlen(key) + 1;
    va_list arguments;
    va_start(arguments, format);
    int size = key_size < room ? vsnprintf(writer->data + writer->used + key_size, room - key_size, format, arguments) : -1;
    va_end(arguments);
    if (size < 0 || key_size + (size_t)size >= room) {
        writer->full = true;
        return;
    }
    memcpy(writer->data + writer->used, key, key_size - 1);
    writer->data[writer->used + key_size - 1] = '=';
    writer->used += key_size + (size_t)size + 1; /* with its NUL */
}

void iscsi_text_put_binary(struct iscsi_text_writer *writer, const char *key, const uint8_t *data, size_t size)
{
    char text[2 * 256 + 1];
    if (size > 256) {
        writer->full = true;
        return;
    }
    for (size_t i = 0; i < size; i++)
        snprintf(text + 2 * i, 3, "%02x", data[i]);
    text[2 * size] = 0;
    iscsi_text_put(writer, key, "0x%s", text);
}
