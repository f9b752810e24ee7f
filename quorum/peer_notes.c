/* The peer's last word: how soon its watchdog ends it, and which of its guests are gone. */
#include "quorum/peer_notes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/log.h"

void peer_notes_load(struct peer_notes *notes, const char *folder)
{
    cleanup_free char *text = NULL;
    size_t size;
    struct err err = {0};
    memset(notes, 0, sizeof *notes);
    notes->t_kill_ms = WIRE_T_KILL_NONE;
    snprintf(notes->path, sizeof notes->path, "%s/peer_t_kill_ms", folder);
    int error = files_read(notes->path, 32, &text, &size, &err);
    if (error == -ENOENT)
        return;
    char *end = NULL;
    unsigned long value = error < 0 ? 0 : strtoul(text, &end, 10);
    if (error < 0 || end == text || *end != '\n' || value == 0 || value > UINT32_MAX)
        log_warning("file '%s': cannot be used; until the other node is heard only a fence confirmation ends it", notes->path);
    else
        notes->t_kill_ms = (uint32_t)value;
}

void peer_notes_take_t_kill(struct peer_notes *notes, uint32_t t_kill_ms)
{
    char text[16];
    struct err err = {0};
    if (t_kill_ms == notes->t_kill_ms || t_kill_ms == 0)
        return;
    int size = snprintf(text, sizeof text, "%u\n", t_kill_ms);
    /* A longer time counts even when it cannot be kept; a shorter one only once it is. */
    if (files_replace(notes->path, text, (size_t)size, 0600, &err) < 0) {
        log_error("%s", err.text);
        if (t_kill_ms < notes->t_kill_ms)
            return;
    }
    notes->t_kill_ms = t_kill_ms;
}

bool peer_notes_take_gone(struct peer_notes *notes, const struct wire_gone *gone)
{
    unsigned slot = 0;
    while (slot < notes->gone_count && strcmp(notes->gone[slot].guest, gone->guest) != 0)
        slot++;
    if (slot < notes->gone_count && notes->gone[slot].incarnation >= gone->incarnation)
        return false;
    if (slot == PEER_GONE_MAX) { /* the oldest is forgotten: its guest then waits for the lease and T_kill */
        memmove(&notes->gone[0], &notes->gone[1], (PEER_GONE_MAX - 1) * sizeof notes->gone[0]);
        slot = PEER_GONE_MAX - 1;
    } else if (slot == notes->gone_count) {
        notes->gone_count++;
    }
    notes->gone[slot] = *gone;
    return true;
}
