/* Disks of the pool, as the verbs of pool and disk show them. */
#pragma once

#include <jansson.h>

/* Formatting asks for every path's surface once and for a journal on each: minutes on large slow disks. */
#define DISK_FORMAT_MS 600000

/* Its path; of one that never was seen here its id. */
const char *disk_name(const json_t *disk);
/* A table of the daemon's disk objects. */
void disk_print_table(const json_t *disks);
