/* The metadata map: bounded, copied by value, the same bytes on disk and on the wire. */
#include "storaged/group/metadata.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"

void metadata_clear(struct metadata *metadata)
{
    for (unsigned i = 0; i < metadata->count; i++)
        free(metadata->entries[i].value);
    *metadata = (struct metadata){0};
}

int metadata_copy(const struct metadata *from, struct metadata *ret)
{
    struct metadata copy = {.version = from->version};
    for (unsigned i = 0; i < from->count; i++) {
        copy.entries[i] = from->entries[i];
        copy.entries[i].value = strdup(from->entries[i].value);
        if (!copy.entries[i].value) {
            metadata_clear(&copy);
            return -ENOMEM;
        }
        copy.count++;
    }
    *ret = copy;
    return 0;
}

static int find(const struct metadata *metadata, const char *key)
{
    for (unsigned i = 0; i < metadata->count; i++)
        if (strcmp(metadata->entries[i].key, key) == 0)
            return (int)i;
    return -1;
}

const char *metadata_get(const struct metadata *metadata, const char *key)
{
    int index = find(metadata, key);
    return index < 0 ? NULL : metadata->entries[index].value;
}

static size_t bytes_of(const struct metadata *metadata)
{
    size_t size = 0;
    for (unsigned i = 0; i < metadata->count; i++)
        size += strlen(metadata->entries[i].key) + strlen(metadata->entries[i].value);
    return size;
}

static void remove_at(struct metadata *metadata, int index)
{
    free(metadata->entries[index].value);
    metadata->entries[index] = metadata->entries[--metadata->count];
    metadata->entries[metadata->count] = (struct metadata_entry){0};
}

static bool key_is_valid(const char *key)
{
    size_t length = strlen(key);
    return length > 0 && length < METADATA_KEY_SIZE;
}

int metadata_set(struct metadata *metadata, const char *key, const char *value)
{
    if (!key_is_valid(key))
        return -EINVAL;
    int index = find(metadata, key);
    if (!value) {
        if (index >= 0)
            remove_at(metadata, index);
        return 0;
    }
    size_t others = bytes_of(metadata) - (index >= 0 ? strlen(key) + strlen(metadata->entries[index].value) : 0);
    if (others + strlen(key) + strlen(value) > METADATA_BYTES_MAX || (index < 0 && metadata->count == METADATA_ENTRIES_MAX))
        return -ENOSPC;
    char *copy = strdup(value);
    if (!copy)
        return -ENOMEM;
    if (index < 0) {
        index = (int)metadata->count++;
        strcpy(metadata->entries[index].key, key);
    } else {
        free(metadata->entries[index].value);
    }
    metadata->entries[index].value = copy;
    return 0;
}

/* ---- changes --------------------------------------------------------------------------------------------------------- */

void metadata_changes_clear(struct metadata_changes *changes)
{
    for (unsigned i = 0; i < changes->count; i++) {
        free(changes->items[i].expected);
        free(changes->items[i].value);
    }
    *changes = (struct metadata_changes){0};
}

int metadata_changes_add(struct metadata_changes *changes, const char *key, const char *expected, const char *value)
{
    if (!key_is_valid(key))
        return -EINVAL;
    if (changes->count == METADATA_CHANGES_MAX || (expected && strlen(expected) > METADATA_BYTES_MAX) ||
        (value && strlen(value) > METADATA_BYTES_MAX))
        return -ENOSPC;
    struct metadata_change change = {.expected = expected ? strdup(expected) : NULL, .value = value ? strdup(value) : NULL};
    if ((expected && !change.expected) || (value && !change.value)) {
        free(change.expected);
        free(change.value);
        return -ENOMEM;
    }
    strcpy(change.key, key);
    changes->items[changes->count++] = change;
    return 0;
}

int metadata_apply(const struct metadata *from, const struct metadata_changes *changes, struct metadata *ret)
{
    for (unsigned i = 0; i < changes->count; i++) {
        const char *current = metadata_get(from, changes->items[i].key), *expected = changes->items[i].expected;
        if ((current == NULL) != (expected == NULL) || (current && strcmp(current, expected) != 0))
            return -ESTALE;
    }
    struct metadata next = {0};
    int error = metadata_copy(from, &next);
    /* Removals first: a full map may trade one entry for another. */
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < changes->count && error == 0; i++)
            if ((changes->items[i].value != NULL) == (pass == 1))
                error = metadata_set(&next, changes->items[i].key, changes->items[i].value);
    if (error < 0) {
        metadata_clear(&next);
        return error;
    }
    next.version++;
    *ret = next;
    return 0;
}

/* ---- bytes ----------------------------------------------------------------------------------------------------------- */

static void put_key(struct bytes_writer *writer, const char *key)
{
    size_t length = strlen(key);
    bytes_put_u8(writer, (uint8_t)length);
    bytes_put(writer, key, length);
}

static void put_text(struct bytes_writer *writer, const char *text)
{
    size_t length = strlen(text);
    bytes_put_u32(writer, (uint32_t)length);
    bytes_put(writer, text, length);
}

static void get_key(struct bytes_reader *reader, char ret[static METADATA_KEY_SIZE])
{
    uint8_t length = bytes_get_u8(reader);
    const uint8_t *at = length < METADATA_KEY_SIZE ? bytes_take(reader, length) : NULL;
    if (!at || length == 0 || memchr(at, 0, length)) {
        reader->failed = true;
        return;
    }
    memcpy(ret, at, length);
    ret[length] = 0;
}

/* NULL and failed when it is not there, too long or no text. */
static char *get_text(struct bytes_reader *reader)
{
    uint32_t length = bytes_get_u32(reader);
    const uint8_t *at = length <= METADATA_BYTES_MAX ? bytes_take(reader, length) : NULL;
    if (!at || memchr(at, 0, length)) {
        reader->failed = true;
        return NULL;
    }
    char *text = strndup((const char *)at, length);
    reader->failed |= text == NULL;
    return text;
}

void metadata_encode(const struct metadata *metadata, struct bytes_writer *writer)
{
    bytes_put_u64(writer, metadata->version);
    bytes_put_u8(writer, (uint8_t)metadata->count);
    for (unsigned i = 0; i < metadata->count; i++) {
        put_key(writer, metadata->entries[i].key);
        put_text(writer, metadata->entries[i].value);
    }
}

int metadata_decode(struct bytes_reader *reader, struct metadata *ret)
{
    struct metadata metadata = {.version = bytes_get_u64(reader)};
    unsigned count = bytes_get_u8(reader);
    reader->failed |= count > METADATA_ENTRIES_MAX;
    for (unsigned i = 0; i < count && !reader->failed; i++) {
        char key[METADATA_KEY_SIZE] = "";
        get_key(reader, key);
        char *value = get_text(reader);
        if (!reader->failed && (find(&metadata, key) >= 0 || metadata_set(&metadata, key, value) < 0))
            reader->failed = true;
        free(value);
    }
    if (reader->failed) {
        metadata_clear(&metadata);
        return -EBADMSG;
    }
    *ret = metadata;
    return 0;
}

static void put_optional(struct bytes_writer *writer, const char *text)
{
    bytes_put_u8(writer, text != NULL);
    if (text)
        put_text(writer, text);
}

void metadata_changes_encode(const struct metadata_changes *changes, struct bytes_writer *writer)
{
    bytes_put_u8(writer, (uint8_t)changes->count);
    for (unsigned i = 0; i < changes->count; i++) {
        put_key(writer, changes->items[i].key);
        put_optional(writer, changes->items[i].expected);
        put_optional(writer, changes->items[i].value);
    }
}

static char *get_optional(struct bytes_reader *reader)
{
    uint8_t present = bytes_get_u8(reader);
    reader->failed |= present > 1;
    return present == 1 ? get_text(reader) : NULL;
}

int metadata_changes_decode(struct bytes_reader *reader, struct metadata_changes *ret)
{
    struct metadata_changes changes = {0};
    unsigned count = bytes_get_u8(reader);
    for (unsigned i = 0; i < count && !reader->failed; i++) {
        char key[METADATA_KEY_SIZE] = "";
        get_key(reader, key);
        char *expected = get_optional(reader), *value = get_optional(reader);
        if (!reader->failed && metadata_changes_add(&changes, key, expected, value) < 0)
            reader->failed = true;
        free(expected);
        free(value);
    }
    if (reader->failed) {
        metadata_changes_clear(&changes);
        return -EBADMSG;
    }
    *ret = changes;
    return 0;
}
