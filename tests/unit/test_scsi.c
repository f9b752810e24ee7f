/* SCSI commands against a logical unit in memory, without a transport: CDB in; data, status and sense out. */
#include "scsi_lab.h"

static void reads_and_writes_in_every_size(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t block[1024];
    memset(block, 0x5a, sizeof(block));
    assert_good(RUN(fake, &run, block, 1024, 0x0a, 0, 0, 10, 2, 0));
    assert_good(RUN(fake, &run, block, 1024, 0x2a, 0x08, 0, 0, 0, 20, 0, 0, 2, 0)); /* FUA */
    assert_good(RUN(fake, &run, block, 1024, 0xaa, 0, 0, 0, 0, 30, 0, 0, 0, 2, 0, 0));
    assert_good(RUN(fake, &run, block, 1024, 0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0));
    for (unsigned sector = 10; sector <= 40; sector += 10)
        assert_memory_equal(fake->memory + sector * 512, block, 1024);
    assert_good(RUN(fake, &run, NULL, 0, 0x08, 0, 0, 10, 2, 0));
    assert_int_equal(run.command.transfer_size, 1024);
    assert_memory_equal(run.data, block, 1024);
    assert_good(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 20, 0, 0, 2, 0));
    assert_memory_equal(run.data, block, 1024);
    assert_good(RUN(fake, &run, NULL, 0, 0xa8, 0, 0, 0, 0, 30, 0, 0, 0, 2, 0, 0));
    assert_memory_equal(run.data, block, 1024);
    assert_good(RUN(fake, &run, NULL, 0, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0));
    assert_memory_equal(run.data, block, 1024);
    assert_good(RUN(fake, &run, NULL, 0, 0x08, 0, 0, 0, 0, 0)); /* READ (6) of 0 means 256 */
    assert_int_equal(run.command.transfer_size, 256 * 512);
    free(run.data);
}

static void ranges_are_checked(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    assert_illegal(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0x10, 0, 0, 0, 1, 0), SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0x0f, 0xff, 0, 0, 2, 0), SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_good(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0x0f, 0xff, 0, 0, 1, 0));
    assert_good(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0x10, 0, 0, 0, 0, 0));
    assert_illegal(RUN(fake, &run, NULL, 0, 0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0), SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 0, 0, 0x08, 0x01, 0), SCSI_ASC_INVALID_FIELD_IN_CDB); /* 2049 */
    assert_true(run.command.sense.has_field && run.command.sense.in_cdb);
    assert_int_equal(run.command.sense.field, 7);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_ASC_INVALID_FIELD_IN_CDB); /* RDPROTECT */
    assert_int_equal(fake->requests, 1);
    free(run.data);
}

static void a_short_write_writes_what_came(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t block[1024];
    memset(block, 7, sizeof(block));
    assert_good(RUN(fake, &run, block, 700, 0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0));
    assert_int_equal(fake->memory[511], 7);
    assert_int_equal(fake->memory[512], 0);
    assert_good(RUN(fake, &run, block, 0, 0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0));
    assert_int_equal(fake->requests, 1);
    free(run.data);
}

static void group_errors_become_sense(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t block[512] = {0};
    fake->next_status = LUN_MEDIUM_ERROR;
    fake->bad_sector = 77;
    assert_sense(RUN(fake, &run, NULL, 0, 0x28, 0, 0, 0, 0, 70, 0, 0, 9, 0), SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_UNRECOVERED_READ_ERROR);
    assert_int_equal(run.command.sense.sector, 77);
    assert_sense(RUN(fake, &run, block, 512, 0x2a, 0, 0, 0, 0, 70, 0, 0, 1, 0), SCSI_KEY_MEDIUM_ERROR, SCSI_ASC_WRITE_ERROR);
    fake->next_status = LUN_NO_SPACE;
    assert_sense(RUN(fake, &run, block, 512, 0x2a, 0, 0, 0, 0, 70, 0, 0, 1, 0), SCSI_KEY_DATA_PROTECT, SCSI_ASC_SPACE_ALLOCATION_FAILED);
    fake->next_status = LUN_DROPPED;
    assert_true(RUN(fake, &run, block, 512, 0x2a, 0, 0, 0, 0, 70, 0, 0, 1, 0)->dropped);
    free(run.data);
}

static void unmaps(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t list[40] = {0, 38, 0, 32};
    memset(fake->memory, 1, sizeof(fake->memory));
    put_be64(list + 8, 1);
    put_be32(list + 16, 2);
    put_be64(list + 24, 4095);
    put_be32(list + 32, 1);
    assert_good(RUN(fake, &run, list, 40, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0));
    assert_int_equal(fake->requests, 2);
    assert_int_equal(fake->memory[511], 1);
    assert_int_equal(fake->memory[512], 0);
    assert_int_equal(fake->memory[3 * 512], 1);
    assert_int_equal(fake->memory[sizeof(fake->memory) - 1], 0);
    put_be32(list + 32, 2);
    assert_illegal(RUN(fake, &run, list, 40, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_int_equal(fake->requests, 2); /* not even the first was carried out */
    assert_good(RUN(fake, &run, list, 20, 0x42, 0, 0, 0, 0, 0, 0, 0, 20, 0)); /* no whole descriptor */
    assert_good(RUN(fake, &run, NULL, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    assert_illegal(RUN(fake, &run, list, 4, 0x42, 0, 0, 0, 0, 0, 0, 0, 4, 0), SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    assert_illegal(RUN(fake, &run, list, 40, 0x42, 1, 0, 0, 0, 0, 0, 0, 40, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_int_equal(fake->requests, 2);
    free(run.data);
}

static void writes_same(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    uint8_t block[512], zeros[512] = {0};
    memset(block, 9, sizeof(block));
    memset(fake->memory, 1, sizeof(fake->memory));
    assert_good(RUN(fake, &run, block, 512, 0x41, 0, 0, 0, 0, 1, 0, 0x0c, 0x00, 0)); /* 3072 blocks: two requests */
    assert_int_equal(fake->requests, 2);
    assert_int_equal(fake->memory[511], 1);
    assert_int_equal(fake->memory[512], 9);
    assert_int_equal(fake->memory[3073 * 512 - 1], 9);
    assert_int_equal(fake->memory[3073 * 512], 1);
    assert_good(RUN(fake, &run, zeros, 512, 0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0));
    assert_int_equal(fake->memory[1024], 0);
    assert_good(RUN(fake, &run, NULL, 0, 0x93, 0x09, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0)); /* NDOB */
    assert_int_equal(fake->memory[3 * 512], 0);
    assert_good(RUN(fake, &run, zeros, 512, 0x41, 0, 0, 0, 0, 1, 0, 0, 0, 0)); /* 0 blocks: to the end */
    assert_int_equal(fake->memory[512], 0);
    assert_int_equal(fake->memory[sizeof(fake->memory) - 1], 0);
    assert_illegal(RUN(fake, &run, zeros, 512, 0x41, 0x10, 0, 0, 0, 1, 0, 0, 1, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    free(run.data);
}

static void verifies(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    static uint8_t data[20 * 512];
    assert_good(RUN(fake, &run, NULL, 0, 0x2f, 0, 0, 0, 0, 0, 0, 0, 20, 0));
    assert_good(RUN(fake, &run, data, sizeof(data), 0x2f, 0x02, 0, 0, 0, 0, 0, 0, 20, 0));
    fake->memory[20 * 512 - 1] = 1;
    assert_sense(RUN(fake, &run, data, sizeof(data), 0x2f, 0x02, 0, 0, 0, 0, 0, 0, 20, 0), SCSI_KEY_MISCOMPARE, SCSI_ASC_MISCOMPARE);
    assert_illegal(RUN(fake, &run, data, 512, 0x2f, 0x04, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    free(run.data);
}

static void says_what_it_is(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 0, 0, 0, 255, 0));
    assert_int_equal(run.command.transfer_size, 96);
    assert_int_equal(run.data[0], 0);
    assert_memory_equal(run.data + 8, "HCI     VOLUME          ", 24);
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 0, 0, 0, 5, 0));
    assert_int_equal(run.command.transfer_size, 5);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x12, 0, 1, 0, 255, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(fake, &run, NULL, 0, 0x12, 1, 0xbb, 0, 255, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 1, 0, 0, 255, 0));
    assert_memory_equal(run.data + 4, "\x00\x80\x83\x86\x8f\xb0\xb1\xb2", 8);
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 1, 0x83, 0, 255, 0));
    assert_int_equal(be16_at(run.data + 2) + 4, run.command.transfer_size);
    assert_memory_equal(run.data + 4, "\x01\x03\x00\x08\x38\xa9\xaa", 7); /* NAA 3, from the volume id */
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 1, 0xb0, 0, 255, 0));
    assert_int_equal(be32_at(run.data + 8), 2048);
    free(run.data);
}

static void tells_its_capacity(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    assert_good(RUN(fake, &run, NULL, 0, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    assert_int_equal(be32_at(run.data), SECTORS - 1);
    assert_int_equal(be32_at(run.data + 4), 512);
    assert_good(RUN(fake, &run, NULL, 0, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0));
    assert_int_equal(be64_at(run.data), SECTORS - 1);
    assert_int_equal(run.data[13], 3);
    assert_int_equal(run.data[14], 0xc0);
    fake->lun.sectors = UINT64_C(1) << 33;
    assert_good(RUN(fake, &run, NULL, 0, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    assert_int_equal(be32_at(run.data), UINT32_MAX);
    free(run.data);
}

static void reports_port_groups(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    for (int here = 0; here < 2; here++) {
        optimized_here = here;
        assert_good(RUN(fake, &run, NULL, 0, 0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0));
        assert_int_equal(be32_at(run.data), 24);
        assert_int_equal(be16_at(run.data + 4 + 2), 1);
        assert_int_equal(run.data[4], here ? 1 : 0); /* this node is group 2 */
        assert_int_equal(run.data[16], here ? 0 : 1);
        assert_int_equal(be16_at(run.data + 16 + 10), 2);
    }
    free(run.data);
}

static void other_units_do_not_exist(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    const uint64_t unit_1 = UINT64_C(1) << 48, flat_0 = UINT64_C(0x4000) << 48;
    const uint8_t inquiry[6] = {0x12, 0, 0, 0, 96, 0}, ready[6] = {0}, luns[12] = {0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16}, sense[6] = {3, 0, 0, 0, 18};
    assert_good(run_lun(fake, &run, unit_1, inquiry, 6, NULL, 0));
    assert_int_equal(run.data[0], 0x7f);
    assert_illegal(run_lun(fake, &run, unit_1, ready, 6, NULL, 0), SCSI_ASC_LOGICAL_UNIT_NOT_SUPPORTED);
    assert_good(run_lun(fake, &run, unit_1, luns, 12, NULL, 0));
    assert_int_equal(be32_at(run.data), 8);
    assert_good(run_lun(fake, &run, unit_1, sense, 6, NULL, 0));
    assert_int_equal(be16_at(run.data + 12), SCSI_ASC_LOGICAL_UNIT_NOT_SUPPORTED);
    assert_good(run_lun(fake, &run, flat_0, ready, 6, NULL, 0));
    free(run.data);
}

static void attentions_are_told_once(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    scsi_attention_raise(&fake->nexus, SCSI_ATTENTION_RESET);
    scsi_attention_raise(&fake->nexus, SCSI_ATTENTION_POWER_ON);
    assert_good(RUN(fake, &run, NULL, 0, 0x12, 0, 0, 0, 96, 0)); /* INQUIRY does not tell */
    assert_sense(RUN(fake, &run, NULL, 0, 0, 0, 0, 0, 0, 0), SCSI_KEY_UNIT_ATTENTION, SCSI_ASC_POWER_ON);
    assert_good(RUN(fake, &run, NULL, 0, 3, 0, 0, 0, 18, 0)); /* REQUEST SENSE does, in its data */
    assert_int_equal(run.data[2], SCSI_KEY_UNIT_ATTENTION);
    assert_int_equal(be16_at(run.data + 12), SCSI_ASC_BUS_DEVICE_RESET);
    assert_good(RUN(fake, &run, NULL, 0, 0, 0, 0, 0, 0, 0));
    free(run.data);
}

static uint8_t action_of(unsigned opcode)
{
    const struct scsi_operation *operation;
    for (unsigned i = 0; (operation = scsi_operation_at(i)); i++)
        if (operation->opcode == opcode && operation->service_action > 0)
            return (uint8_t)operation->service_action;
    return 0;
}

/* Every command that is said to be supported is, and no other: all 256 opcodes, with zeros. */
static void reports_what_it_supports(void **state)
{
    struct fake *fake = *state;
    struct run run = {0}, probe = {0};
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        assert_good(RUN(fake, &run, NULL, 0, 0xa3, 0x0c, 3, (uint8_t)opcode, 0, action_of(opcode), 0, 0, 0, 255, 0, 0));
        bool told = run.data[1] == 3;
        uint8_t cdb[16] = {(uint8_t)opcode, action_of(opcode)}, zeros[512] = {0};
        run_lun(fake, &probe, 0, cdb, 16, zeros, sizeof(zeros));
        bool known = !(probe.command.status == SCSI_STATUS_CHECK_CONDITION && probe.command.sense.asc == SCSI_ASC_INVALID_OPERATION_CODE);
        assert_int_equal(told, known);
    }
    assert_good(RUN(fake, &run, NULL, 0, 0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0));
    assert_int_equal(be32_at(run.data) % 20, 0);
    assert_illegal(RUN(fake, &run, NULL, 0, 0xa3, 0x0c, 1, 0x9e, 0, 0, 0, 0, 0, 255, 0, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    free(run.data);
    free(probe.data);
}

/* Any CDB at all ends with a status, asks for no more memory than there may be, and reads nothing outside. */
static void survives_any_cdb(void **state)
{
    struct fake *fake = *state;
    struct run run = {0};
    static uint8_t junk[LUN_REQUEST_MAX];
    srandom(1);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t cdb[16];
        const struct scsi_operation *operation = scsi_operation_at((unsigned)random() % 64);
        for (unsigned j = 0; j < 16; j++)
            cdb[j] = random() % 3 ? 0 : (uint8_t)random();
        cdb[0] = operation ? operation->opcode : (uint8_t)random();
        if (operation && operation->service_action >= 0)
            cdb[1] = (uint8_t)operation->service_action;
        for (unsigned j = 0; j < 2048; j++)
            junk[j] = random() % 3 ? 0 : (uint8_t)random();
        run_lun(fake, &run, 0, cdb, 16, junk, (uint32_t)random() % sizeof(junk));
        assert_true(run.command.buffer_size <= LUN_REQUEST_MAX + 8192);
        assert_true(run.command.status == SCSI_STATUS_GOOD || run.command.status == SCSI_STATUS_CHECK_CONDITION ||
                    run.command.status == SCSI_STATUS_RESERVATION_CONFLICT);
    }
    free(run.data);
}

static void encodes_sense(void **state)
{
    struct scsi_sense sense = {.key = 5, .asc = 0x2400, .has_field = true, .in_cdb = true, .field = 0x0102, .bit = 3};
    uint8_t data[SCSI_SENSE_MAX];
    assert_int_equal(scsi_sense_encode(&sense, data), 18);
    assert_memory_equal(data, "\x70\x00\x05\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x24\x00\x00\xcb\x01\x02", 18);
    sense = (struct scsi_sense){.key = 3, .asc = 0x1100, .has_sector = true, .sector = 0x01020304};
    scsi_sense_encode(&sense, data);
    assert_memory_equal(data, "\xf0\x00\x03\x01\x02\x03\x04", 7);
    sense.sector = UINT64_C(1) << 32;
    scsi_sense_encode(&sense, data);
    assert_int_equal(data[0], 0x70); /* does not fit: not valid rather than wrong */
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reads_and_writes_in_every_size), TEST(ranges_are_checked), TEST(a_short_write_writes_what_came),
        TEST(group_errors_become_sense), TEST(unmaps), TEST(writes_same), TEST(verifies), TEST(says_what_it_is),
        TEST(tells_its_capacity), TEST(reports_port_groups), TEST(other_units_do_not_exist), TEST(attentions_are_told_once),
        TEST(reports_what_it_supports), TEST(survives_any_cdb), TEST(encodes_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
