/* Which blocks of a volume are backed by space: what was written and not given back since. */
#include "common/check.h"
#include "storaged/pool/pool_internal.h"

/* A block whose content is lost counts as mapped: it is not zeros (SBC-4 §4.7.4). */
static uint64_t content_word(const struct pool_volume *volume, uint64_t block)
{
    uint32_t place = volume->map[block / FORMAT_EXTENT_BLOCKS];
    if (!place)
        return pool_extents_hole_is_lost(volume) ? UINT64_MAX : 0;
    const struct format_descriptor *descriptor = pool_extents_descriptor(volume->pool, place - 1);
    unsigned word = (unsigned)(block % FORMAT_EXTENT_BLOCKS / 64);
    return descriptor->written[word] | descriptor->lost[word];
}

/* How many blocks from this one on are like it, up to the end of its 64. */
static unsigned run_in_word(uint64_t word, unsigned bit, bool mapped)
{
    uint64_t differs = (mapped ? ~word : word) >> bit;
    unsigned left = 64 - bit, run = differs ? (unsigned)__builtin_ctzll(differs) : left;
    return run < left ? run : left;
}

bool pool_volume_map(const struct pool_volume *volume, uint64_t block, uint64_t most, uint64_t *ret_run)
{
    check(most > 0 && block < volume->blocks && most <= volume->blocks - block);
    bool mapped = content_word(volume, block) >> (block % 64) & 1;
    uint64_t at = block, end = block + most;
    while (at < end) {
        unsigned left = 64 - (unsigned)(at % 64), run = run_in_word(content_word(volume, at), (unsigned)(at % 64), mapped);
        at += run;
        if (run < left)
            break;
    }
    *ret_run = (at < end ? at : end) - block;
    return mapped;
}
