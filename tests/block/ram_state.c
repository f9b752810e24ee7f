/* Keeps a logical unit's texts in memory. */
#include "tests/block/ram_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"

struct swap {
    struct ring_mail mail;
    struct ram_state *state;
    char key[32];
    char *expected, *value;
    void (*done)(void *userdata, int result);
    void *userdata;
};

void ram_state_open(struct ram_state *state, struct ring *ring, struct lun *lun)
{
    *state = (struct ram_state){.ring = ring, .lun = lun};
}

void ram_state_close(struct ram_state *state)
{
    check(state->swaps == 0);
    for (unsigned i = 0; i < RAM_STATE_ENTRIES; i++)
        free(state->entries[i].value);
}

static unsigned place_of(struct ram_state *state, const char *key)
{
    unsigned i = 0;
    while (state->entries[i].key[0] && strcmp(state->entries[i].key, key) != 0)
        check(++i < RAM_STATE_ENTRIES);
    check(strlen(key) < sizeof(state->entries[i].key));
    strcpy(state->entries[i].key, key);
    return i;
}

const char *ram_state_get(struct ram_state *state, const char *key)
{
    return state->entries[place_of(state, key)].value;
}

void ram_state_put(struct ram_state *state, const char *key, const char *value)
{
    unsigned i = place_of(state, key);
    free(state->entries[i].value);
    state->entries[i].value = value ? strdup(value) : NULL;
    lun_tell(state->lun, LUN_STATE_CHANGED);
}

static bool is_same(const char *left, const char *right)
{
    return left && right ? strcmp(left, right) == 0 : left == right;
}

static int carry_out(struct swap *swap)
{
    struct ram_state *state = swap->state;
    int failure = state->failure;
    state->failure = 0;
    if (failure)
        return failure;
    if (!is_same(ram_state_get(state, swap->key), swap->expected))
        return -ESTALE;
    ram_state_put(state, swap->key, swap->value);
    return 0;
}

static void run(struct ring_mail *mail)
{
    struct swap *swap = list_entry(mail, struct swap, mail);
    int result = carry_out(swap);
    swap->state->swaps--;
    swap->done(swap->userdata, result);
    free(swap->expected);
    free(swap->value);
    free(swap);
}

void ram_state_swap(struct ram_state *state, const char *key, const char *expected, const char *value,
                    void (*done)(void *userdata, int result), void *userdata)
{
    struct swap *swap = calloc(1, sizeof(*swap));
    check(swap && strlen(key) < sizeof(swap->key) && (!value || strlen(value) < LUN_STATE_MAX));
    *swap = (struct swap){.mail.run = run, .state = state, .done = done, .userdata = userdata};
    strcpy(swap->key, key);
    swap->expected = expected ? strdup(expected) : NULL;
    swap->value = value ? strdup(value) : NULL;
    state->swaps++;
    ring_defer(state->ring, &swap->mail);
}
