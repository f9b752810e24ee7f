/* A logical unit in memory, for tests of the iSCSI target: no group, no disk, answers in the next turn of the ring. */
#pragma once

#include <stdbool.h>

#include "storaged/lun.h"
#include "storaged/ring.h"
#include "tests/block/ram_state.h"

struct ram_lun {
    struct lun lun;
    struct ring *ring;
    uint8_t *memory;
    struct list pending; /* requests submitted and not done */
    struct ring_mail mail;
    bool posted;
    bool holds;          /* keeps requests until it is false again and ram_lun_kick is called */
    bool backwards;      /* answers the last request first */
    uint64_t bad_sector; /* reads of it fail; UINT64_MAX: none */
    unsigned drops;      /* how often a nexus was lost */
    int admission;       /* what admit answers */
    struct ram_state state;
    char user[64], secret[64]; /* CHAP, when user is not empty */
    char mutual_user[64], mutual_secret[64]; /* mutual CHAP, the same way */
};

/* `size_bytes` is a multiple of 4096. Returns -ENOMEM. */
int ram_lun_open(struct ram_lun *ram, struct ring *ring, const char *name, uint64_t size_bytes);
void ram_lun_close(struct ram_lun *ram);
void ram_lun_kick(struct ram_lun *ram);
