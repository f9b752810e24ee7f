/* Moves a state machine along its declared table. */
#include "common/fsm.h"

#include "common/check.h"

void fsm_move(const struct fsm_table *table, int *state, int next)
{
    check(table->count <= 32);
    check(*state >= 0 && (unsigned)*state < table->count);
    check(next >= 0 && (unsigned)next < table->count);
    check((table->states[*state].next & FSM_BIT(next)) != 0);
    *state = next;
}

const char *fsm_name(const struct fsm_table *table, int state)
{
    check(state >= 0 && (unsigned)state < table->count);
    return table->states[state].name;
}
