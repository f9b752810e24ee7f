/* CRC32C (Castagnoli) by ISA-L, for the mirror link's frames. */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *data, size_t size);
