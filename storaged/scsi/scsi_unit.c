/* A logical unit's memory in SCSI terms, and the nexuses that share it. */
#include "storaged/scsi/scsi_unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "storaged/scsi/reservation_text.h"

/* ---- reservations and modes, from their texts -------------------------------------------------------------------- */

static const char *text_of(const struct scsi_unit *unit, const char *key)
{
    return unit->lun->state ? unit->lun->state(unit->lun, key) : NULL;
}

/* True: *known was not the present text, and is it now. */
static bool text_changed(char **known, const char *now)
{
    if ((!now && !*known) || (now && *known && strcmp(now, *known) == 0))
        return false;
    free(*known);
    *known = now ? strdup(now) : NULL;
    check(!now || *known);
    return true;
}

void scsi_nexus_name(const struct scsi_nexus *nexus, struct reservation_nexus *ret)
{
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->initiator, nexus->lun_nexus->initiator, sizeof(ret->initiator));
    memcpy(ret->isid, nexus->isid, sizeof(ret->isid));
    ret->port_group = nexus->port_group;
}

/* SPC-4 §5.13.11.5: what the preempted nexus has under way ends. Its connection does: the initiator comes back, and a
 * command that is being carried out is waited for (scsi_unit_drain). */
static void abort_preempted(struct scsi_nexus *nexus)
{
    nexus->preempted = true;
    nexus->lun_nexus->close(nexus->lun_nexus, "its registration was preempted, and its commands aborted");
}

static void tell_reservations(struct scsi_nexus *nexus, const struct reservation_state *old,
                              const struct reservation_state *now)
{
    struct reservation_nexus name;
    scsi_nexus_name(nexus, &name);
    switch (reservation_notice(old, now, &name)) {
    case RESERVATION_NOTICE_NONE: break;
    case RESERVATION_NOTICE_PREEMPTED: scsi_attention_raise(nexus, SCSI_ATTENTION_RESERVATIONS_PREEMPTED); break;
    case RESERVATION_NOTICE_RELEASED: scsi_attention_raise(nexus, SCSI_ATTENTION_RESERVATIONS_RELEASED); break;
    case RESERVATION_NOTICE_REGISTRATION_PREEMPTED:
        scsi_attention_raise(nexus, SCSI_ATTENTION_REGISTRATIONS_PREEMPTED);
        if (now->last_action == RESERVATION_PREEMPT_AND_ABORT)
            abort_preempted(nexus);
        break;
    }
    nexus->registrant = reservation_find(now, &name);
}

static void refresh_reservations(struct scsi_unit *unit)
{
    struct reservation_state now;
    reservation_init(&now);
    if (!text_changed(&unit->reservations_text, text_of(unit, SCSI_STATE_RESERVATIONS)))
        return;
    if (unit->reservations_text && reservation_decode(unit->reservations_text, &now) < 0) {
        log_error("volume '%s': its persistent reservations cannot be read; it is locked until an initiator registers "
                  "and clears them",
                  unit->lun->name);
        reservation_lock(&now);
    }
    list_for_each_safe(item, after, &unit->nexuses)
        tell_reservations(list_entry(item, struct scsi_nexus, link), &unit->reservations, &now);
    unit->reservations = now;
    scsi_release_refresh(unit);
}

static void refresh_modes(struct scsi_unit *unit)
{
    struct scsi_mode_state now = {0};
    struct reservation_nexus name;
    if (!text_changed(&unit->modes_text, text_of(unit, SCSI_STATE_MODES)))
        return;
    if (unit->modes_text && scsi_mode_state_decode(unit->modes_text, &now) < 0)
        log_error("volume '%s': its saved mode parameters cannot be read; the default values hold", unit->lun->name);
    bool changed = memcmp(&now.current, &unit->modes.current, sizeof(now.current)) != 0;
    bool reset = now.resets != unit->modes.resets;
    unit->modes = now;
    list_for_each(item, &unit->nexuses) {
        struct scsi_nexus *nexus = list_entry(item, struct scsi_nexus, link);
        scsi_nexus_name(nexus, &name);
        if (reset)
            scsi_reset_heard(nexus, &now.actor);
        else if (changed && !reservation_nexus_equal(&name, &now.actor))
            scsi_attention_raise(nexus, SCSI_ATTENTION_MODE_CHANGED);
    }
}

void scsi_unit_refresh(struct scsi_unit *unit)
{
    refresh_reservations(unit);
    refresh_modes(unit);
    scsi_sanitize_refresh(unit->lun);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void unit_free(void *userdata)
{
    struct scsi_unit *unit = userdata;
    check(list_is_empty(&unit->nexuses) && list_is_empty(&unit->waiting) && list_is_empty(&unit->parked));
    scsi_reset_forget(unit);
    scsi_release_forget(unit);
    free(unit->reservations_text);
    free(unit->modes_text);
    free(unit);
}

static struct scsi_unit *unit_of(struct lun *lun)
{
    struct scsi_unit *unit = lun->unit ? lun->unit : calloc(1, sizeof(*unit));
    if (!unit || lun->unit)
        return unit;
    unit->lun = lun;
    list_init(&unit->nexuses);
    list_init(&unit->waiting);
    list_init(&unit->parked);
    reservation_init(&unit->reservations);
    lun->unit = unit;
    lun->unit_free = unit_free;
    return unit;
}

int scsi_nexus_open(struct scsi_nexus *nexus)
{
    struct scsi_unit *unit = unit_of(nexus->lun);
    struct reservation_nexus name;
    if (!unit)
        return -ENOMEM;
    scsi_unit_refresh(unit); /* nobody may have been there to be told of changes */
    nexus->unit = unit;
    nexus->attentions = 0;
    nexus->preempted = false;
    scsi_nexus_name(nexus, &name);
    nexus->registrant = reservation_find(&unit->reservations, &name);
    nexus->reserves = nexus->left = false;
    unit->port_group = nexus->port_group;
    scsi_release_strays(unit); /* a reservation of this name is of a nexus that was lost */
    list_append(&unit->nexuses, &nexus->link);
    scsi_attention_raise(nexus, SCSI_ATTENTION_POWER_ON);
    return 0;
}

static bool has_preempted(const struct scsi_unit *unit)
{
    list_for_each(item, &unit->nexuses)
        if (list_entry(item, struct scsi_nexus, link)->preempted)
            return true;
    return false;
}

void scsi_nexus_leave(struct scsi_nexus *nexus)
{
    if (!nexus->unit)
        return;
    nexus->left = true;
    scsi_release_strays(nexus->unit);
}

void scsi_nexus_close(struct scsi_nexus *nexus)
{
    struct scsi_unit *unit = nexus->unit;
    list_remove(&nexus->link);
    nexus->unit = NULL;
    scsi_release_strays(unit);
    while (!has_preempted(unit) && !list_is_empty(&unit->parked)) {
        struct scsi_command *command = list_entry(unit->parked.next, struct scsi_command, request.link);
        list_remove(&command->request.link);
        command->change.parked = false;
        if (command->change.resume(command))
            command->done(command);
    }
}

bool scsi_unit_drain(struct scsi_command *command, bool (*resume)(struct scsi_command *command))
{
    struct scsi_unit *unit = command->nexus->unit;
    command->change.resume = resume;
    if (!has_preempted(unit))
        return resume(command);
    command->change.parked = true;
    list_append(&unit->parked, &command->request.link);
    return false;
}

/* Two that preempt each other would wait for each other's end. */
bool scsi_unit_undrain(struct scsi_command *command)
{
    if (!command->change.parked)
        return false;
    command->change.parked = false;
    list_remove(&command->request.link);
    return true;
}

void scsi_nexus_changed(struct scsi_nexus *nexus, enum lun_change change)
{
    switch (change) {
    case LUN_CAPACITY_CHANGED: scsi_attention_raise(nexus, SCSI_ATTENTION_CAPACITY_CHANGED); break;
    case LUN_ROLE_CHANGED: scsi_attention_raise(nexus, SCSI_ATTENTION_ACCESS_CHANGED); break;
    case LUN_STATE_CHANGED: scsi_unit_refresh(nexus->unit); break; /* the first that hears of it tells all */
    }
}

uint8_t scsi_command_sense(const struct scsi_command *command, uint8_t ret[static SCSI_SENSE_MAX])
{
    bool descriptors = command->nexus->unit->modes.current.d_sense;
    return (descriptors ? scsi_sense_encode_descriptors : scsi_sense_encode)(&command->sense, ret);
}
