/* State machines as declared tables: a move that the table does not allow is a programmer's error. */
#pragma once

#include <stdint.h>

struct fsm_state {
    const char *name;
    uint32_t next;        /* bit set of the states that may follow */
    const char *sentence; /* what it means, for status and for the generated diagram */
};

struct fsm_table {
    const char *name;
    unsigned count;
    const struct fsm_state *states;
};

#define FSM_BIT(state) (UINT32_C(1) << (state))

/* Checks that the table allows the move (check() fails otherwise) and stores it. */
void fsm_move(const struct fsm_table *table, int *state, int next);
const char *fsm_name(const struct fsm_table *table, int state);
