/* The texts of a logical unit in memory (lun.h: state, state_swap), changed in the next turn of the ring. */
#pragma once

#include "storaged/lun.h"
#include "storaged/ring.h"

#define RAM_STATE_ENTRIES 4u

struct ram_state {
    struct ring *ring;
    struct lun *lun;
    struct {
        char key[32];
        char *value; /* NULL: none */
    } entries[RAM_STATE_ENTRIES];
    unsigned swaps; /* under way */
    int failure;    /* what the next swap answers instead of being made; 0: nothing */
};

void ram_state_open(struct ram_state *state, struct ring *ring, struct lun *lun);
void ram_state_close(struct ram_state *state);
const char *ram_state_get(struct ram_state *state, const char *key);
/* At once, as if another node had done it. NULL removes. */
void ram_state_put(struct ram_state *state, const char *key, const char *value);
void ram_state_swap(struct ram_state *state, const char *key, const char *expected, const char *value,
                    void (*done)(void *userdata, int result), void *userdata);
