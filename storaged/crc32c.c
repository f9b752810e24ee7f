/* CRC32C by ISA-L. */
#include "storaged/crc32c.h"

#include <isa-l/crc.h>

uint32_t crc32c(const void *data, size_t size)
{
    return ~crc32_iscsi((unsigned char *)(uintptr_t)data, (int)size, UINT32_MAX);
}
