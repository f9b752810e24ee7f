/* The mode parameters that initiators can change, and the text that keeps them with the group (lun.h: state "mode").
 * Current values are kept, too: the unit is one on both nodes, and a takeover is no power-on. */
#pragma once

#include <stddef.h>

#include "storaged/scsi/reservation_core.h"

struct scsi_modes {
    bool d_sense; /* control page: sense data in descriptor format */
    bool swp;     /* control page: software write protect */
};

struct scsi_mode_state {
    uint64_t serial; /* one more with every change */
    uint64_t resets; /* one more with every reset of the unit: that is how the other node hears of it */
    struct scsi_modes current, saved;
    struct reservation_nexus actor; /* whose change the last one was: all others are told (2A/01) */
};

/* -EBADMSG: *ret is left alone. */
int scsi_mode_state_decode(const char *text, struct scsi_mode_state *ret);
/* Returns the length, or -ENOSPC, -ENOMEM, -EINVAL (the actor's name is no UTF-8). */
int scsi_mode_state_encode(const struct scsi_mode_state *state, char *ret, size_t size);
