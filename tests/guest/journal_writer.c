/* The application inside the test guest: writes a numbered journal to its disk, tells on the console which
 * numbers the disk has acknowledged, and after every start first verifies that none of them is missing.
 *
 * Two streams share the disk. "small" writes 4 KiB slots one after the other; "big" writes 64 KiB slots at
 * scattered places at the same time. Number n of a stream goes to slot target(n); later numbers overwrite
 * earlier ones, so what every slot must hold follows from the highest number alone.
 *
 * Slot, little-endian:
 *   0  magic "HCIJRNL1"   8  number   16  boot token   24  stream (0 small, 1 big)
 *   28 CRC32C of the whole slot with this field zero   32  a pattern made from number and token
 * A slot is valid when magic, stream and CRC hold. With H the highest valid number, the slot of H+1 may hold
 * anything: that write may have been under way when the power went. Every other slot must hold exactly the
 * last number <= H that belongs there.
 *
 * Console: one JSON object per line, see README.md. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x314c4e524a494348ull /* "HCIJRNL1" */
#define REPORT_EVERY_MS 50
#define LOST_SHOWN_MAX 8
#define SCAN_CHUNK (1u << 20)
#define INPUTS_MAX 8

struct slot {
    uint64_t magic;
    uint64_t number;
    uint64_t token;
    uint32_t stream;
    uint32_t crc;
    uint64_t pattern[];
};
_Static_assert(sizeof(struct slot) == 32, "the pattern starts at byte 32");

struct stream {
    const char *name;
    uint32_t id;
    int fd;
    uint64_t offset;     /* of the first slot on the disk */
    uint32_t slot_size;
    uint32_t slot_count;
    uint32_t pause_us;   /* between two writes: the guest shares a small machine with the whole lab */
    uint64_t token;
    uint64_t highest;    /* found at start */
    _Atomic uint64_t acknowledged;
    _Atomic uint32_t slowest_us;
    _Atomic bool *stop;
    pthread_t thread;
};

static uint32_t crc_table[8][256];

static void crc_init(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
        crc_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] = (crc_table[k - 1][i] >> 8) ^ crc_table[0][crc_table[k - 1][i] & 0xff];
}

/* `size` is a multiple of 8. */
static uint32_t crc32c(const void *data, size_t size) {
    const uint64_t *words = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size / 8; i++) {
        uint64_t x = words[i] ^ crc;
        crc = crc_table[7][x & 0xff] ^ crc_table[6][x >> 8 & 0xff] ^ crc_table[5][x >> 16 & 0xff] ^
              crc_table[4][x >> 24 & 0xff] ^ crc_table[3][x >> 32 & 0xff] ^ crc_table[2][x >> 40 & 0xff] ^
              crc_table[1][x >> 48 & 0xff] ^ crc_table[0][x >> 56];
    }
    return ~crc;
}

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint32_t target(const struct stream *stream, uint64_t number) {
    return (uint32_t)((stream->id ? mix(number) : number) % stream->slot_count);
}

static uint64_t now_us(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint32_t slot_crc(struct slot *slot, uint32_t size) {
    uint32_t stored = slot->crc;
    slot->crc = 0;
    uint32_t crc = crc32c(slot, size);
    slot->crc = stored;
    return crc;
}

static void slot_fill(const struct stream *stream, struct slot *slot, uint64_t number) {
    slot->magic = MAGIC;
    slot->number = number;
    slot->token = stream->token;
    slot->stream = stream->id;
    for (uint32_t i = 0; i < (stream->slot_size - sizeof *slot) / 8; i++)
        slot->pattern[i] = (number ^ stream->token) * (i + 1);
    slot->crc = slot_crc(slot, stream->slot_size);
}

static bool slot_valid(const struct stream *stream, struct slot *slot) {
    return slot->magic == MAGIC && slot->stream == stream->id && slot->crc == slot_crc(slot, stream->slot_size);
}

static void die(const char *what) {
    printf("{\"event\":\"error\",\"what\":\"%s\",\"errno\":%d,\"message\":\"%s\"}\n", what, errno, strerror(errno));
    fflush(stdout);
    for (;;)
        pause(); /* stays for a look; whoever waits for acknowledgements sees the line above */
}

/* found[t] := the number in slot t, 0 when it holds no valid slot; dirty[t]: it holds something. */
static void stream_scan(struct stream *stream, uint64_t *found, bool *dirty) {
    char *buffer = aligned_alloc(4096, SCAN_CHUNK);
    uint32_t per_chunk = SCAN_CHUNK / stream->slot_size;
    for (uint32_t first = 0; first < stream->slot_count; first += per_chunk) {
        uint32_t count = stream->slot_count - first < per_chunk ? stream->slot_count - first : per_chunk;
        size_t size = (size_t)count * stream->slot_size;
        if (pread(stream->fd, buffer, size, (off_t)(stream->offset + (uint64_t)first * stream->slot_size)) !=
            (ssize_t)size)
            die("read");
        for (uint32_t i = 0; i < count; i++) {
            struct slot *slot = (struct slot *)(buffer + (size_t)i * stream->slot_size);
            dirty[first + i] = slot->magic != 0;
            found[first + i] = slot_valid(stream, slot) ? slot->number : 0;
            if (found[first + i] > stream->highest)
                stream->highest = found[first + i];
        }
    }
    free(buffer);
}

static void show_lost(const struct stream *stream, uint32_t t, uint64_t expected, uint64_t found) {
    printf("{\"event\":\"lost\",\"stream\":\"%s\",\"slot\":%u,\"expected\":%llu,\"found\":%llu}\n", stream->name, t,
           (unsigned long long)expected, (unsigned long long)found);
}

/* Returns how many numbers that must be there are not; *ret_complete: all numbers up to it that can be there are. */
static uint64_t stream_verify(struct stream *stream, uint64_t *ret_complete) {
    uint64_t *found = calloc(stream->slot_count, sizeof *found);
    bool *settled = calloc(stream->slot_count, sizeof *settled);
    bool *dirty = calloc(stream->slot_count, sizeof *dirty);
    stream_scan(stream, found, dirty);

    uint32_t open_count = stream->slot_count - 1;
    settled[target(stream, stream->highest + 1)] = true; /* may have been under way */
    uint64_t lost = 0, complete = stream->highest;
    for (uint64_t n = stream->highest; n > 0 && open_count > 0; n--) {
        uint32_t t = target(stream, n);
        if (settled[t])
            continue;
        settled[t] = true;
        open_count--;
        if (found[t] == n)
            continue;
        complete = n - 1;
        if (lost++ < LOST_SHOWN_MAX)
            show_lost(stream, t, n, found[t]);
    }
    for (uint32_t t = 0; t < stream->slot_count; t++)
        if (!settled[t] && dirty[t] && lost++ < LOST_SHOWN_MAX) /* nobody ever wrote here */
            show_lost(stream, t, 0, found[t]);
    free(found);
    free(settled);
    free(dirty);
    *ret_complete = complete;
    return lost;
}

static void *stream_write(void *argument) {
    struct stream *stream = argument;
    struct slot *slot = aligned_alloc(4096, stream->slot_size);
    for (uint64_t number = stream->highest + 1; !atomic_load(stream->stop); number++) {
        slot_fill(stream, slot, number);
        uint64_t start = now_us(CLOCK_MONOTONIC);
        off_t offset = (off_t)(stream->offset + (uint64_t)target(stream, number) * stream->slot_size);
        if (pwrite(stream->fd, slot, stream->slot_size, offset) != (ssize_t)stream->slot_size)
            die("write");
        atomic_store(&stream->acknowledged, number); /* only after the write has returned */
        uint64_t took = now_us(CLOCK_MONOTONIC) - start;
        if (took > atomic_load(&stream->slowest_us))
            atomic_store(&stream->slowest_us, (uint32_t)took);
        if (stream->pause_us)
            usleep(stream->pause_us);
    }
    free(slot);
    return NULL;
}

static void report(const char *event, struct stream *small, struct stream *big) {
    printf("{\"event\":\"%s\",\"highest\":%llu,\"big_highest\":%llu,\"slowest_us\":%u,\"big_slowest_us\":%u,"
           "\"wall_ms\":%llu}\n",
           event, (unsigned long long)atomic_load(&small->acknowledged),
           (unsigned long long)atomic_load(&big->acknowledged), atomic_exchange(&small->slowest_us, 0),
           atomic_exchange(&big->slowest_us, 0), (unsigned long long)(now_us(CLOCK_REALTIME) / 1000));
    fflush(stdout);
}

static void report_until_stopped(struct stream *small, struct stream *big, _Atomic bool *stop) {
    uint64_t small_seen = small->highest, big_seen = big->highest;
    while (!atomic_load(stop)) {
        usleep(REPORT_EVERY_MS * 1000);
        uint64_t small_now = atomic_load(&small->acknowledged), big_now = atomic_load(&big->acknowledged);
        if (small_now != small_seen || big_now != big_seen)
            report("ack", small, big);
        small_seen = small_now;
        big_seen = big_now;
    }
}

/* An ACPI power button press ends the writing. The button is one of several input devices. */
static void *power_button_watch(void *argument) {
    _Atomic bool *stop = argument;
    struct pollfd inputs[INPUTS_MAX];
    nfds_t count = 0;
    for (int i = 0; i < INPUTS_MAX; i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            inputs[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    while (count > 0 && poll(inputs, count, -1) > 0)
        for (nfds_t i = 0; i < count; i++) {
            struct input_event event;
            if ((inputs[i].revents & POLLIN) && read(inputs[i].fd, &event, sizeof event) == sizeof event &&
                event.type == EV_KEY && event.code == KEY_POWER)
                atomic_store(stop, true);
        }
    return NULL;
}

static uint32_t setting(const char *name, uint32_t fallback) {
    const char *text = getenv(name);
    return text ? (uint32_t)strtoul(text, NULL, 10) : fallback;
}

static int disk_open(const char *path, uint64_t size_needed) {
    int fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (fd < 0)
        die("open");
    uint64_t size = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) < 0)
        die("size");
    if (size < size_needed) {
        errno = ENOSPC;
        die("disk too small for the journal");
    }
    return fd;
}

static void verify(struct stream *small, struct stream *big) {
    uint64_t complete, big_complete;
    uint64_t lost = stream_verify(small, &complete), big_lost = stream_verify(big, &big_complete);
    printf("{\"event\":\"verified\",\"highest\":%llu,\"complete\":%llu,\"lost\":%llu,\"big_highest\":%llu,"
           "\"big_complete\":%llu,\"big_lost\":%llu}\n",
           (unsigned long long)small->highest, (unsigned long long)complete, (unsigned long long)lost,
           (unsigned long long)big->highest, (unsigned long long)big_complete, (unsigned long long)big_lost);
    fflush(stdout);
    atomic_store(&small->acknowledged, small->highest);
    atomic_store(&big->acknowledged, big->highest);
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "/dev/vda";
    crc_init();
    uint32_t slots = setting("journal_slots", 4096), big_slots = setting("journal_big_slots", 256);
    uint64_t small_bytes = (uint64_t)slots * 4096, big_bytes = (uint64_t)big_slots * 65536;
    int fd = disk_open(path, small_bytes + big_bytes);

    _Atomic bool stop = false;
    uint64_t token = 0;
    if (getrandom(&token, sizeof token, GRND_INSECURE) != sizeof token)
        token = now_us(CLOCK_REALTIME);
    struct stream small = {.name = "small", .id = 0, .fd = fd, .slot_size = 4096, .slot_count = slots, .token = token,
                           .pause_us = setting("journal_pause_us", 1000), .stop = &stop};
    struct stream big = {.name = "big", .id = 1, .fd = fd, .offset = small_bytes, .slot_size = 65536,
                         .slot_count = big_slots, .token = token,
                         .pause_us = setting("journal_big_pause_us", 20000), .stop = &stop};
    printf("{\"event\":\"started\",\"token\":\"%016llx\"}\n", (unsigned long long)token);
    fflush(stdout);
    verify(&small, &big);

    pthread_t button;
    if (pthread_create(&button, NULL, power_button_watch, &stop) != 0 ||
        pthread_create(&small.thread, NULL, stream_write, &small) != 0 ||
        pthread_create(&big.thread, NULL, stream_write, &big) != 0)
        die("thread");
    report_until_stopped(&small, &big, &stop);
    pthread_join(small.thread, NULL);
    pthread_join(big.thread, NULL);
    report("ack", &small, &big);
    report("stopped", &small, &big);
    return 0;
}
