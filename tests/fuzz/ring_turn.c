/* Runs a ring until the mail that stops it comes round. */
#include "tests/fuzz/ring_turn.h"

#include "common/check.h"
#include "common/list.h"

static void stop(struct ring_mail *mail)
{
    ring_stop(list_entry(mail, struct ring_turn, mail)->ring);
}

void ring_turn_init(struct ring_turn *turn, struct ring *ring)
{
    *turn = (struct ring_turn){.ring = ring, .mail.run = stop};
}

void ring_turn(struct ring_turn *turn)
{
    ring_defer(turn->ring, &turn->mail);
    check(ring_run(turn->ring) == 0);
}
