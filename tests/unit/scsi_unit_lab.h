/* Two nodes that export one logical unit, and initiators at both: its texts are in memory, swaps are made when the test
 * says so, requests to the medium succeed at once. For tests of what initiators share. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/bytes.h"
#include "common/check.h"
#include "storaged/scsi/scsi_unit.h"
#include "tests/unit/scsi_assert.h"

#define LAB_SECTORS 4096u
#define LAB_USERS 4u
#define LAB_SWAPS 8u
#define LAB_TEXTS 4u

struct lab_swap {
    char *expected, *value;
    char key[32];
    void (*done)(void *userdata, int result);
    void *userdata;
};

struct lab_user {
    struct lun_nexus lun_nexus;
    struct scsi_nexus nexus;
    struct scsi_command command;
    uint8_t *data;
    bool is_done, is_open;
    unsigned closes; /* how often its connection was asked to be closed */
};

struct lab {
    struct lun luns[2];
    struct lab_user users[LAB_USERS]; /* 0 and 1 at the first node, 2 and 3 at the other */
    struct { char key[32]; char *value; } texts[LAB_TEXTS];
    struct lab_swap swaps[LAB_SWAPS];
    unsigned swap_count;
    int failure; /* what the next swap answers */
    bool made_all_the_same; /* … though it is made */
};

static struct lab lab;

static char **lab_text(const char *key)
{
    unsigned i = 0;
    while (lab.texts[i].key[0] && strcmp(lab.texts[i].key, key) != 0)
        check(++i < LAB_TEXTS);
    strcpy(lab.texts[i].key, key);
    return &lab.texts[i].value;
}

static inline const char *lab_state(struct lun *lun, const char *key)
{
    return *lab_text(key);
}

static inline void lab_put(const char *key, const char *value)
{
    char **text = lab_text(key), *old = *text;
    *text = value ? strdup(value) : NULL;
    free(old);
    lun_tell(&lab.luns[0], LUN_STATE_CHANGED);
    lun_tell(&lab.luns[1], LUN_STATE_CHANGED);
}

static inline void lab_swap(struct lun *lun, const char *key, const char *expected, const char *value,
                            void (*done)(void *userdata, int result), void *userdata)
{
    check(lab.swap_count < LAB_SWAPS);
    struct lab_swap *swap = &lab.swaps[lab.swap_count++];
    *swap = (struct lab_swap){.expected = expected ? strdup(expected) : NULL,
                              .value = value ? strdup(value) : NULL,
                              .done = done,
                              .userdata = userdata};
    snprintf(swap->key, sizeof swap->key, "%s", key);
}

/* Carries out the oldest swap. */
static inline void lab_step(void)
{
    assert_true(lab.swap_count > 0);
    struct lab_swap swap = lab.swaps[0];
    memmove(&lab.swaps[0], &lab.swaps[1], --lab.swap_count * sizeof swap);
    const char *now = *lab_text(swap.key);
    bool expected = now && swap.expected ? strcmp(now, swap.expected) == 0 : now == swap.expected;
    int result = lab.failure ? lab.failure : expected ? 0 : -ESTALE;
    if (expected && (result == 0 || lab.made_all_the_same))
        lab_put(swap.key, swap.value);
    lab.failure = 0;
    lab.made_all_the_same = false;
    swap.done(swap.userdata, result);
    free(swap.expected);
    free(swap.value);
}

static inline void lab_settle(void)
{
    while (lab.swap_count)
        lab_step();
}

static inline void lab_submit(struct lun *lun, struct lun_request *request)
{
    request->status = LUN_OK;
    request->done(request); /* the only place where that is from within; nothing here minds */
}

static inline void lab_closed(struct lun_nexus *nexus, const char *reason)
{
    list_entry(nexus, struct lab_user, lun_nexus)->closes++;
}

static inline void lab_changed(struct lun_nexus *nexus, enum lun_change change)
{
    scsi_nexus_changed(&list_entry(nexus, struct lab_user, lun_nexus)->nexus, change);
}

static inline void lab_login(unsigned number)
{
    struct lab_user *user = &lab.users[number];
    struct lun *lun = &lab.luns[number / 2];
    memset(&user->lun_nexus, 0, sizeof user->lun_nexus);
    snprintf(user->lun_nexus.initiator, sizeof user->lun_nexus.initiator, "iqn.2026-01.example:host%u", number);
    user->lun_nexus.close = lab_closed;
    user->lun_nexus.changed = lab_changed;
    lun_nexus_open(&user->lun_nexus, lun);
    user->nexus = (struct scsi_nexus){
        .lun = lun, .lun_nexus = &user->lun_nexus, .port_group = (uint16_t)(1 + number / 2), .isid = {0, 2, 61}};
    assert_int_equal(scsi_nexus_open(&user->nexus), 0);
    user->nexus.attentions = 0;
    user->is_open = true;
}

static inline void lab_logout(unsigned number)
{
    struct lab_user *user = &lab.users[number];
    user->is_open = false;
    lun_nexus_drop(&user->lun_nexus);
    scsi_nexus_close(&user->nexus);
    lun_nexus_close(&user->lun_nexus);
}

static inline void lab_done(struct scsi_command *command)
{
    list_entry(command, struct lab_user, command)->is_done = true;
}

/* Begins a command; true: it ended at once. */
static inline bool lab_begin(unsigned number, const uint8_t *cdb, size_t cdb_size, const void *out, uint32_t out_size)
{
    struct lab_user *user = &lab.users[number];
    struct scsi_command *command = &user->command;
    free(user->data);
    user->data = NULL;
    user->is_done = false;
    *command = (struct scsi_command){.nexus = &user->nexus, .done = lab_done};
    memcpy(command->cdb, cdb, cdb_size);
    if (!scsi_command_plan(command))
        return user->is_done = true;
    user->data = command->buffer_size ? aligned_alloc(4096, (command->buffer_size + 4095) & ~4095u) : NULL;
    command->data = user->data;
    if (command->direction == SCSI_DATA_OUT && out) {
        command->data_size = out_size < command->transfer_size ? out_size : command->transfer_size;
        memcpy(command->data, out, command->data_size);
    }
    if (scsi_command_execute(command))
        user->is_done = true;
    return user->is_done;
}

static inline struct scsi_command *lab_run(unsigned number, const uint8_t *cdb, size_t cdb_size, const void *out,
                                           uint32_t out_size)
{
    lab_begin(number, cdb, cdb_size, out, out_size);
    lab_settle();
    assert_true(lab.users[number].is_done);
    return &lab.users[number].command;
}

#define RUN_OUT(user, out, out_size, ...) \
    lab_run(user, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), out, out_size)
#define RUN(user, ...) RUN_OUT(user, NULL, 0, __VA_ARGS__)
#define assert_attention(user, asc) assert_sense(test_unit_ready(user), SCSI_KEY_UNIT_ATTENTION, asc)

static inline struct scsi_command *test_unit_ready(unsigned user) { return RUN(user, 0, 0, 0, 0, 0, 0); }
static inline struct scsi_command *read_one(unsigned user) { return RUN(user, 0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0); }
static inline struct scsi_command *write_one(unsigned user)
{
    static const uint8_t block[512];
    return RUN_OUT(user, block, 512, 0x2a, 0, 0, 0, 0, 8, 0, 0, 1, 0);
}

static inline int lab_setup(void **state)
{
    memset(&lab, 0, sizeof lab);
    for (unsigned i = 0; i < 2; i++) {
        lab.luns[i] = (struct lun){
            .sectors = LAB_SECTORS, .submit = lab_submit, .state = lab_state, .state_swap = lab_swap, .name = "db1"};
        list_init(&lab.luns[i].nexuses);
    }
    for (unsigned i = 0; i < LAB_USERS; i++)
        lab_login(i);
    return 0;
}

static inline int lab_teardown(void **state)
{
    lab_settle();
    for (unsigned i = 0; i < LAB_USERS; i++) {
        if (lab.users[i].is_open)
            lab_logout(i);
        free(lab.users[i].data);
    }
    lab_settle();
    for (unsigned i = 0; i < 2; i++) {
        if (lab.luns[i].unit)
            lab.luns[i].unit_free(lab.luns[i].unit);
    }
    for (unsigned i = 0; i < LAB_TEXTS; i++)
        free(lab.texts[i].value);
    return 0;
}
