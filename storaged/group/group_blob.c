/* A group's blob: encode and decode. */
#include "storaged/group/group_blob.h"

#include <errno.h>
#include <string.h>

#define VERSION 1u

static void put_record(struct bytes_writer *writer, const struct authority_record *record)
{
    bytes_put_u64(writer, record->epoch);
    bytes_put_u8(writer, record->members);
    bytes_put_u64(writer, record->pending);
    bytes_put_u8(writer, record->incomplete);
    bytes_put_u8(writer, record->founding);
    bytes_put_u8(writer, record->was_primary);
    bytes_put(writer, &record->session, sizeof record->session);
    bytes_put(writer, &record->previous_session, sizeof record->previous_session);
}

static uint8_t get_u8_up_to(struct bytes_reader *reader, uint8_t most)
{
    uint8_t value = bytes_get_u8(reader);
    reader->failed |= value > most;
    return value;
}

static void get_record(struct bytes_reader *reader, struct authority_record *ret)
{
    ret->epoch = bytes_get_u64(reader);
    ret->members = get_u8_up_to(reader, AUTHORITY_BOTH);
    ret->pending = bytes_get_u64(reader);
    ret->incomplete = get_u8_up_to(reader, 1);
    ret->founding = get_u8_up_to(reader, AUTHORITY_FOLLOWER);
    ret->was_primary = get_u8_up_to(reader, 1);
    bytes_get(reader, &ret->session, sizeof ret->session);
    bytes_get(reader, &ret->previous_session, sizeof ret->previous_session);
    reader->failed |= ret->pending != 0 && ret->pending != ret->epoch + 1;
}

static void get_name(struct bytes_reader *reader, char ret[static GROUP_NAME_SIZE])
{
    bytes_get(reader, ret, GROUP_NAME_SIZE);
    reader->failed |= memchr(ret, 0, GROUP_NAME_SIZE) == NULL || ret[0] == 0;
}

int group_blob_encode(const struct group_blob *blob, void *out, uint32_t size)
{
    struct bytes_writer writer = bytes_writer_of(out, size);
    bytes_put_u32(&writer, VERSION);
    put_record(&writer, &blob->record);
    bytes_put(&writer, blob->name, sizeof blob->name);
    bytes_put_u8(&writer, (uint8_t)blob->volume_count);
    for (unsigned i = 0; i < blob->volume_count; i++) {
        bytes_put(&writer, &blob->volumes[i].id, sizeof blob->volumes[i].id);
        bytes_put(&writer, blob->volumes[i].name, sizeof blob->volumes[i].name);
        bytes_put_u64(&writer, blob->volumes[i].size_bytes);
    }
    metadata_encode(&blob->metadata, &writer);
    return writer.failed ? -ENOSPC : (int)bytes_written(&writer);
}

int group_blob_decode(const void *data, uint32_t size, struct group_blob *ret)
{
    struct bytes_reader reader = bytes_reader_of(data, size);
    struct group_blob blob = {0};
    reader.failed |= bytes_get_u32(&reader) != VERSION;
    get_record(&reader, &blob.record);
    get_name(&reader, blob.name);
    blob.volume_count = get_u8_up_to(&reader, GROUP_VOLUMES_MAX);
    for (unsigned i = 0; i < blob.volume_count && !reader.failed; i++) {
        bytes_get(&reader, &blob.volumes[i].id, sizeof blob.volumes[i].id);
        get_name(&reader, blob.volumes[i].name);
        blob.volumes[i].size_bytes = bytes_get_u64(&reader);
    }
    if (reader.failed || metadata_decode(&reader, &blob.metadata) < 0)
        return -EBADMSG;
    if (!bytes_done(&reader)) {
        metadata_clear(&blob.metadata);
        return -EBADMSG;
    }
    *ret = blob;
    return 0;
}
