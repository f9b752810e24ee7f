/* The shared page: what storaged must know on every completion costs it one load and no system call.
 * quorumd writes /run/hci/quorum.page (mode 0640), storaged maps it read-only; storaged writes /run/hci/storaged.page
 * with its threads' beats, quorumd maps that read-only (R8: a lease is asked for only while the storage lives). */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define PAGE_MAGIC 0x6863692d70616731ull /* "hci-pag1" */
#define PAGE_SIZE_BYTES 4096u

struct quorum_page {
    _Atomic uint64_t magic;
    _Atomic uint64_t boot;              /* random per start of quorumd: another value means all leases here lapsed */
    _Atomic uint64_t witness_until_ns;  /* CLOCK_BOOTTIME deadline of the lease acknowledged by W, 0: none */
    _Atomic uint64_t peer_until_ns;     /* the same, acknowledged by the peer */
    _Atomic uint64_t generation;        /* raised by every lapse (R8) */
};

struct storage_page {
    _Atomic uint64_t magic;
    _Atomic uint64_t boot;              /* random per start of storaged */
    _Atomic uint64_t beat;              /* the slowest data thread's counter */
};

_Static_assert(sizeof(struct quorum_page) <= PAGE_SIZE_BYTES, "one page");
_Static_assert(sizeof(struct storage_page) <= PAGE_SIZE_BYTES, "one page");

/* Makes (truncates, zeroes) the page file and maps it for writing; for its one writer. The file is replaced, never
 * reused, so that a reader of an older one notices through page_is_current. */
int page_make(const char *path, void **ret_page, struct err *err);
/* Maps it read-only; -ENOENT while its writer has not started. */
int page_open(const char *path, const void **ret_page, struct err *err);
void page_close(const void *page);
/* Does the mapped page still belong to the file at path? (its writer restarted when not) */
bool page_is_current(const char *path, const void *page);

/* R8: valid while the peer's or W's is. `now_ns` of CLOCK_BOOTTIME. */
static inline bool quorum_page_lease_valid(const struct quorum_page *page, uint64_t now_ns)
{
    return now_ns < atomic_load_explicit(&page->witness_until_ns, memory_order_acquire) ||
           now_ns < atomic_load_explicit(&page->peer_until_ns, memory_order_acquire);
}
