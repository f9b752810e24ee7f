/* Makes, restores and damages the image of a pool. */
#include "tests/fuzz/pool_image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storaged/crc32c.h"
#include "storaged/ring.h"

#define DISK_BYTES (256u << 20)
#define JOURNAL_BYTES (4u << 20)
#define VOLUME_BYTES (4u << 20)
#define PAGES_MAX 4096u

/* --- operations --------------------------------------------------------------------------------------------------- */

void pool_call_done(void *userdata, int result)
{
    struct pool_call *call = userdata;
    call->done = true;
    call->result = result;
    ring_stop(call->ring);
}

int pool_call_wait(struct pool_call *call)
{
    while (!call->done)
        check(ring_run(call->ring) == 0);
    return call->result;
}

static void io_done(struct pool_io *io, int result)
{
    pool_call_done(io->private_data, result);
}

int pool_call_io(struct pool_image *image, void (*start)(struct pool *pool, struct pool_io *io), struct pool *pool,
                 struct pool_volume *volume, uint64_t block, uint32_t count, uint8_t *data, bool dirty)
{
    struct pool_call call = {.ring = image->ring};
    struct pool_io io = {.done = io_done, .volume = volume, .block = block, .count = count, .data = data,
                         .dirty = dirty, .private_data = &call};
    start(pool, &io);
    return pool_call_wait(&call);
}

/* --- the image ---------------------------------------------------------------------------------------------------- */

static void fill(struct pool_image *image, struct pool *pool)
{
    static const char blob[] = "what a group keeps";
    uint8_t *data = NULL;
    check(posix_memalign((void **)&data, FORMAT_BLOCK, 64 * FORMAT_BLOCK) == 0);
    memset(data, 0x33, 64 * FORMAT_BLOCK);
    struct pool_call saved = {.ring = image->ring};
    pool_group_save(pool, &image->group, blob, sizeof(blob), pool_call_done, &saved);
    check(pool_call_wait(&saved) == 0);
    for (unsigned i = 0; i < POOL_IMAGE_VOLUMES; i++) {
        struct pool_call made = {.ring = image->ring};
        pool_volume_create(pool, &image->group, &image->volumes[i], VOLUME_BYTES, pool_call_done, &made);
        check(pool_call_wait(&made) == 0);
        struct pool_volume *volume = pool_volume_find(pool, &image->volumes[i]);
        check(pool_call_io(image, pool_write, pool, volume, 3, 4, data, true) == 0);
        check(pool_call_io(image, pool_write, pool, volume, 250, 12, data, false) == 0); /* over the end of an extent */
    }
    struct pool_call written = {.ring = image->ring};
    pool_checkpoint(pool, pool_call_done, &written);
    check(pool_call_wait(&written) == 0);
    struct pool_volume *first = pool_volume_find(pool, &image->volumes[0]);
    check(pool_call_io(image, pool_write, pool, first, 5, 2, data, true) == 0);
    check(pool_call_io(image, pool_write, pool, first, 600, 1, data, false) == 0);
    check(pool_call_io(image, pool_zero, pool, first, 3, 1, NULL, true) == 0);
    check(pool_call_io(image, pool_write, pool, first, 512, 40, data, false) == 0);
    free(data);
}

/* As a power cut would leave it. */
static void remember(struct pool_image *image)
{
    image->pages = malloc(PAGES_MAX * sizeof(*image->pages));
    check(image->pages);
    for (off_t at = lseek(image->fd, 0, SEEK_DATA); at >= 0; at = lseek(image->fd, at + FORMAT_BLOCK, SEEK_DATA)) {
        struct pool_image_page *page = &image->pages[image->page_count++];
        check(image->page_count <= PAGES_MAX);
        page->offset = (uint64_t)at;
        check(pread(image->fd, page->data, FORMAT_BLOCK, at) == FORMAT_BLOCK);
    }
    for (unsigned slot = 0; slot < 2; slot++) {
        struct format_super super;
        check(pread(image->fd, &super, sizeof(super), (off_t)FORMAT_SUPER_OFFSET(slot)) == sizeof(super));
        if (super.magic == FORMAT_SUPER_MAGIC && super.sequence >= image->super.sequence)
            image->super = super;
    }
    check(image->super.table_offset && image->super.journal_offset);
}

static struct pool_image *image_new(void)
{
    static struct pool_image image = {.group = {.bytes = {1}}, .volumes = {{.bytes = {2}}, {.bytes = {3}}}, .fd = -1};
    snprintf(image.path, sizeof(image.path), "%s/pool-%d", fuzz_folder(), (int)getpid());
    const char *path = image.path;
    struct pool_create_options options = {
        .paths = &path, .path_count = 1, .node = {.bytes = {9}}, .journal_bytes = JOURNAL_BYTES};
    struct pool *pool;
    struct id id;
    struct err err = {0};
    image.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    image.size = DISK_BYTES;
    check(image.fd >= 0 && ftruncate(image.fd, DISK_BYTES) == 0); /* one big hole */
    if (pool_create(&options, &id, &err) < 0)
        fprintf(stderr, "%s\n", err.text);
    check(!err.text[0] && ring_new(64, &image.ring) == 0 && pool_open(image.ring, &path, 1, &pool, &err) == 0);
    fill(&image, pool);
    remember(&image);
    pool_close(pool);
    return &image;
}

static void forget(void)
{
    unlink(pool_image_of_process()->path);
}

struct pool_image *pool_image_of_process(void)
{
    static struct pool_image *image;
    if (!image) {
        image = image_new();
        atexit(forget);
    }
    return image;
}

void pool_image_restore(struct pool_image *image)
{
    check(ftruncate(image->fd, 0) == 0 && ftruncate(image->fd, (off_t)image->size) == 0);
    for (size_t i = 0; i < image->page_count; i++)
        check(pwrite(image->fd, image->pages[i].data, FORMAT_BLOCK, (off_t)image->pages[i].offset) == FORMAT_BLOCK);
}

/* --- damage ------------------------------------------------------------------------------------------------------- */

/* `size` bytes at `data` whose checksum is the four bytes at `at`. */
static void mend(uint8_t *data, size_t size, size_t at)
{
    uint32_t crc = 0;
    memcpy(data + at, &crc, sizeof(crc));
    crc = crc32c(data, size);
    memcpy(data + at, &crc, sizeof(crc));
}

static void mend_slot(uint8_t *data)
{
    struct format_slot slot;
    memcpy(&slot, data, sizeof(slot));
    if (slot.size <= FORMAT_SLOT - sizeof(slot))
        mend(data, sizeof(slot) + slot.size, offsetof(struct format_slot, crc));
}

static void mend_record(uint8_t *data)
{
    struct format_record record;
    memcpy(&record, data, sizeof(record));
    if (record.header_blocks >= 1 && record.header_blocks <= FORMAT_RECORD_HEADER_MAX)
        mend(data, (size_t)record.header_blocks * FORMAT_BLOCK, offsetof(struct format_record, crc));
}

enum structure { SUPER, CATALOGUE, GROUP, DESCRIPTORS, CHECKSUMS, JOURNAL, STRUCTURES };

/* Where it lies; `which` chooses among those of a kind. */
static uint64_t place_of(const struct pool_image *image, enum structure structure, uint8_t which)
{
    switch (structure) {
    case SUPER: return FORMAT_SUPER_OFFSET(which % 2);
    case CATALOGUE: return FORMAT_CATALOGUE_OFFSET(which % 2);
    case GROUP: return FORMAT_GROUP_OFFSET(which / 2 % FORMAT_GROUPS_MAX, which % 2);
    case DESCRIPTORS: return image->super.table_offset + which % 8 * (uint64_t)FORMAT_BLOCK;
    case CHECKSUMS: return image->super.checksum_offset + which % 8 * (uint64_t)FORMAT_BLOCK;
    default: break;
    }
    uint64_t block = (image->super.tail_lsn + which) % image->super.journal_blocks;
    return image->super.journal_offset + block * FORMAT_BLOCK;
}

static void mend_structure(enum structure structure, uint8_t *data)
{
    switch (structure) {
    case SUPER: mend(data, FORMAT_BLOCK, offsetof(struct format_super, crc)); break;
    case CATALOGUE:
    case GROUP: mend_slot(data); break;
    case DESCRIPTORS:
    case CHECKSUMS: mend(data, FORMAT_BLOCK, offsetof(struct format_table_header, crc)); break;
    default: mend_record(data);
    }
}

void pool_image_damage(struct pool_image *image, struct fuzz_input *input)
{
    static uint8_t data[FORMAT_SLOT];
    uint8_t what = fuzz_u8(input), which = fuzz_u8(input);
    enum structure structure = (what & 0x7f) % STRUCTURES;
    uint64_t offset = place_of(image, structure, which);
    bool slot = structure == CATALOGUE || structure == GROUP;
    size_t most = slot ? FORMAT_SLOT : FORMAT_BLOCK * FORMAT_RECORD_HEADER_MAX, size;
    uint16_t at = fuzz_u16(input) % FORMAT_BLOCK;
    ssize_t got = pread(image->fd, data, most, (off_t)offset);
    check(got >= (ssize_t)FORMAT_BLOCK);
    const uint8_t *bytes = fuzz_take(input, fuzz_u8(input) % 64, &size);
    if (size > FORMAT_BLOCK - at)
        size = FORMAT_BLOCK - at;
    if (size)
        memcpy(data + at, bytes, size);
    if (!(what & 0x80))
        mend_structure(structure, data);
    check(pwrite(image->fd, data, (size_t)got, (off_t)offset) == got);
}
