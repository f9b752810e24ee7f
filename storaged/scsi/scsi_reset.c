/* Resets of the logical unit (SAM-5 §6.3.3): what they undo, who is told, and how the other node's initiators are. */
#include "storaged/scsi/scsi_unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"

#define ATTEMPTS_MAX 8u

/* One at a time; it may outlive its unit. */
struct scsi_reset {
    struct scsi_unit *unit; /* NULL: gone */
    struct reservation_nexus actor;
    unsigned attempts;
    bool again; /* another reset came meanwhile */
    char text[LUN_STATE_MAX];
};

static void made(void *userdata, int result);

/* Current mode parameters are the saved ones again (SPC-4 §5.14). */
static bool swap(struct scsi_reset *reset)
{
    struct scsi_unit *unit = reset->unit;
    struct scsi_mode_state next = unit->modes;
    next.current = next.saved;
    next.serial++;
    next.resets++;
    next.actor = reset->actor;
    reset->again = false;
    if (scsi_mode_state_encode(&next, reset->text, sizeof(reset->text)) < 0)
        return false;
    unit->lun->state_swap(unit->lun, SCSI_STATE_MODES, unit->modes_text, reset->text, made, reset);
    return true;
}

static void made(void *userdata, int result)
{
    struct scsi_reset *reset = userdata;
    struct scsi_unit *unit = reset->unit;
    if (unit)
        scsi_unit_refresh(unit);
    if (unit && (result == -ESTALE || reset->again) && ++reset->attempts < ATTEMPTS_MAX && swap(reset))
        return;
    if (result < 0)
        log_warning("a reset of a volume could not be told to the other node: %s", strerror(-result));
    if (unit)
        unit->reset = NULL;
    free(reset);
}

static void tell_other_node(struct scsi_nexus *from)
{
    struct scsi_unit *unit = from->unit;
    if (unit->reset)
        unit->reset->again = true;
    if (unit->reset || !unit->lun->state_swap)
        return;
    struct scsi_reset *reset = calloc(1, sizeof(*reset));
    check(reset);
    reset->unit = unit;
    scsi_nexus_name(from, &reset->actor);
    unit->reset = reset;
    if (swap(reset))
        return;
    unit->reset = NULL;
    free(reset);
}

void scsi_unit_reset(struct scsi_nexus *from, enum scsi_attention attention)
{
    struct scsi_unit *unit = from->unit;
    list_for_each(item, &unit->nexuses)
        scsi_attention_raise(list_entry(item, struct scsi_nexus, link), attention);
    tell_other_node(from);
    scsi_release_begin(unit);
}

/* At the node where it happened everybody knows already. */
void scsi_reset_heard(struct scsi_nexus *nexus, const struct reservation_nexus *actor)
{
    if (nexus->port_group == actor->port_group)
        return;
    scsi_attention_raise(nexus, SCSI_ATTENTION_RESET);
}

void scsi_reset_forget(struct scsi_unit *unit)
{
    if (unit->reset)
        unit->reset->unit = NULL;
}
