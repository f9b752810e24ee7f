/* A pool on one file in memory with a journal still to be replayed: made once, put back and damaged for every input. */
#pragma once

#include "common/id.h"
#include "storaged/pool/format.h"
#include "storaged/pool/pool.h"
#include "tests/fuzz/fuzz.h"

#define POOL_IMAGE_VOLUMES 2u

struct pool_image {
    char path[64];
    struct ring *ring;
    struct id group, volumes[POOL_IMAGE_VOLUMES];
    int fd;
    uint64_t size;
    struct format_super super; /* where things lie */
    size_t page_count;
    struct pool_image_page { /* those that are not a hole */
        uint64_t offset;
        uint8_t data[FORMAT_BLOCK];
    } *pages;
};

struct pool_image *pool_image_of_process(void);
void pool_image_restore(struct pool_image *image);
/* Takes one piece of damage from the input: which structure, which bytes, and whether its checksum is put right. */
void pool_image_damage(struct pool_image *image, struct fuzz_input *input);

/* One operation at a time, waited for; returns its result. */
struct pool_call {
    struct ring *ring;
    bool done;
    int result;
};
void pool_call_done(void *userdata, int result);
int pool_call_wait(struct pool_call *call);
int pool_call_io(struct pool_image *image, void (*start)(struct pool *pool, struct pool_io *io), struct pool *pool,
                 struct pool_volume *volume, uint64_t block, uint32_t count, uint8_t *data, bool dirty);
