/* One turn of a ring at a time, for targets that run it in the fuzzer's own thread. */
#pragma once

#include "storaged/ring.h"

struct ring_turn {
    struct ring *ring;
    struct ring_mail mail;
};

void ring_turn_init(struct ring_turn *turn, struct ring *ring);
/* Whatever is ready is carried out; does not wait for anything. */
void ring_turn(struct ring_turn *turn);
