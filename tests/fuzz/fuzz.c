/* Helpers of the fuzz targets; quiet logs. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    log_init("fuzz", LOG_LEVEL_ERROR);
    return 0;
}

const uint8_t *fuzz_take(struct fuzz_input *input, size_t most, size_t *ret_size)
{
    const uint8_t *data = input->data;
    *ret_size = most < input->size ? most : input->size;
    if (*ret_size) /* the data of an empty input may be NULL */
        input->data += *ret_size;
    input->size -= *ret_size;
    return data;
}

void fuzz_fill(struct fuzz_input *input, void *ret, size_t size)
{
    size_t here;
    const uint8_t *data = fuzz_take(input, size, &here);
    memset(ret, 0, size);
    if (here)
        memcpy(ret, data, here);
}

uint8_t fuzz_u8(struct fuzz_input *input)
{
    uint8_t value;
    fuzz_fill(input, &value, sizeof(value));
    return value;
}

uint16_t fuzz_u16(struct fuzz_input *input)
{
    uint8_t value[2];
    fuzz_fill(input, value, sizeof(value));
    return (uint16_t)(value[0] | value[1] << 8);
}

uint8_t *fuzz_copy(const void *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    check(copy);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

char *fuzz_text(const void *data, size_t size)
{
    char *text = malloc(size + 1);
    check(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    return text;
}

const char *fuzz_folder(void)
{
    const char *folder = getenv("HCI_FUZZ_FOLDER");
    return folder ? folder : "/dev/shm";
}

int fuzz_file(const void *data, size_t size, char ret_path[static 32])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    check(fd >= 0 && fchmod(fd, 0600) == 0);
    check(write(fd, data, size) == (ssize_t)size);
    snprintf(ret_path, 32, "/proc/self/fd/%d", fd);
    return fd;
}
