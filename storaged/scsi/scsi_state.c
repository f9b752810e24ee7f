/* Read, step, swap: how a command changes what all nodes know of the logical unit. */
#include "storaged/scsi/scsi_state.h"

#include <errno.h>
#include <string.h>

#include "common/check.h"

#define ATTEMPTS_MAX 16u /* others were faster so often: BUSY, and the initiator tries again */

static void swap_done(void *userdata, int result);

static void swap(struct scsi_command *command)
{
    struct scsi_change *change = &command->change;
    struct scsi_unit *unit = command->nexus->unit;
    bool is_modes = strcmp(change->key, SCSI_STATE_MODES) == 0;
    change->attempts++;
    unit->lun->state_swap(unit->lun, change->key, is_modes ? unit->modes_text : unit->reservations_text,
                          scsi_state_text(command), swap_done, command);
}

/* The swap's answer may get lost on its way from the other node, and the change be made none the less. */
static bool is_made(const struct scsi_command *command)
{
    const struct lun *lun = command->nexus->lun;
    const char *now = lun->state(command->nexus->unit->lun, command->change.key);
    return now && strcmp(now, scsi_state_text(command)) == 0;
}

/* True: the command is over. */
static bool attempt(struct scsi_command *command)
{
    if (command->nexus->lun_nexus->dropped)
        return command->dropped = true;
    if (command->change.step(command))
        return true;
    swap(command);
    return false;
}

/* After -ESTALE. True: the change is over, one way or the other. */
static bool again(struct scsi_command *command, int *result)
{
    if (is_made(command)) {
        *result = 0;
        return true;
    }
    if (command->change.attempts < ATTEMPTS_MAX)
        return attempt(command);
    command->status = SCSI_STATUS_BUSY;
    return true;
}

/* True: the command is over. `result` is -ESTALE when its status is set already. */
static bool finish(struct scsi_command *command, int result)
{
    if (command->nexus->lun_nexus->dropped)
        return command->dropped = true;
    if (result == -ESTALE)
        return true;
    if (result == -ENOSPC)
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_NO_REGISTRATION_RESOURCES);
    if (result < 0) /* never NOT READY: the initiator comes back and asks again */
        return command->dropped = true;
    command->status = SCSI_STATUS_GOOD;
    return command->change.made ? command->change.made(command) : true;
}

/* The unit stays as long as a command waits for it. */
static void run_waiting(struct scsi_unit *unit)
{
    for (bool more = true; more && !unit->changing;) {
        struct scsi_command *command = list_entry(unit->waiting.next, struct scsi_command, request.link);
        list_remove(&command->request.link);
        unit->changing = command;
        if (!attempt(command))
            return;
        unit->changing = NULL;
        more = !list_is_empty(&unit->waiting);
        command->done(command);
    }
}

static void swap_done(void *userdata, int result)
{
    struct scsi_command *command = userdata;
    struct scsi_unit *unit = command->nexus->unit;
    scsi_unit_refresh(unit);
    if (result == -EIO && is_made(command))
        result = 0;
    if (result == -ESTALE && !again(command, &result))
        return;
    unit->changing = NULL;
    bool over = finish(command, result), more = !list_is_empty(&unit->waiting);
    if (over)
        command->done(command);
    if (more)
        run_waiting(unit);
}

bool scsi_state_change(struct scsi_command *command, const char *key, bool (*step)(struct scsi_command *command),
                       bool (*made)(struct scsi_command *command))
{
    if (!command->nexus->lun->state_swap)
        return scsi_fail(command, SCSI_KEY_HARDWARE_ERROR, SCSI_ASC_INTERNAL_TARGET_FAILURE);
    check(command->buffer_size >= SCSI_STATE_BUFFER);
    command->change = (struct scsi_change){.key = key, .step = step, .made = made};
    list_init(&command->request.link);
    struct scsi_unit *unit = command->nexus->unit;
    scsi_unit_refresh(unit);
    if (unit->changing) {
        list_append(&unit->waiting, &command->request.link);
        return false;
    }
    unit->changing = command;
    if (!attempt(command))
        return false;
    unit->changing = NULL;
    return true;
}
