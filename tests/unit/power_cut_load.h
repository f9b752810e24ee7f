/* The workload of the power-cut tests: writes of all sizes, UNMAP, reads that are checked, sessions, marks, group
 * records, volumes and disks that come and go, all at once and at random, every step told to the model. */
#pragma once

#include "tests/unit/power_cut_lab.h"
#include "tests/unit/power_cut_model.h"

#define LOAD_OPS 24u

struct load_story {
    struct cut_lab lab;
    struct model *model;      /* this process's; a load process has its own copy */
    struct model_seen *seen;  /* shared */
    unsigned operations;      /* per load */
    unsigned disk_count;      /* of the pool, when it is made */
    bool unmirrored;          /* some writes have no mirror at all */
    bool disks_change;        /* disks come and are drained: all of the lab's may be the pool's */
    bool lossy;               /* a disk fails: blocks may be lost, but never wrong */
    unsigned failing_disk;    /* lossy: this one, when so many requests were made of it */
    unsigned failing_after, failing_count;
};

/* A pool on `disk_count` of `lab_disks` simulated disks, with its first volumes. */
void load_story_new(struct load_story *story, unsigned disk_count, unsigned lab_disks, uint64_t seed);
void load_story_free(struct load_story *story);
/* `rounds` generations, each from what the power cut before left, with `cuts` cuts; returns the images that failed. */
unsigned load_story_run(struct load_story *story, unsigned rounds, unsigned cuts, unsigned fails_max);
uint64_t load_seed(void);
unsigned load_rounds(unsigned usual);
