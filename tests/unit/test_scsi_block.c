/* The block commands beyond reading and writing: what is compared, copied, mapped, sanitized, and what must be refused. */
#include "scsi_lab.h"

static void compares_and_writes(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t data[2048];
    memset(data, 0, 1024);
    memset(data + 1024, 7, 1024);
    assert_good(RUN(fake, &run, data, 2048, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0));
    assert_memory_equal(fake->memory + 5 * 512, data + 1024, 1024);
    fake->memory[5 * 512 + 700] = 9;
    memset(data, 7, 1024);
    assert_sense(RUN(fake, &run, data, 2048, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0),
                 SCSI_KEY_MISCOMPARE, SCSI_ASC_MISCOMPARE);
    assert_true(run.command.sense.has_sector);
    assert_int_equal(run.command.sense.sector, 700);
    /* Too many, too little, too much, out of range; nothing at all is fine. */
    assert_illegal(RUN(fake, &run, data, 2048, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 129, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, data, 1024, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, data, 2048, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, data, 2048, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, data, 2048, 0x89, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0xff, 0, 0, 0, 2, 0, 0),
                   SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_good(RUN(fake, &run, data, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0));
    assert_int_equal(fake->requests, 2);
    free(run.data);
}

static void writes_atomically_or_not(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    static uint8_t data[64 * 512];
    memset(data, 3, sizeof(data));
    assert_good(RUN(fake, &run, data, 32 * 512, 0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 32, 0, 0));
    assert_memory_equal(fake->memory + 64 * 512, data, 32 * 512);
    assert_good(RUN(fake, &run, data, 8 * 512, 0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0));
    assert_good(RUN(fake, &run, data, 0, 0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    unsigned before = fake->requests;
    static const struct { uint8_t sector, sectors, boundary; } refused[] =
        {{0, 33, 0}, {0, 40, 0}, {8, 8, 0}, {0, 4, 0}, {0, 8, 8}};
    for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        assert_illegal(RUN(fake, &run, data, refused[i].sectors * 512u, 0x9c, 0, 0, 0, 0, 0, 0, 0, 0, refused[i].sector, 0,
                           refused[i].boundary, 0, refused[i].sectors, 0, 0),
                       SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, data, 512, 0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB); /* a part came */
    assert_int_equal(fake->requests, before);
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 1, 0xb0, 0, 255, 0)); /* and the limits are told */
    assert_int_equal(be32_at(run.data + 44), 32);
    assert_int_equal(be32_at(run.data + 48), 32);
    assert_int_equal(be32_at(run.data + 52), 8);
    assert_int_equal(run.data[5], LUN_COMPARE_MAX);
    free(run.data);
}

static void ors(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t data[512];
    memset(fake->memory, 0x11, 1024);
    memset(data, 0x42, sizeof(data));
    assert_good(RUN(fake, &run, data, 512, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0));
    assert_int_equal(fake->memory[511], 0x11);
    assert_int_equal(fake->memory[512], 0x53);
    assert_int_equal(fake->memory[1023], 0x53);
    free(run.data);
}

static void verifies_byte_by_byte(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    static uint8_t data[20 * 512];
    memset(fake->memory + 512, 5, 20 * 512);
    memset(data, 5, sizeof(data));
    assert_good(RUN(fake, &run, data, 512, 0xaf, 0x06, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0)); /* 11b: one block against all */
    assert_int_equal(run.command.transfer_size, 512);
    assert_sense(RUN(fake, &run, data, 512, 0x8f, 0x06, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 21, 0, 0),
                 SCSI_KEY_MISCOMPARE, SCSI_ASC_MISCOMPARE);
    assert_illegal(RUN(fake, &run, data, 512, 0xaf, 0x04, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_good(RUN(fake, &run, data, sizeof(data), 0x2e, 0x02, 0, 0, 0, 100, 0, 0, 20, 0)); /* WRITE AND VERIFY */
    assert_memory_equal(fake->memory + 100 * 512, data, sizeof(data));
    assert_good(RUN(fake, &run, data, sizeof(data), 0xae, 0, 0, 0, 0, 200, 0, 0, 0, 20, 0, 0));
    assert_memory_equal(fake->memory + 200 * 512, data, sizeof(data));
    assert_illegal(RUN(fake, &run, data, 512, 0x2e, 0x06, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    free(run.data);
}

static void maps(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    for (unsigned block = 2; block < 5; block++)
        fake->unmapped[block] = true;
    assert_good(RUN(fake, &run, NULL, 0, 0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0));
    assert_int_equal(be32_at(run.data), 4 + 3 * 16);
    static const struct { uint64_t sector; uint32_t sectors; uint8_t status; } wanted[] =
        {{3, 13, 0}, {16, 24, 1}, {40, SECTORS - 40, 0}};
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *at = run.data + 8 + i * 16;
        assert_int_equal(be64_at(at), wanted[i].sector);
        assert_int_equal(be32_at(at + 8), wanted[i].sectors);
        assert_int_equal(at[12], wanted[i].status);
    }
    assert_good(RUN(fake, &run, NULL, 0, 0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 24, 0, 0)); /* room for one */
    assert_int_equal(run.command.transfer_size, 24);
    assert_int_equal(be32_at(run.data), 4 + 16);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 24, 0, 0),
                   SCSI_ASC_LBA_OUT_OF_RANGE);
    free(run.data);
}

/* --- EXTENDED COPY ---------------------------------------------------------------------------------------------------- */

#define COPY_SIZE (16 + 32 + 28)

static uint8_t *copy_list(struct fake *fake, uint8_t list[COPY_SIZE], uint16_t sectors, uint64_t from, uint64_t to)
{
    memset(list, 0, COPY_SIZE);
    list[0] = 9;
    put_be16(list + 2, 32);
    put_be32(list + 8, 28);
    list[16] = 0xe4;
    list[20] = 1;
    list[21] = 3;
    list[23] = 8;
    scsi_naa_of(&fake->lun, list + 24);
    put_be16(list + 46, 512);
    list[48] = 0x02;
    put_be16(list + 50, 24);
    put_be16(list + 58, sectors);
    put_be64(list + 60, from);
    put_be64(list + 68, to);
    return list;
}

static struct scsi_command *copy(struct fake *fake, struct run *run, const uint8_t *list, uint8_t size)
{
    return RUN(fake, run, list, size, 0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, size, 0, 0);
}

static void copies(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t list[COPY_SIZE];
    for (unsigned i = 0; i < 1300 * 512; i++)
        fake->memory[i] = (uint8_t)(i * 7 >> 3);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_good(copy(fake, &run, copy_list(fake, list, 1300, 0, 2000), COPY_SIZE));
    assert_memory_equal(fake->memory + 2000 * 512, fake->memory, 1300 * 512);
    assert_int_equal(fake->requests, 6); /* three windows, each read and written */
    assert_good(RUN(fake, &run, NULL, 0, 0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0));
    assert_int_equal(run.data[4], SCSI_COPY_DONE);
    assert_int_equal(be16_at(run.data + 5), 1);
    assert_int_equal(be32_at(run.data + 8), 650);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x84, 4, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_good(copy(fake, &run, NULL, 0));
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 1, 0x8f, 0, 255, 0)); /* what it offers: descriptors that fill the page */
    unsigned at = 4, end = 4u + be16_at(run.data + 2), types = 0;
    for (; at < end; at += 4u + be16_at(run.data + at + 2))
        types++;
    assert_int_equal(at, end);
    assert_int_equal(end, run.command.transfer_size);
    assert_int_equal(types, 5);
    free(run.data);
}

static void copies_nothing_that_is_wrong(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t list[COPY_SIZE];
    copy_list(fake, list, 10, 0, SECTORS - 9);
    assert_sense(copy(fake, &run, list, COPY_SIZE), SCSI_KEY_COPY_ABORTED, SCSI_ASC_NOTHING);
    copy_list(fake, list, 10, 0, 20)[55] = 1; /* a target descriptor that is not there */
    assert_sense(copy(fake, &run, list, COPY_SIZE), SCSI_KEY_COPY_ABORTED, SCSI_ASC_COPY_TARGET_NOT_REACHABLE);
    copy_list(fake, list, 10, 0, 20)[30] ^= 1; /* another logical unit */
    assert_sense(copy(fake, &run, list, COPY_SIZE), SCSI_KEY_COPY_ABORTED, SCSI_ASC_COPY_TARGET_NOT_REACHABLE);
    assert_good(RUN(fake, &run, NULL, 0, 0x84, 4, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0)); /* and it is told why */
    assert_int_equal(run.data[56], SCSI_STATUS_CHECK_CONDITION);
    assert_int_equal(run.data[60 + 2], SCSI_KEY_COPY_ABORTED);
    copy_list(fake, list, 10, 0, 20)[16] = 0xe0;
    assert_illegal(copy(fake, &run, list, COPY_SIZE), SCSI_ASC_UNSUPPORTED_TARGET_DESCRIPTOR);
    copy_list(fake, list, 10, 0, 20)[48] = 0x03;
    assert_illegal(copy(fake, &run, list, COPY_SIZE), SCSI_ASC_UNSUPPORTED_SEGMENT_DESCRIPTOR);
    copy_list(fake, list, 10, 0, 20)[47] = 1; /* blocks of another size */
    assert_illegal(copy(fake, &run, list, COPY_SIZE), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    copy_list(fake, list, 10, 0, 20);
    for (uint8_t size = 1; size < COPY_SIZE; size++)
        assert_illegal(copy(fake, &run, list, size), SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    put_be32(list + 8, UINT32_MAX);
    assert_illegal(copy(fake, &run, list, COPY_SIZE), SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    assert_int_equal(fake->requests, 0);
    free(run.data);
}

static void a_copy_that_fails_says_so(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t list[COPY_SIZE];
    fake->next_status = LUN_MEDIUM_ERROR;
    assert_sense(copy(fake, &run, copy_list(fake, list, 10, 0, 20), COPY_SIZE),
                 SCSI_KEY_COPY_ABORTED, SCSI_ASC_THIRD_PARTY_FAILURE);
    assert_good(RUN(fake, &run, NULL, 0, 0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0));
    assert_int_equal(run.data[4], SCSI_COPY_FAILED);
    free(run.data);
}

/* --- SANITIZE ----------------------------------------------------------------------------------------------------------- */

static void sanitizes(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t list[4 + 3] = {0x80 | 2, 0, 0, 3, 0x0f, 0x33, 0x55}; /* twice, the second time inverted */
    memset(fake->memory, 1, sizeof(fake->memory));
    assert_good(RUN(fake, &run, list, 7, 0x48, 0x01, 0, 0, 0, 0, 0, 0, 7, 0));
    for (unsigned sector = 0; sector < SECTORS; sector += SECTORS - 1)
        assert_memory_equal(fake->memory + sector * 512, "\xf0\xcc\xaa\xf0\xcc\xaa", 6);
    assert_good(RUN(fake, &run, NULL, 0, 0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0)); /* block erase */
    assert_int_equal(fake->memory[0], 0);
    assert_int_equal(fake->memory[sizeof(fake->memory) - 1], 0);
    assert_null(fake->lun.sanitize);
    assert_true(list_is_empty(&fake->lun.nexuses));
    unsigned before = fake->requests;
    list[0] = 0; /* no pass */
    assert_illegal(RUN(fake, &run, list, 7, 0x48, 0x01, 0, 0, 0, 0, 0, 0, 7, 0),
                   SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    list[0] = 1;
    list[3] = 4; /* a pattern that did not come whole */
    assert_illegal(RUN(fake, &run, list, 7, 0x48, 0x01, 0, 0, 0, 0, 0, 0, 7, 0),
                   SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_illegal(RUN(fake, &run, list, 4, 0x48, 0x01, 0, 0, 0, 0, 0, 0, 4, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x48, 0x42, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x48, 0x02, 0, 1, 0, 0, 0, 0, 0, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x48, 0x03, 0, 0, 0, 0, 0, 0, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB); /* nothing is encrypted */
    assert_int_equal(fake->requests, before);
    free(run.data);
}

static void nothing_else_goes_while_sanitizing(void **state)
{
    struct fake *fake = *state;
    struct run run = {0}, other = {0};
    uint8_t list[5] = {1, 0, 0, 1, 0x77};
    fake->holds = true;
    assert_good(RUN(fake, &run, list, 5, 0x48, 0x81, 0, 0, 0, 0, 0, 0, 5, 0)); /* IMMED */
    assert_non_null(fake->lun.sanitize);
    for (unsigned i = 0; i < SECTORS / 128 / 2; i++)
        serve_one(fake);
    assert_sense(RUN(fake, &other, NULL, 0, 0, 0, 0, 0, 0, 0), SCSI_KEY_NOT_READY, SCSI_ASC_SANITIZE_IN_PROGRESS);
    assert_true(other.command.sense.has_progress);
    assert_in_range(other.command.sense.progress, 0x7ff0, 0x8010); /* half of it */
    assert_sense(RUN(fake, &other, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0),
                 SCSI_KEY_NOT_READY, SCSI_ASC_SANITIZE_IN_PROGRESS);
    assert_sense(RUN(fake, &other, NULL, 0, 0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0),
                 SCSI_KEY_NOT_READY, SCSI_ASC_SANITIZE_IN_PROGRESS);
    assert_good(RUN(fake, &other, NULL, 0, 0x12, 0, 0, 0, 96, 0));
    assert_good(RUN(fake, &other, NULL, 0, 3, 0, 0, 0, 18, 0));
    assert_int_equal(be16_at(other.data + 12), SCSI_ASC_SANITIZE_IN_PROGRESS);
    assert_int_equal(other.data[15], 0x80);
    while (fake->pending)
        serve_one(fake);
    assert_good(RUN(fake, &other, NULL, 0, 0, 0, 0, 0, 0, 0));
    free(run.data);
    free(other.data);
}

static void sanitizing_that_fails_locks_the_volume(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    fake->next_status = LUN_MEDIUM_ERROR;
    assert_sense(RUN(fake, &run, NULL, 0, 0x48, 0x22, 0, 0, 0, 0, 0, 0, 0, 0),
                 SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED); /* AUSE */
    fake->next_status = LUN_OK;
    assert_sense(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0),
                 SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED);
    assert_good(RUN(fake, &run, NULL, 0, 0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0)); /* EXIT FAILURE MODE */
    assert_good(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    fake->next_status = LUN_DROPPED;
    RUN(fake, &run, NULL, 0, 0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0);
    fake->next_status = LUN_OK;
    assert_illegal(RUN(fake, &run, NULL, 0, 0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB); /* without AUSE: no way out … */
    assert_good(RUN(fake, &run, NULL, 0, 0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0)); /* … but to do it again */
    assert_good(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    free(run.data);
}

/* An aborted SANITIZE ends for its initiator at once; the sanitizing goes on. */
static void sanitizing_survives_its_command(void **state)
{
    struct fake *fake = *state;
    struct run run = {.command = {.nexus = &fake->nexus, .done = command_done, .cdb = {0x48, 0x02}}};
    memset(fake->memory, 1, sizeof(fake->memory));
    assert_true(scsi_command_plan(&run.command));
    assert_false(scsi_command_execute(&run.command));
    assert_false(run.is_done);
    scsi_command_cancel(&run.command);
    assert_true(run.is_done);
    assert_true(run.command.dropped);
    while (fake->pending)
        serve_one(fake);
    assert_int_equal(fake->memory[0], 0);
    assert_null(fake->lun.sanitize);
}

/* --- what of it is durable ------------------------------------------------------------------------------------------------ */

struct kept {
    const char *text;
    void (*done)(void *userdata, int result);
    void *userdata;
};
static struct kept kept;

static const char *state_of(struct lun *lun, const char *key)
{
    return kept.text;
}

static void swap_state(struct lun *lun, const char *key, const char *expected, const char *value,
                       void (*done)(void *userdata, int result), void *userdata)
{
    assert_string_equal(key, "sanitize");
    assert_true(expected ? kept.text && strcmp(expected, kept.text) == 0 : !kept.text);
    kept = (struct kept){.text = value, .done = done, .userdata = userdata};
}

static void swap_ends(int result)
{
    void (*done)(void *, int) = kept.done;
    assert_non_null(done);
    kept.done = NULL;
    done(kept.userdata, result);
}

/* The mark is durable before the first block and stays until after the last: a node that finds it knows enough. */
static void an_incomplete_sanitize_is_remembered(void **state)
{
    struct fake *fake = *state;
    struct run run = {.command = {.nexus = &fake->nexus, .done = command_done, .cdb = {0x48, 0x82}}};
    kept = (struct kept){0};
    fake->lun.state = state_of;
    fake->lun.state_swap = swap_state;
    assert_true(scsi_command_plan(&run.command));
    assert_false(scsi_command_execute(&run.command));
    assert_non_null(strstr(kept.text, "incomplete "));
    assert_null(fake->pending);
    assert_false(run.is_done);
    swap_ends(0);
    assert_true(run.is_done); /* IMMED */
    assert_int_equal(run.command.status, SCSI_STATUS_GOOD);
    while (fake->pending)
        serve_one(fake);
    assert_null(kept.text);
    assert_non_null(fake->lun.sanitize);
    swap_ends(0);
    assert_null(fake->lun.sanitize);
    assert_good(RUN(fake, &run, NULL, 0, 0, 0, 0, 0, 0, 0));
    kept.text = "incomplete 1"; /* another node's, which is gone */
    scsi_sanitize_refresh(&fake->lun);
    assert_sense(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0),
                 SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    kept.text = NULL;
    scsi_sanitize_refresh(&fake->lun);
    assert_good(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    free(run.data);
}

/* The one at the other node that was begun later takes over: this one must not outlast it. */
static void a_later_sanitize_takes_over(void **state)
{
    struct fake *fake = *state;
    struct run run = {.command = {.nexus = &fake->nexus, .done = command_done, .cdb = {0x48, 0x82}}};
    kept = (struct kept){0};
    fake->lun.state = state_of;
    fake->lun.state_swap = swap_state;
    assert_true(scsi_command_plan(&run.command));
    assert_false(scsi_command_execute(&run.command));
    swap_ends(0);
    assert_non_null(fake->pending);
    kept.text = "incomplete of the other";
    lun_tell(&fake->lun, LUN_STATE_CHANGED);
    serve_one(fake); /* what was under way */
    assert_null(fake->pending);
    assert_null(fake->lun.sanitize);
    assert_string_equal(kept.text, "incomplete of the other");
    assert_sense(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0),
                 SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_SANITIZE_FAILED);
    kept.text = NULL; /* it is complete */
    scsi_sanitize_refresh(&fake->lun);
    assert_good(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    free(run.data);
}

/* --- small ones --------------------------------------------------------------------------------------------------------- */

static void prefetches_and_lists_no_defects(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    assert_good(RUN(fake, &run, NULL, 0, 0x34, 0, 0, 0, 0, 0, 0, 0x10, 0, 0)); /* 4096 blocks */
    assert_good(RUN(fake, &run, NULL, 0, 0x90, 0x02, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0));
    assert_illegal(RUN(fake, &run, NULL, 0, 0x34, 0, 0, 0, 0, 1, 0, 0x10, 0, 0), SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_good(RUN(fake, &run, NULL, 0, 0x37, 0, 0x18, 0, 0, 0, 0, 0, 255, 0));
    assert_memory_equal(run.data, "\x00\x18\x00\x00", 4);
    assert_int_equal(run.command.transfer_size, 4);
    assert_good(RUN(fake, &run, NULL, 0, 0xb7, 0x0d, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0));
    assert_memory_equal(run.data, "\x00\x0d\x00\x00\x00\x00\x00\x00", 8);
    free(run.data);
}

static void unmaps_no_more_than_it_says(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    static uint8_t list[8 + 65 * 16];
    put_be16(list + 2, 65 * 16);
    assert_illegal(RUN(fake, &run, list, sizeof(list), 0x42, 0, 0, 0, 0, 0, 0, sizeof(list) >> 8, sizeof(list) & 0xff, 0),
                   SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    put_be16(list + 2, 64 * 16);
    assert_good(RUN(fake, &run, list, sizeof(list), 0x42, 0, 0, 0, 0, 0, 0, sizeof(list) >> 8, sizeof(list) & 0xff, 0));
    fake->lun.sectors = UINT64_C(1) << 40; /* 0 blocks of WRITE SAME would be all of it */
    assert_illegal(RUN(fake, &run, list, 512, 0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_int_equal(fake->requests, 0);
    free(run.data);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(compares_and_writes), TEST(writes_atomically_or_not), TEST(ors), TEST(verifies_byte_by_byte), TEST(maps),
        TEST(copies), TEST(copies_nothing_that_is_wrong), TEST(a_copy_that_fails_says_so), TEST(sanitizes),
        TEST(nothing_else_goes_while_sanitizing), TEST(sanitizing_that_fails_locks_the_volume),
        TEST(sanitizing_survives_its_command), TEST(an_incomplete_sanitize_is_remembered),
        TEST(a_later_sanitize_takes_over),
        TEST(prefetches_and_lists_no_defects), TEST(unmaps_no_more_than_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
