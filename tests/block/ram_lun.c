/* Serves logical unit requests from memory. */
#include "tests/block/ram_lun.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/check.h"

/* A block of zeros counts as unmapped: there is no table of what was written. */
static bool is_mapped(const struct ram_lun *ram, uint64_t block)
{
    static const uint8_t zeros[LUN_BLOCK_SIZE];
    return memcmp(ram->memory + block * LUN_BLOCK_SIZE, zeros, LUN_BLOCK_SIZE) != 0;
}

static void find_run(struct ram_lun *ram, struct lun_request *request)
{
    const uint64_t sectors_per_block = LUN_BLOCK_SIZE / LUN_SECTOR_SIZE;
    uint64_t block = request->sector / sectors_per_block, end = request->sector + request->sectors;
    request->mapped = is_mapped(ram, block);
    while (++block * sectors_per_block < end && is_mapped(ram, block) == request->mapped)
        ;
    request->run_sectors = (block * sectors_per_block < end ? block * sectors_per_block : end) - request->sector;
}

static enum lun_status carry_out(struct ram_lun *ram, struct lun_request *request)
{
    uint8_t *at = ram->memory + request->sector * LUN_SECTOR_SIZE;
    size_t size = (size_t)request->sectors * LUN_SECTOR_SIZE;
    check(request->opcode == LUN_FLUSH || request->sector + request->sectors <= ram->lun.sectors);
    switch (request->opcode) {
    case LUN_READ:
        if (ram->bad_sector >= request->sector && ram->bad_sector - request->sector < request->sectors) {
            request->bad_sector = ram->bad_sector;
            return LUN_MEDIUM_ERROR;
        }
        memcpy(request->data, at, size);
        break;
    case LUN_WRITE:
        memcpy(at, request->data, size);
        break;
    case LUN_UNMAP:
        memset(at, 0, size);
        break;
    case LUN_COMPARE_WRITE:
        while (request->miscompare_offset < size && at[request->miscompare_offset] == request->data[request->miscompare_offset])
            request->miscompare_offset++;
        if (request->miscompare_offset < size)
            return LUN_MISCOMPARE;
        memcpy(at, request->data + size, size);
        break;
    case LUN_OR_WRITE:
        for (size_t i = 0; i < size; i++)
            at[i] |= request->data[i];
        break;
    case LUN_MAP:
        find_run(ram, request);
        break;
    case LUN_FLUSH:
    case LUN_BARRIER: /* requests are carried out one after the other */
        break;
    }
    return LUN_OK;
}

static void run(struct ring_mail *mail)
{
    struct ram_lun *ram = list_entry(mail, struct ram_lun, mail);
    struct list now;
    ram->posted = false;
    if (ram->holds || list_is_empty(&ram->pending))
        return;
    now = ram->pending;
    now.next->previous = now.previous->next = &now;
    list_init(&ram->pending);
    while (!list_is_empty(&now)) {
        struct lun_request *request = list_entry(ram->backwards ? now.previous : now.next, struct lun_request, link);
        list_remove(&request->link);
        request->status = request->nexus->dropped ? LUN_DROPPED : carry_out(ram, request);
        request->done(request);
    }
}

void ram_lun_kick(struct ram_lun *ram)
{
    if (ram->posted)
        return;
    ram->posted = true;
    ring_defer(ram->ring, &ram->mail);
}

static void submit(struct lun *lun, struct lun_request *request)
{
    struct ram_lun *ram = list_entry(lun, struct ram_lun, lun);
    if (request->opcode == LUN_READ || request->opcode == LUN_WRITE)
        check(((uintptr_t)request->data & 4095) == 0 && request->sectors <= LUN_REQUEST_MAX / LUN_SECTOR_SIZE);
    list_append(&ram->pending, &request->link);
    ram_lun_kick(ram);
}

static void drop(struct lun *lun, struct lun_nexus *nexus)
{
    struct ram_lun *ram = list_entry(lun, struct ram_lun, lun);
    ram->drops++;
    list_for_each_safe(item, after, &ram->pending) {
        struct lun_request *request = list_entry(item, struct lun_request, link);
        if (request->nexus != nexus)
            continue;
        list_remove(&request->link);
        request->status = LUN_DROPPED;
        request->done(request);
    }
}

static int admit(struct lun *lun, const char *initiator, struct lun_admission *ret)
{
    struct ram_lun *ram = list_entry(lun, struct ram_lun, lun);
    ret->chap = ram->user[0] != 0;
    strcpy(ret->user, ram->user);
    strcpy(ret->secret, ram->secret);
    ret->mutual = ram->mutual_user[0] != 0;
    strcpy(ret->mutual_user, ram->mutual_user);
    strcpy(ret->mutual_secret, ram->mutual_secret);
    ret->reason = "the test says no";
    return ram->admission;
}

static const char *state_of(struct lun *lun, const char *key)
{
    return ram_state_get(&list_entry(lun, struct ram_lun, lun)->state, key);
}

static void state_swap(struct lun *lun, const char *key, const char *expected, const char *value,
                       void (*done)(void *userdata, int result), void *userdata)
{
    ram_state_swap(&list_entry(lun, struct ram_lun, lun)->state, key, expected, value, done, userdata);
}

int ram_lun_open(struct ram_lun *ram, struct ring *ring, const char *name, uint64_t size_bytes)
{
    check(size_bytes % LUN_BLOCK_SIZE == 0);
    memset(ram, 0, sizeof(*ram));
    ram->memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram->memory == MAP_FAILED)
        return -ENOMEM;
    ram->ring = ring;
    ram->mail.run = run;
    ram->bad_sector = UINT64_MAX;
    list_init(&ram->pending);
    ram->lun.volume = id_random();
    snprintf(ram->lun.name, sizeof(ram->lun.name), "%s", name);
    ram->lun.sectors = size_bytes / LUN_SECTOR_SIZE;
    ram->lun.submit = submit;
    ram->lun.drop = drop;
    ram->lun.admit = admit;
    ram->lun.state = state_of;
    ram->lun.state_swap = state_swap;
    ram_state_open(&ram->state, ring, &ram->lun);
    return 0;
}

void ram_lun_close(struct ram_lun *ram)
{
    check(list_is_empty(&ram->pending) && !ram->posted);
    ram_state_close(&ram->state);
    munmap(ram->memory, ram->lun.sectors * LUN_SECTOR_SIZE);
}
