/* SANITIZE: everything on the volume becomes unreadable, by overwriting it or by giving all of its space back
 * (SBC-4 §4.11, §5.30). It goes on in the background, whatever becomes of the command and of its session.
 *
 * A text of the volume says from before the first to after the last block that it is not complete: what was cut short,
 * by a crash or a takeover, reads errors on every node until somebody sanitizes it again. It names which one it is of:
 * one that is begun at the other node takes the place of one that still runs here, which would else go on to destroy
 * what is written after the end of the other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/log.h"
#include "storaged/scsi/scsi_unit.h"

#define OVERWRITE 0x01
#define BLOCK_ERASE 0x02
#define EXIT_FAILURE_MODE 0x1f
#define HEADER 4u             /* of the overwrite parameter list */
#define WRITE_SECTORS 128u    /* at a time, one at a time: other volumes' requests never wait long */
#define ERASE_SECTORS (1u << 15)
#define STATE_KEY "sanitize"  /* of lun->state */
#define INCOMPLETE "incomplete "
#define MAY_EXIT ", may exit" /* AUSE */

struct scsi_sanitize {
    struct lun *lun;
    struct lun_nexus nexus; /* its own: the session that asked for it may end */
    struct lun_request request;
    char mark[sizeof(INCOMPLETE) + ID_TEXT_SIZE + sizeof(MAY_EXIT)];
    bool marked; /* the volume's text is ours: when it changes, another has taken over */
    bool invert, may_exit, immediate, closing;
    unsigned pass, passes;
    uint64_t sector;
    uint8_t *pattern;            /* WRITE_SECTORS; NULL: block erase */
    struct scsi_command *waiter; /* NULL: it was answered (IMMED), or aborted */
};

bool scsi_plan_sanitize(struct scsi_command *command)
{
    uint32_t size = be16_at(command->cdb + 7);
    bool overwrites = (command->cdb[1] & 0x1f) == OVERWRITE;
    if (command->cdb[1] & 0x40) /* ZNR: no zones here */
        return scsi_plan_fail_cdb(command, 1, 6);
    for (uint16_t i = 2; i < 7; i++)
        if (command->cdb[i])
            return scsi_plan_fail_cdb(command, i, -1);
    if (overwrites ? size <= HEADER || size > HEADER + LUN_SECTOR_SIZE : size != 0)
        return scsi_plan_fail_cdb(command, 7, -1);
    command->transfer_size = command->buffer_size = size;
    command->direction = size ? SCSI_DATA_OUT : SCSI_NO_DATA;
    return true;
}

/* --- the background ----------------------------------------------------------------------------------------------------- */

static void answer(struct scsi_sanitize *sanitize, bool good)
{
    struct scsi_command *waiter = sanitize->waiter;
    sanitize->waiter = NULL;
    if (!waiter)
        return;
    if (good)
        scsi_execute_nothing(waiter);
    else
        scsi_fail(waiter, SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED);
    waiter->done(waiter);
}

static void end(struct scsi_sanitize *sanitize, bool good)
{
    struct lun *lun = sanitize->lun;
    if (good)
        log_notice("volume '%s': sanitizing is complete", lun->name);
    else
        log_error("volume '%s': sanitizing failed; it reads errors until an initiator sanitizes it again", lun->name);
    lun->sanitize = NULL;
    lun->sanitize_failed = !good;
    lun->sanitize_may_exit = !good && sanitize->may_exit;
    scsi_sanitize_refresh(lun); /* the text knows better: nothing was begun, or another goes on */
    answer(sanitize, good); /* its session may end with that, the unit not before our nexus */
    lun_nexus_drop(&sanitize->nexus);
    lun_nexus_close(&sanitize->nexus);
    free(sanitize->pattern);
    free(sanitize);
}

static void unmarked(void *userdata, int result)
{
    struct scsi_sanitize *sanitize = userdata;
    end(sanitize, result == 0);
}

static void complete(struct scsi_sanitize *sanitize)
{
    struct lun *lun = sanitize->lun;
    sanitize->marked = false;
    if (lun->state_swap)
        lun->state_swap(lun, STATE_KEY, sanitize->mark, NULL, unmarked, sanitize);
    else
        end(sanitize, true);
}

static void invert(struct scsi_sanitize *sanitize)
{
    for (size_t i = 0; i < WRITE_SECTORS * LUN_SECTOR_SIZE; i++)
        sanitize->pattern[i] = (uint8_t)~sanitize->pattern[i];
}

static void step(struct scsi_sanitize *sanitize)
{
    struct lun_request *request = &sanitize->request;
    uint64_t left = sanitize->lun->sectors - sanitize->sector;
    uint32_t most = sanitize->pattern ? WRITE_SECTORS : ERASE_SECTORS;
    if (left == 0) {
        if (++sanitize->pass == sanitize->passes) {
            complete(sanitize);
            return;
        }
        sanitize->sector = 0;
        left = sanitize->lun->sectors;
        if (sanitize->invert)
            invert(sanitize);
    }
    request->opcode = sanitize->pattern ? LUN_WRITE : LUN_UNMAP;
    request->data = sanitize->pattern;
    request->sector = sanitize->sector;
    request->sectors = left < most ? (uint32_t)left : most;
    lun_submit(sanitize->lun, request);
}

static void request_done(struct lun_request *request)
{
    struct scsi_sanitize *sanitize = list_entry(request, struct scsi_sanitize, request);
    sanitize->sector += request->sectors;
    if (request->status != LUN_OK || sanitize->closing)
        end(sanitize, false);
    else
        step(sanitize);
}

/* A request or a change of the mark is always in flight here; its end is the end of all. */
static void close_nexus(struct lun_nexus *nexus, const char *reason)
{
    struct scsi_sanitize *sanitize = list_entry(nexus, struct scsi_sanitize, nexus);
    if (!sanitize->closing)
        log_warning("volume '%s': sanitizing has to stop: %s", sanitize->lun->name, reason);
    sanitize->closing = true;
}

static void state_changed(struct lun_nexus *nexus, enum lun_change change)
{
    struct scsi_sanitize *sanitize = list_entry(nexus, struct scsi_sanitize, nexus);
    if (change != LUN_STATE_CHANGED || !sanitize->marked)
        return;
    const char *text = sanitize->lun->state(sanitize->lun, STATE_KEY);
    if (!text || strcmp(text, sanitize->mark) != 0)
        close_nexus(nexus, "it is sanitized anew from the other node");
}

static void marked(void *userdata, int result)
{
    struct scsi_sanitize *sanitize = userdata;
    sanitize->marked = result == 0;
    if (sanitize->marked)
        state_changed(&sanitize->nexus, LUN_STATE_CHANGED); /* maybe already */
    if (result < 0 || sanitize->closing) {
        end(sanitize, false);
        return;
    }
    if (sanitize->immediate)
        answer(sanitize, true);
    step(sanitize);
}

/* False: there are no marks; `marked` is not called. */
static bool mark(struct scsi_sanitize *sanitize)
{
    struct lun *lun = sanitize->lun;
    struct id id = id_random();
    char text[ID_TEXT_SIZE];
    if (!lun->state_swap)
        return false;
    snprintf(sanitize->mark, sizeof(sanitize->mark), INCOMPLETE "%s%s", id_format(&id, text), sanitize->may_exit ? MAY_EXIT : "");
    lun->state_swap(lun, STATE_KEY, lun->state(lun, STATE_KEY), sanitize->mark, marked, sanitize);
    return true;
}

/* --- the command ---------------------------------------------------------------------------------------------------------- */

/* The initialization pattern is repeated from each logical block's beginning (SBC-4 §5.30.2.2). */
static bool fill_pattern(struct scsi_sanitize *sanitize, const struct scsi_command *command)
{
    const uint8_t *list = command->data;
    uint16_t size = be16_at(list + 2);
    sanitize->passes = list[0] & 0x1f;
    sanitize->invert = list[0] & 0x80;
    sanitize->pattern = aligned_alloc(LUN_BLOCK_SIZE, WRITE_SECTORS * LUN_SECTOR_SIZE);
    if (!sanitize->pattern)
        return false;
    for (size_t i = 0; i < WRITE_SECTORS * LUN_SECTOR_SIZE; i++)
        sanitize->pattern[i] = list[HEADER + i % LUN_SECTOR_SIZE % size];
    return true;
}

static bool check_list(struct scsi_command *command)
{
    const uint8_t *list = command->data;
    if (command->data_size < command->transfer_size)
        return !scsi_fail_cdb(command, 7, -1);
    if (list[0] & 0x60 || !(list[0] & 0x1f)) /* TEST; an overwrite count of 0 */
        return !scsi_fail_parameter(command, 0);
    if (be16_at(list + 2) == 0 || be16_at(list + 2) != command->data_size - HEADER)
        return !scsi_fail_parameter(command, 2);
    return true;
}

static struct scsi_sanitize *sanitize_new(struct scsi_command *command)
{
    struct scsi_sanitize *sanitize = calloc(1, sizeof(*sanitize));
    if (!sanitize)
        return NULL;
    sanitize->lun = command->nexus->lun;
    sanitize->passes = 1;
    sanitize->may_exit = command->cdb[1] & 0x20; /* AUSE */
    sanitize->immediate = command->cdb[1] & 0x80;
    sanitize->waiter = command;
    if (command->direction == SCSI_DATA_OUT && !fill_pattern(sanitize, command)) {
        free(sanitize);
        return NULL;
    }
    memcpy(sanitize->nexus.initiator, command->nexus->lun_nexus->initiator, sizeof(sanitize->nexus.initiator));
    strcpy(sanitize->nexus.address, "SANITIZE"); /* for those who list sessions */
    sanitize->nexus.close = close_nexus;
    sanitize->nexus.changed = state_changed;
    sanitize->request.done = request_done;
    sanitize->request.nexus = &sanitize->nexus;
    list_init(&sanitize->request.link);
    return sanitize;
}

static void exited(void *userdata, int result)
{
    struct scsi_command *command = userdata;
    command->status = result == 0 ? SCSI_STATUS_GOOD : SCSI_STATUS_BUSY;
    if (result == 0)
        command->nexus->lun->sanitize_failed = false;
    command->done(command);
}

static bool exit_failure_mode(struct scsi_command *command)
{
    struct lun *lun = command->nexus->lun;
    if (lun->sanitize_failed && !lun->sanitize_may_exit)
        return scsi_fail_cdb(command, 1, 4);
    if (lun->sanitize_failed && lun->state_swap) {
        lun->state_swap(lun, STATE_KEY, lun->state(lun, STATE_KEY), NULL, exited, command);
        return false;
    }
    lun->sanitize_failed = false;
    return scsi_execute_nothing(command);
}

bool scsi_execute_sanitize(struct scsi_command *command)
{
    struct lun *lun = command->nexus->lun;
    if ((command->cdb[1] & 0x1f) == EXIT_FAILURE_MODE)
        return exit_failure_mode(command);
    if (lun->sanitize) /* begun while this command's data was on its way */
        return scsi_sanitize_refuses(command);
    if (command->direction == SCSI_DATA_OUT && !check_list(command))
        return true;
    struct scsi_sanitize *sanitize = lun->closing ? NULL : sanitize_new(command);
    if (!sanitize) {
        command->status = SCSI_STATUS_BUSY;
        return true;
    }
    lun->sanitize = sanitize;
    lun->sanitize_failed = false;
    lun_nexus_open(&sanitize->nexus, lun);
    log_notice("volume '%s': initiator %s sanitizes it", lun->name, sanitize->nexus.initiator);
    if (mark(sanitize))
        return false;
    bool immediate = sanitize->immediate;
    if (immediate)
        sanitize->waiter = NULL;
    step(sanitize);
    return immediate && scsi_execute_nothing(command);
}

/* --- what others see of it ---------------------------------------------------------------------------------------------- */

void scsi_sanitize_refresh(struct lun *lun)
{
    const char *text = lun->state ? lun->state(lun, STATE_KEY) : NULL;
    if (!lun->state || lun->sanitize)
        return;
    lun->sanitize_failed = text != NULL;
    lun->sanitize_may_exit = text && strstr(text, MAY_EXIT);
}

static bool is_allowed(const struct scsi_command *command)
{
    switch (command->cdb[0]) {
    case 0x03: /* REQUEST SENSE */
    case 0x12: /* INQUIRY */
    case 0xa0: /* REPORT LUNS */
    case 0xa3: return true; /* REPORT … */
    case 0x48: return command->nexus->lun->sanitize == NULL;
    default: return false;
    }
}

bool scsi_sanitize_report(struct scsi_command *command)
{
    const struct lun *lun = command->nexus->lun;
    const struct scsi_sanitize *sanitize = lun->sanitize;
    if (lun->sanitize_failed)
        return scsi_fail(command, SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED);
    if (!sanitize)
        return false;
    double part = (sanitize->pass + (double)sanitize->sector / (double)lun->sectors) / sanitize->passes;
    scsi_fail(command, SCSI_KEY_NOT_READY, SCSI_ASC_SANITIZE_IN_PROGRESS);
    command->sense.has_progress = true;
    command->sense.progress = (uint16_t)(part * UINT16_MAX);
    return true;
}

bool scsi_sanitize_refuses(struct scsi_command *command)
{
    return !is_allowed(command) && scsi_sanitize_report(command);
}

void scsi_command_cancel(struct scsi_command *command)
{
    struct scsi_sanitize *sanitize = command->nexus->lun ? command->nexus->lun->sanitize : NULL;
    bool waits = sanitize && sanitize->waiter == command;
    if (waits)
        sanitize->waiter = NULL;
    else if (!scsi_unit_undrain(command))
        return;
    command->dropped = true;
    command->done(command);
}
