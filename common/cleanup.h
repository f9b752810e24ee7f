/* Scope-bound cleanup: what a function acquires is released on every way out. */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#define cleanup(function) __attribute__((cleanup(function)))

static inline void cleanup_free_pointer(void *pointer) { free(*(void **)pointer); }
static inline void cleanup_close_fd(int *fd) { if (*fd >= 0) close(*fd); }

#define cleanup_free cleanup(cleanup_free_pointer)
#define cleanup_close cleanup(cleanup_close_fd)
