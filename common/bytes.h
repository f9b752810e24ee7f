/* Bounded cursors over bytes that come from or go to outside: no read or write passes the end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads are little-endian unless named _be. After the first read past the end `failed` stays set and
 * every further read gives zero, so that a decoder checks once, at its end. */
struct bytes_reader {
    const uint8_t *position;
    const uint8_t *end;
    bool failed;
};

struct bytes_writer {
    uint8_t *start;
    uint8_t *position;
    uint8_t *end;
    bool failed; /* a write did not fit: nothing of it was written */
};

struct bytes_reader bytes_reader_of(const void *data, size_t size);
size_t bytes_left(const struct bytes_reader *reader);
uint8_t bytes_get_u8(struct bytes_reader *reader);
uint16_t bytes_get_u16(struct bytes_reader *reader);
uint32_t bytes_get_u32(struct bytes_reader *reader);
uint64_t bytes_get_u64(struct bytes_reader *reader);
/* Copies `size` bytes; on failure fills with zeros. */
void bytes_get(struct bytes_reader *reader, void *ret, size_t size);
/* A pointer into the buffer, or NULL (and failed) when fewer than `size` bytes are left. */
const uint8_t *bytes_take(struct bytes_reader *reader, size_t size);
/* True when nothing failed and nothing is left over. */
bool bytes_done(const struct bytes_reader *reader);

struct bytes_writer bytes_writer_of(void *data, size_t size);
size_t bytes_written(const struct bytes_writer *writer);
void bytes_put_u8(struct bytes_writer *writer, uint8_t value);
void bytes_put_u16(struct bytes_writer *writer, uint16_t value);
void bytes_put_u32(struct bytes_writer *writer, uint32_t value);
void bytes_put_u64(struct bytes_writer *writer, uint64_t value);
void bytes_put(struct bytes_writer *writer, const void *data, size_t size);

/* Unchecked big-endian access at a fixed place of a buffer known to be large enough (iSCSI, SCSI). */
static inline uint16_t be16_at(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static inline uint32_t be24_at(const uint8_t *at) { return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2]; }
static inline uint32_t be32_at(const uint8_t *at) { return (uint32_t)be16_at(at) << 16 | be16_at(at + 2); }
static inline uint64_t be64_at(const uint8_t *at) { return (uint64_t)be32_at(at) << 32 | be32_at(at + 4); }
static inline void put_be16(uint8_t *at, uint16_t value) { at[0] = (uint8_t)(value >> 8); at[1] = (uint8_t)value; }
static inline void put_be24(uint8_t *at, uint32_t value) { at[0] = (uint8_t)(value >> 16); put_be16(at + 1, (uint16_t)value); }
static inline void put_be32(uint8_t *at, uint32_t value) { put_be16(at, (uint16_t)(value >> 16)); put_be16(at + 2, (uint16_t)value); }
static inline void put_be64(uint8_t *at, uint64_t value) { put_be32(at, (uint32_t)(value >> 32)); put_be32(at + 4, (uint32_t)value); }
