/* What a node keeps durably of a group besides its data: the authority record, the volumes and the metadata, as one
 * blob in the pool, so that none of them is ever newer than the others.
 *
 * Little-endian: u32 version (1) · record: u64 epoch, u8 members, u64 pending, u8 incomplete, u8 founding,
 * u8 was_primary, id session, id previous_session · char name[64] · u8 volume count · per volume: id, char name[64],
 * u64 size · metadata (metadata.h). Valid when every field is within its bounds and nothing is left over; the pool
 * checks that the bytes are those that were written. */
#pragma once

#include <stdint.h>

#include "common/id.h"
#include "quorum/authority_core.h"
#include "storaged/group/metadata.h"

#define GROUP_VOLUMES_MAX 8u
#define GROUP_NAME_SIZE 64u

struct group_blob_volume {
    struct id id;
    char name[GROUP_NAME_SIZE];
    uint64_t size_bytes;
};

struct group_blob {
    struct authority_record record;
    char name[GROUP_NAME_SIZE];
    unsigned volume_count;
    struct group_blob_volume volumes[GROUP_VOLUMES_MAX];
    struct metadata metadata; /* owned */
};

/* Returns the size, or -ENOSPC. */
int group_blob_encode(const struct group_blob *blob, void *out, uint32_t size);
/* 0 or -EBADMSG; metadata_clear(&ret->metadata) afterwards. */
int group_blob_decode(const void *data, uint32_t size, struct group_blob *ret);
