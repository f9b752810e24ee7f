/* The owner record of a guest: who may run it. It lives as the entry "owner" in the metadata of the guest's group. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/id.h"

#define RECORD_TEXT_MAX 512u   /* with the terminating NUL */
#define RECORD_REASON_MAX 160u

enum record_state {
    RECORD_STOPPED, /* nobody may start it by itself; a node still named has not yet verified that it is down */
    RECORD_RUNNING, /* the named node runs it, and R11 says when the other one may */
    RECORD_FAILED,  /* given up after too many restarts, see reason */
};

/* JSON: {"node":uuid|"","incarnation":n,"state":"running"|"stopped"|"failed","thaw":n,"force":true,"reason":text};
 * the last three only when they say something. */
struct record {
    struct id node;          /* null: nobody */
    uint64_t incarnation;    /* raised by every start; never used twice */
    enum record_state state;
    uint64_t thaw;           /* raised by every thaw (R11: thaw and takeover are swaps of one record) */
    bool force;              /* stopped: at once, without asking the guest's system to shut down */
    char reason[RECORD_REASON_MAX];
    char text[RECORD_TEXT_MAX]; /* exactly as stored: what the next swap expects */
};

const char *record_state_name(enum record_state state);
/* Fills record->text from the other fields. */
void record_format(struct record *record);
/* Reads an entry as stored. 0, or -EINVAL with the sentence in err and *ret untouched. */
int record_parse(const char *text, struct record *ret, struct err *err);
