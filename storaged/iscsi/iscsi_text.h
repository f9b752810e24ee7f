/* The key=value text of login and text PDUs (RFC 7143 §6.1): parsing within limits, writing within limits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISCSI_TEXT_PAIRS_MAX 64u
#define ISCSI_TEXT_KEY_MAX 63u
#define ISCSI_TEXT_MAX 16384u /* of one request, over all its continued PDUs */

struct iscsi_text_pair {
    const char *key;
    const char *value;
    bool taken; /* for the reader's own use: this pair is dealt with */
};

struct iscsi_text {
    struct iscsi_text_pair pairs[ISCSI_TEXT_PAIRS_MAX];
    unsigned count;
};

/* Cuts `data` in place; the pairs point into it. -EPROTO when it is not a sequence of NUL-terminated key=value, or has a
 * key twice. */
int iscsi_text_parse(char *data, size_t size, struct iscsi_text *ret);
/* NULL when the key is not there. Marks it taken. */
const char *iscsi_text_take(struct iscsi_text *text, const char *key);
/* Decimal or 0x hexadecimal, whole string, at most UINT32_MAX. */
int iscsi_text_number(const char *value, uint32_t *ret);
/* 0x hexadecimal or 0b base64 (RFC 7143 §6.1 "binary-value"); -EPROTO, -EMSGSIZE. */
int iscsi_text_binary(const char *value, uint8_t *ret, size_t capacity, size_t *ret_size);
/* Does the comma-separated list contain the item? */
bool iscsi_text_list_has(const char *list, const char *item);
/* The first item of `list` that is one of `known` (NULL-terminated); NULL when none is. */
const char *iscsi_text_list_choose(const char *list, const char *const *known);

struct iscsi_text_writer {
    char *data;
    size_t size, used;
    bool full; /* something did not fit: nothing of it was written */
};

void iscsi_text_put(struct iscsi_text_writer *writer, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void iscsi_text_put_binary(struct iscsi_text_writer *writer, const char *key, const uint8_t *data, size_t size);
