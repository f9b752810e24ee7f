/* Power cuts: from the recorded stream of the disks' writes and flushes, the images that a cut at any place of it could
 * leave are made one after the other, and each is looked at in a process of its own.
 *
 * What a cut leaves: what a finished flush or a finished durable write covers is there. Of every other write that had
 * begun, each sector may be there or not. A flush covers the writes that had finished before it began; a durable write
 * covers itself. */
#pragma once

#include "tests/unit/power_cut_disk.h"

enum cut_sabotage {
    CUT_HONEST,
    CUT_WRITES_LIE,  /* durable writes are not: as if the pool forgot RWF_DSYNC */
    CUT_FLUSHES_LIE, /* flushes do nothing: as if it forgot fdatasync */
};

struct cut_lab {
    struct cut_device device;
    uint64_t random;
    unsigned tear_bytes; /* what the device writes at once: CUT_SECTOR, or 4096 */
    enum cut_sabotage sabotage;
    void *userdata;
    /* `note`: in this process, for each note before the place of the cut. The other two run in processes of their own:
     * `load` works on the disks, recorded; `look` opens what a cut left, 0 when all is as it must be. */
    void (*load)(void *userdata);
    void (*note)(void *userdata, const struct cut_note *note);
    int (*look)(void *userdata);
    unsigned image_count;
    bool quiet; /* failures are what is wanted */
    /* private */
    uint8_t *durable[CUT_DISKS_MAX];   /* what is there for sure */
    uint32_t *serials[CUT_DISKS_MAX];  /* per sector: 1 + the event that wrote it last there */
    uint32_t *pending;                 /* events: writes that are not there for sure, in order */
    uint32_t pending_count;
    uint32_t *done_at;                 /* per event: where it was done; 0: not yet */
    uint32_t position;                 /* events before it have happened */
};

void cut_lab_new(struct cut_lab *lab, unsigned disk_count, uint64_t bytes, uint64_t seed);
void cut_lab_free(struct cut_lab *lab);
/* Takes the disks as they are now as durable. */
void cut_lab_settle(struct cut_lab *lab);
/* Runs `load`, then cuts the power `cuts` times at rising places; returns how many images failed, after `fails_max` of
 * them at once. */
unsigned cut_lab_round(struct cut_lab *lab, unsigned cuts, unsigned fails_max);
/* One more cut of the last load at any place; its image becomes what the next round begins with. Returns what `look`
 * said of it; it may tell its parent in shared memory what it saw. */
int cut_lab_keep(struct cut_lab *lab);
/* The same without a cut: everything of the last load is there. */
int cut_lab_end(struct cut_lab *lab);
