/* What every fuzz target uses: a cursor over the fuzzer's bytes, copies without a byte to spare, the planted bug. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A target says by this which state deep inside only well-formed input reaches. In the build `fuzz_NAME_planted` that
 * is a bug, and the tier `fuzz` demands that it is found: a target that can no longer reach its parser fails. */
#ifdef HCI_FUZZ_PLANTED
#define fuzz_planted(condition) check(!(condition) || !"the planted bug")
#else
#define fuzz_planted(condition) ((void)(condition))
#endif

struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

/* Past the end: zeros. */
uint8_t fuzz_u8(struct fuzz_input *input);
uint16_t fuzz_u16(struct fuzz_input *input);
/* At most `most` bytes, fewer at the end; into the input's own memory. */
const uint8_t *fuzz_take(struct fuzz_input *input, size_t most, size_t *ret_size);
/* `size` bytes, zeros after the end. */
void fuzz_fill(struct fuzz_input *input, void *ret, size_t size);

/* On the heap with no byte to spare, so that a read past the end is noticed; the caller's. fuzz_text adds a NUL. */
uint8_t *fuzz_copy(const void *data, size_t size);
char *fuzz_text(const void *data, size_t size);

/* Where a target may keep sockets and files: $HCI_FUZZ_FOLDER, which the runner removes, or /dev/shm. */
const char *fuzz_folder(void);

/* A file in memory, only its owner may read it; the path names it while the descriptor, returned, is open. */
int fuzz_file(const void *data, size_t size, char ret_path[static 32]);
