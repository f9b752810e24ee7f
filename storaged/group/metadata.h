/* A group's metadata: a small map of keys to texts with a version, changed by compare-and-swap (architecture:
 * "Configuration has one home"). Plain values; knows nothing of groups. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

#define METADATA_KEY_SIZE 80u /* "reservations." and a volume's name */
#define METADATA_ENTRIES_MAX 32u
#define METADATA_BYTES_MAX (40u * 1024) /* keys and texts together */
#define METADATA_CHANGES_MAX 16u

struct metadata_entry {
    char key[METADATA_KEY_SIZE];
    char *value; /* owned */
};

struct metadata {
    uint64_t version;
    unsigned count;
    struct metadata_entry entries[METADATA_ENTRIES_MAX];
};

struct metadata_change {
    char key[METADATA_KEY_SIZE];
    char *expected; /* owned; NULL: the key must be absent */
    char *value;    /* owned; NULL: the key is removed */
};

struct metadata_changes {
    unsigned count;
    struct metadata_change items[METADATA_CHANGES_MAX];
};

void metadata_clear(struct metadata *metadata);
int metadata_copy(const struct metadata *from, struct metadata *ret);
/* NULL when absent. */
const char *metadata_get(const struct metadata *metadata, const char *key);
/* NULL removes. -EINVAL: no key, or too long; -ENOSPC: the map would grow beyond its limits. */
int metadata_set(struct metadata *metadata, const char *key, const char *value);

void metadata_changes_clear(struct metadata_changes *changes);
/* -EINVAL, -ENOSPC, -ENOMEM. */
int metadata_changes_add(struct metadata_changes *changes, const char *key, const char *expected, const char *value);
/* All or nothing: *ret becomes the map with the changes, its version one higher. -ESTALE: an expectation fails. */
int metadata_apply(const struct metadata *from, const struct metadata_changes *changes, struct metadata *ret);

/* u64 version, u8 count, per entry u8 key length, key, u32 text length, text. */
void metadata_encode(const struct metadata *metadata, struct bytes_writer *writer);
/* *ret is empty before; -EBADMSG, and then it is empty again. */
int metadata_decode(struct bytes_reader *reader, struct metadata *ret);
void metadata_changes_encode(const struct metadata_changes *changes, struct bytes_writer *writer);
int metadata_changes_decode(struct bytes_reader *reader, struct metadata_changes *ret);
