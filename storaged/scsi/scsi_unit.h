/* What SCSI keeps of a logical unit, however many initiators use it: who is logged in, reservations, mode parameters.
 * Made with the unit's first nexus, gone when the volume is no longer exported. */
#pragma once

#include "common/list.h"
#include "storaged/scsi/reservation_core.h"
#include "storaged/scsi/scsi_command.h"
#include "storaged/scsi/scsi_mode_state.h"

/* Keys of lun->state. */
#define SCSI_STATE_RESERVATIONS "reservations"
#define SCSI_STATE_MODES "mode"

struct scsi_unit {
    struct lun *lun;
    struct list nexuses;
    uint16_t port_group; /* of this node */
    bool reserved;       /* by RESERVE (6), and not about to be released: what commands are judged by */
    struct scsi_release *release; /* of a RESERVE (6), under way; NULL: none */

    /* The decoded texts of lun->state and the texts themselves (NULL: there is none): what a swap expects. */
    struct reservation_state reservations;
    char *reservations_text;
    struct scsi_mode_state modes;
    char *modes_text;

    struct scsi_reset *reset; /* being told to the other node; NULL: none */

    /* One change of a text is under way from here at a time; the other commands wait, first come, first served. */
    struct scsi_command *changing;
    struct list waiting; /* scsi_command.request.link */
    struct list parked; /* PREEMPT AND ABORT commands until the preempted nexuses are gone: scsi_command.request.link */
};

/* ---- scsi_reset.c ------------------------------------------------------------------------------------------------ */
/* A reset, maybe at the other node; the unit goes. */
void scsi_reset_heard(struct scsi_nexus *nexus, const struct reservation_nexus *actor);
void scsi_reset_forget(struct scsi_unit *unit);

/* ---- scsi_release.c: RESERVE (6) ends with its nexus ---- */
void scsi_release_begin(struct scsi_unit *unit);   /* whosever it is */
void scsi_release_strays(struct scsi_unit *unit);  /* of a nexus of this node that is gone */
void scsi_release_forget(struct scsi_unit *unit);  /* the unit goes */
void scsi_release_refresh(struct scsi_unit *unit); /* computes `reserved` and whose it is */

/* ---- scsi_unit.c ------------------------------------------------------------------------------------------------- */
/* Follows lun->state; tells every nexus what concerns it. */
void scsi_unit_refresh(struct scsi_unit *unit);
void scsi_nexus_name(const struct scsi_nexus *nexus, struct reservation_nexus *ret);
/* Calls `resume` once no preempted nexus is left; at once, or later, and then `done` when it says that the command is
 * finished. Returns what scsi_command_execute does. */
bool scsi_unit_drain(struct scsi_command *command, bool (*resume)(struct scsi_command *command));
/* The command is given up. True: it waited there, and does so no more. */
bool scsi_unit_undrain(struct scsi_command *command);
