/* Bounded cursors: reads and writes that know where their buffer ends. */
#include "common/bytes.h"

#include <string.h>

#include "common/check.h"

struct bytes_reader bytes_reader_of(const void *data, size_t size)
{
    check(data != NULL || size == 0);
    const uint8_t *start = data;
    return (struct bytes_reader){.position = start, .end = size == 0 ? start : start + size};
}

size_t bytes_left(const struct bytes_reader *reader)
{
    return reader->failed || reader->position == reader->end ? 0 : (size_t)(reader->end - reader->position);
}

const uint8_t *bytes_take(struct bytes_reader *reader, size_t size)
{
    if (reader->failed || size > bytes_left(reader)) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *taken = reader->position;
    if (size > 0)
        reader->position += size;
    return taken;
}

void bytes_get(struct bytes_reader *reader, void *ret, size_t size)
{
    const uint8_t *taken = bytes_take(reader, size);
    if (size == 0)
        return;
    if (taken != NULL)
        memcpy(ret, taken, size);
    else
        memset(ret, 0, size);
}

static uint64_t get_little_endian(struct bytes_reader *reader, size_t size)
{
    const uint8_t *taken = bytes_take(reader, size);
    uint64_t value = 0;

    if (taken == NULL)
        return 0;
    for (size_t index = size; index > 0; index--)
        value = value << 8 | taken[index - 1];
    return value;
}

uint8_t bytes_get_u8(struct bytes_reader *reader) { return (uint8_t)get_little_endian(reader, 1); }
uint16_t bytes_get_u16(struct bytes_reader *reader) { return (uint16_t)get_little_endian(reader, 2); }
uint32_t bytes_get_u32(struct bytes_reader *reader) { return (uint32_t)get_little_endian(reader, 4); }
uint64_t bytes_get_u64(struct bytes_reader *reader) { return get_little_endian(reader, 8); }

bool bytes_done(const struct bytes_reader *reader)
{
    return !reader->failed && reader->position == reader->end;
}

struct bytes_writer bytes_writer_of(void *data, size_t size)
{
    check(data != NULL || size == 0);
    uint8_t *start = data;
    return (struct bytes_writer){.start = start, .position = start, .end = size == 0 ? start : start + size};
}

size_t bytes_written(const struct bytes_writer *writer)
{
    return writer->position == writer->start ? 0 : (size_t)(writer->position - writer->start);
}

/* Once a write failed nothing more is written: a gap in the middle would be worse than a short message. */
void bytes_put(struct bytes_writer *writer, const void *data, size_t size)
{
    if (writer->failed)
        return;
    if (size == 0)
        return;
    if (writer->position == NULL || size > (size_t)(writer->end - writer->position)) {
        writer->failed = true;
        return;
    }
    memcpy(writer->position, data, size);
    writer->position += size;
}

static void put_little_endian(struct bytes_writer *writer, uint64_t value, size_t size)
{
    uint8_t encoded[sizeof(value)];

    for (size_t index = 0; index < size; index++)
        encoded[index] = (uint8_t)(value >> (8 * index));
    bytes_put(writer, encoded, size);
}

void bytes_put_u8(struct bytes_writer *writer, uint8_t value) { put_little_endian(writer, value, 1); }
void bytes_put_u16(struct bytes_writer *writer, uint16_t value) { put_little_endian(writer, value, 2); }
void bytes_put_u32(struct bytes_writer *writer, uint32_t value) { put_little_endian(writer, value, 4); }
void bytes_put_u64(struct bytes_writer *writer, uint64_t value) { put_little_endian(writer, value, 8); }
