/* The end of a RESERVE (6): its nexus is gone, or the unit was reset. Nobody waits for it, and at this node it counts at
 * once (SPC-2 §5.5.1). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/scsi/reservation_text.h"
#include "storaged/scsi/scsi_unit.h"

#define ATTEMPTS_MAX 16u

/* One at a time; it may outlive its unit. */
struct scsi_release {
    struct scsi_unit *unit; /* NULL: gone */
    struct reservation_nexus holder;
    unsigned attempts;
    char text[LUN_STATE_MAX];
};

static void made(void *userdata, int result);

/* False: there is nothing to be released any more. */
static bool swap(struct scsi_release *release)
{
    struct scsi_unit *unit = release->unit;
    struct reservation_state next = unit->reservations;
    if (reservation_release_unit(&next, &release->holder) != RESERVATION_CHANGED)
        return false;
    if (reservation_encode(&next, release->text, sizeof(release->text)) < 0)
        return false;
    unit->lun->state_swap(unit->lun, SCSI_STATE_RESERVATIONS, unit->reservations_text, release->text, made, release);
    return true;
}

static void made(void *userdata, int result)
{
    struct scsi_release *release = userdata;
    struct scsi_unit *unit = release->unit;
    if (unit)
        scsi_unit_refresh(unit);
    if (unit && result == -ESTALE && ++release->attempts < ATTEMPTS_MAX && swap(release))
        return;
    if (result < 0 && result != -ESTALE)
        log_warning("a reservation could not be released: %s", strerror(-result));
    free(release);
    if (!unit)
        return;
    unit->release = NULL;
    scsi_release_refresh(unit);
    if (result == 0)
        scsi_release_strays(unit);
}

void scsi_release_begin(struct scsi_unit *unit)
{
    if (unit->release || !unit->reservations.reserved)
        return;
    struct scsi_release *release = calloc(1, sizeof(*release));
    check(release);
    release->unit = unit;
    release->holder = unit->reservations.reserved_by;
    unit->release = release;
    scsi_release_refresh(unit);
    if (swap(release))
        return;
    unit->release = NULL;
    free(release);
}

static struct scsi_nexus *holder_of(struct scsi_unit *unit)
{
    struct reservation_nexus name;
    list_for_each(item, &unit->nexuses) {
        struct scsi_nexus *nexus = list_entry(item, struct scsi_nexus, link);
        scsi_nexus_name(nexus, &name);
        if (!nexus->left && reservation_nexus_equal(&name, &unit->reservations.reserved_by))
            return nexus;
    }
    return NULL;
}

void scsi_release_strays(struct scsi_unit *unit)
{
    const struct reservation_state *state = &unit->reservations;
    if (state->reserved && state->reserved_by.port_group == unit->port_group && !holder_of(unit))
        scsi_release_begin(unit);
}

void scsi_release_refresh(struct scsi_unit *unit)
{
    const struct reservation_state *state = &unit->reservations;
    bool ends = unit->release && state->reserved && reservation_nexus_equal(&unit->release->holder, &state->reserved_by);
    unit->reserved = state->reserved && !ends;
    struct scsi_nexus *holder = unit->reserved ? holder_of(unit) : NULL;
    list_for_each(item, &unit->nexuses)
        list_entry(item, struct scsi_nexus, link)->reserves = holder && item == &holder->link;
}

void scsi_release_forget(struct scsi_unit *unit)
{
    if (unit->release)
        unit->release->unit = NULL;
}
