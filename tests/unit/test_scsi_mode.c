/* Mode pages, sense formats and unit attentions, as initiators at two nodes see them. */
#include "scsi_unit_lab.h"

/* MODE SELECT (6) of the control page. */
static struct scsi_command *set_control(unsigned user, uint8_t byte2, uint8_t byte4, bool save)
{
    uint8_t list[16] = {0, 0, 0, 0, 0x0a, 0x0a, byte2, 0x10, byte4, 0, 0, 0, 0xff, 0xff};
    return RUN_OUT(user, list, sizeof list, 0x15, save ? 0x11 : 0x10, 0, 0, sizeof list, 0);
}

/* The page as MODE SENSE (6) without block descriptor gives it. */
static const uint8_t *page_of(unsigned user, uint8_t control, uint8_t code)
{
    assert_good(RUN(user, 0x1a, 0x08, (uint8_t)(control << 6 | code), 0, 255, 0));
    return lab.users[user].data + 4;
}

static void senses_every_page(void **state)
{
    assert_good(RUN(0, 0x1a, 0, 0x3f, 0, 255, 0));
    const uint8_t *data = lab.users[0].data;
    assert_int_equal(data[0] + 1, lab.users[0].command.transfer_size);
    assert_int_equal(data[2], 0x10);
    assert_int_equal(data[3], 8);
    assert_int_equal(be32_at(data + 4), LAB_SECTORS);
    assert_int_equal(be24_at(data + 9), 512);
    static const uint8_t order[][2] = {{0x01, 0x0a}, {0x08, 0x12}, {0x8a, 0x0a}, {0x1c, 0x0a}};
    const uint8_t *at = data + 12;
    for (unsigned i = 0; i < 4; i++, at += 2 + at[1])
        assert_memory_equal(at, order[i], 2);
    assert_ptr_equal(at, data + data[0] + 1);
    assert_int_equal(page_of(0, 0, 0x08)[2], 0); /* WCE 0 */
    assert_int_equal(page_of(0, 0, 0x0a)[2], 0); /* D_SENSE 0 */
    assert_good(RUN(0, 0x5a, 0x18, 0x0a, 0xff, 0, 0, 0, 0, 255, 0));
    assert_int_equal(be16_at(lab.users[0].data), 8 + 12 - 2);
    assert_good(RUN(0, 0x5a, 0x10, 0x0a, 0, 0, 0, 0, 0, 255, 0)); /* LLBAA */
    assert_int_equal(lab.users[0].data[4], 1);
    assert_int_equal(be64_at(lab.users[0].data + 8), LAB_SECTORS);
    assert_illegal(RUN(0, 0x1a, 0, 0x02, 0, 255, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
    assert_illegal(RUN(0, 0x1a, 0, 0x0a, 1, 255, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
}

static void says_what_can_be_changed(void **state)
{
    assert_memory_equal(page_of(0, 1, 0x0a), "\x8a\x0a\x04\x00\x08\x00\x00\x00\x00\x00\x00\x00", 12);
    static const uint8_t nothing[0x12];
    assert_memory_equal(page_of(0, 1, 0x08) + 2, nothing, 0x12);
}

static void write_protection_is_of_the_unit(void **state)
{
    assert_good(write_one(2));
    assert_good(set_control(0, 0, 0x08, false));
    assert_int_equal(page_of(0, 0, 0x0a)[4], 0x08);
    assert_int_equal(lab.users[0].data[2], 0x90); /* WP in the header */
    assert_attention(2, SCSI_ASC_MODE_PARAMETERS_CHANGED); /* the other node's initiator is told, and obeys */
    assert_sense(write_one(2), SCSI_KEY_DATA_PROTECT, SCSI_ASC_SOFTWARE_WRITE_PROTECTED);
    assert_sense(write_one(0), SCSI_KEY_DATA_PROTECT, SCSI_ASC_SOFTWARE_WRITE_PROTECTED);
    assert_good(read_one(0));
    assert_good(RUN(0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0)); /* nothing is written by a flush */
    assert_good(set_control(2, 0, 0, false));
    assert_good(write_one(2));
    assert_attention(0, SCSI_ASC_MODE_PARAMETERS_CHANGED);
    assert_good(test_unit_ready(0));
}

static void the_same_again_tells_nobody(void **state)
{
    assert_good(set_control(0, 0, 0, true));
    assert_good(test_unit_ready(1));
    assert_int_equal(lab.swap_count, 0);
}

static void saved_values_come_back_with_a_reset(void **state)
{
    assert_good(set_control(0, 0x04, 0, true));
    assert_good(set_control(0, 0x04, 0x08, false));
    assert_int_equal(page_of(0, 0, 0x0a)[4], 0x08);
    assert_int_equal(page_of(0, 3, 0x0a)[4], 0);
    assert_int_equal(page_of(0, 3, 0x0a)[2], 0x04);
    assert_int_equal(page_of(0, 2, 0x0a)[2], 0); /* default */
    scsi_unit_reset(&lab.users[0].nexus, SCSI_ATTENTION_RESET);
    lab_settle();
    assert_attention(0, SCSI_ASC_BUS_DEVICE_RESET);
    assert_int_equal(page_of(0, 0, 0x0a)[4], 0);
    assert_int_equal(page_of(0, 0, 0x0a)[2], 0x04);
}

static void a_reset_is_heard_at_the_other_node(void **state)
{
    assert_good(RUN(2, 0x16, 0, 0, 0, 0, 0)); /* RESERVE (6) there */
    scsi_unit_reset(&lab.users[0].nexus, SCSI_ATTENTION_TARGET_RESET);
    scsi_unit_reset(&lab.users[1].nexus, SCSI_ATTENTION_RESET); /* while the first one is being told */
    assert_int_equal(lab.swap_count, 2); /* one of the reset, one of the reservation */
    lab.failure = -ESTALE; /* somebody was faster: again */
    lab_settle();
    assert_attention(0, SCSI_ASC_BUS_RESET);
    assert_attention(0, SCSI_ASC_BUS_DEVICE_RESET);
    assert_attention(3, SCSI_ASC_BUS_DEVICE_RESET);
    assert_attention(2, SCSI_ASC_BUS_DEVICE_RESET);
    for (unsigned user = 0; user < 4; user++)
        if (user != 1)
            assert_good(test_unit_ready(user)); /* once, and no mode parameters besides */
    assert_good(RUN(3, 0x16, 0, 0, 0, 0, 0));
}

static void a_reset_may_outlive_its_unit(void **state)
{
    scsi_unit_reset(&lab.users[0].nexus, SCSI_ATTENTION_RESET);
    lab_logout(0);
    lab_logout(1);
    lab.luns[0].unit_free(lab.luns[0].unit);
    lab.luns[0].unit = NULL;
    lab_settle();
    assert_attention(2, SCSI_ASC_BUS_DEVICE_RESET);
}

static void modes_outlive_a_restart(void **state)
{
    assert_good(set_control(0, 0, 0x08, true));
    lab_logout(0);
    lab_logout(1);
    lab.luns[0].unit_free(lab.luns[0].unit);
    lab.luns[0].unit = NULL;
    lab_login(0);
    assert_sense(write_one(0), SCSI_KEY_DATA_PROTECT, SCSI_ASC_SOFTWARE_WRITE_PROTECTED);
    lab_put(SCSI_STATE_MODES, "{\"current\":1}"); /* cannot be read: defaults */
    assert_attention(0, SCSI_ASC_MODE_PARAMETERS_CHANGED);
    assert_good(write_one(0));
}

static struct scsi_command *select_list(const uint8_t *list, uint8_t size)
{
    return RUN_OUT(0, list, size, 0x15, 0x10, 0, 0, size, 0);
}

static void malformed_lists_change_nothing(void **state)
{
    static const uint8_t cut[] = {0, 0, 0, 0, 0x0a, 0x0a, 0, 0x10}, header[] = {0, 0, 0};
    static const uint8_t no_page[] = {0, 0, 0, 0, 0x02, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t wrong_size[] = {0, 0, 0, 0, 0x0a, 0x0b, 0, 0x10, 8, 0, 0, 0, 0xff, 0xff, 0, 0, 0};
    static const uint8_t fixed_bit[] = {0, 0, 0, 0, 0x0a, 0x0a, 0, 0x10, 8, 0, 0, 0, 0, 0, 0, 0}; /* busy time-out */
    static const uint8_t subpage[] = {0, 0, 0, 0, 0x4a, 0x01, 0, 4, 0, 0, 0, 0};
    static const uint8_t other_blocks[] = {0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x10, 0};
    static const uint8_t half_descriptor[] = {0, 0, 0, 4, 0, 0, 0, 0};
    static const uint8_t good_then_bad[] = {0, 0, 0, 0, 0x0a, 0x0a, 0, 0x10, 8, 0, 0, 0, 0xff, 0xff, 0, 0, 0x02, 0};
    assert_illegal(select_list(cut, sizeof cut), SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    assert_illegal(select_list(header, sizeof header), SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    assert_illegal(select_list(no_page, sizeof no_page), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_illegal(select_list(wrong_size, sizeof wrong_size), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_illegal(select_list(fixed_bit, sizeof fixed_bit), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_int_equal(lab.users[0].command.sense.field, 12);
    assert_illegal(select_list(subpage, sizeof subpage), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_illegal(select_list(other_blocks, sizeof other_blocks), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_illegal(select_list(half_descriptor, sizeof half_descriptor), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_illegal(select_list(good_then_bad, sizeof good_then_bad), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_illegal(RUN(0, 0x15, 0x00, 0, 0, 16, 0), SCSI_ASC_INVALID_FIELD_IN_CDB); /* PF 0 */
    assert_good(RUN(0, 0x15, 0x10, 0, 0, 0, 0));
    assert_good(write_one(0));
    assert_int_equal(page_of(0, 0, 0x0a)[4], 0);
}

/* What MODE SENSE gave is taken back by MODE SELECT, both sizes, with block descriptors. */
static void what_was_sensed_may_be_selected(void **state)
{
    uint8_t list[255];
    assert_good(RUN(0, 0x1a, 0, 0x3f, 0, 255, 0));
    uint8_t size = (uint8_t)lab.users[0].command.transfer_size;
    memcpy(list, lab.users[0].data, size);
    list[0] = 0;
    assert_good(select_list(list, size));
    assert_good(RUN(0, 0x5a, 0x10, 0x3f, 0, 0, 0, 0, 0, 255, 0));
    size = (uint8_t)lab.users[0].command.transfer_size;
    memcpy(list, lab.users[0].data, size);
    list[1] = 0;
    assert_good(RUN_OUT(0, list, size, 0x55, 0x10, 0, 0, 0, 0, 0, 0, size, 0));
}

static void sense_comes_in_the_format_that_was_chosen(void **state)
{
    uint8_t sense[SCSI_SENSE_MAX];
    RUN(0, 0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0); /* beyond the end */
    assert_int_equal(scsi_command_sense(&lab.users[0].command, sense), 18);
    assert_int_equal(sense[0], 0x70);
    assert_int_equal(be16_at(sense + 12), SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_good(set_control(0, 0x04, 0, false));
    RUN(0, 0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0);
    assert_int_equal(scsi_command_sense(&lab.users[0].command, sense), 8); /* no descriptors */
    assert_int_equal(sense[0], 0x72);
    assert_int_equal(sense[1], SCSI_KEY_ILLEGAL_REQUEST);
    assert_int_equal(be16_at(sense + 2), SCSI_ASC_LBA_OUT_OF_RANGE);
    assert_attention(1, SCSI_ASC_MODE_PARAMETERS_CHANGED);
    assert_good(RUN(1, 0x03, 0x01, 0, 0, 252, 0)); /* REQUEST SENSE with DESC */
    assert_int_equal(lab.users[1].data[0], 0x72);
    assert_good(RUN(1, 0x03, 0, 0, 0, 252, 0));
    assert_int_equal(lab.users[1].data[0], 0x70);
}

static void descriptors_carry_what_fixed_format_cannot(void **state)
{
    uint8_t sense[SCSI_SENSE_MAX];
    struct scsi_sense error = {.key = 3, .asc = 0x1100, .has_sector = true, .sector = UINT64_C(0x123456789a)};
    assert_int_equal(scsi_sense_encode_descriptors(&error, sense), 20);
    assert_memory_equal(sense, "\x72\x03\x11\x00\x00\x00\x00\x0c\x00\x0a\x80\x00\x00\x00\x00\x12\x34\x56\x78\x9a", 20);
    error = (struct scsi_sense){.key = 5, .asc = 0x2400, .has_field = true, .in_cdb = true, .field = 0x0102, .bit = 3};
    assert_int_equal(scsi_sense_encode_descriptors(&error, sense), 16);
    assert_memory_equal(sense + 7, "\x08\x02\x06\x00\x00\xcb\x01\x02\x00", 9);
    error = (struct scsi_sense){.key = 2, .asc = 0x041b, .has_progress = true, .progress = 0x8000};
    assert_int_equal(scsi_sense_encode(&error, sense), 18);
    assert_memory_equal(sense + 15, "\x80\x80\x00", 3);
    error.has_sector = true;
    assert_int_equal(scsi_sense_encode_descriptors(&error, sense), SCSI_SENSE_MAX);
}

static void changes_of_the_unit_are_told_in_order(void **state)
{
    lun_tell(&lab.luns[0], LUN_ROLE_CHANGED);
    lun_tell(&lab.luns[0], LUN_CAPACITY_CHANGED);
    scsi_attention_raise(&lab.users[0].nexus, SCSI_ATTENTION_LUNS_CHANGED);
    scsi_attention_raise(&lab.users[0].nexus, SCSI_ATTENTION_NEXUS_LOSS);
    assert_good(test_unit_ready(2)); /* its node's path did not change */
    assert_attention(0, SCSI_ASC_NEXUS_LOSS);
    assert_attention(0, SCSI_ASC_CAPACITY_CHANGED);
    assert_attention(0, SCSI_ASC_ASYMMETRIC_ACCESS_CHANGED);
    assert_good(RUN(0, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0)); /* REPORT LUNS: they are known now */
    assert_good(test_unit_ready(0));
    assert_attention(1, SCSI_ASC_CAPACITY_CHANGED);
}

static void a_new_session_is_told_so(void **state)
{
    lab_logout(1);
    lab_login(1);
    scsi_nexus_close(&lab.users[1].nexus);
    assert_int_equal(scsi_nexus_open(&lab.users[1].nexus), 0);
    assert_attention(1, SCSI_ASC_POWER_ON);
    assert_good(test_unit_ready(1));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, lab_setup, lab_teardown)
    const struct CMUnitTest tests[] = {
        TEST(senses_every_page),
        TEST(says_what_can_be_changed),
        TEST(write_protection_is_of_the_unit),
        TEST(the_same_again_tells_nobody),
        TEST(saved_values_come_back_with_a_reset),
        TEST(a_reset_is_heard_at_the_other_node),
        TEST(a_reset_may_outlive_its_unit),
        TEST(modes_outlive_a_restart),
        TEST(malformed_lists_change_nothing),
        TEST(what_was_sensed_may_be_selected),
        TEST(sense_comes_in_the_format_that_was_chosen),
        TEST(descriptors_carry_what_fixed_format_cannot),
        TEST(changes_of_the_unit_are_told_in_order),
        TEST(a_new_session_is_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
