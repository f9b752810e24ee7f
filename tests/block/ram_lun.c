/* Serves logical unit requests from memory. */
#include "tests/block/ram_lun.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/check.h"

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
    default:
    case LUN_FLUSH:
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
    ret->reason = "the test says no";
    return ram->admission;
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
    return 0;
}

void ram_lun_close(struct ram_lun *ram)
{
    check(list_is_empty(&ram->pending) && !ram->posted);
    munmap(ram->memory, ram->lun.sectors * LUN_SECTOR_SIZE);
}
