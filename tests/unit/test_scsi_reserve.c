/* Reservations as initiators at two nodes see them: PERSISTENT RESERVE, RESERVE, RELEASE and what conflicts. */
#include "scsi_unit_lab.h"

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE };

static void put_list(uint8_t list[static 24], uint64_t key, uint64_t service_key, uint8_t flags)
{
    memset(list, 0, 24);
    put_be64(list, key);
    put_be64(list + 8, service_key);
    list[20] = flags;
}

static struct scsi_command *reserve_out(unsigned user, uint8_t action, uint8_t type, uint64_t key, uint64_t service_key)
{
    uint8_t list[24];
    put_list(list, key, service_key, 0);
    return RUN_OUT(user, list, 24, 0x5f, action, type, 0, 0, 0, 0, 0, 24, 0);
}

static bool begin_out(unsigned user, uint8_t action, uint8_t type, uint64_t key, uint64_t service_key)
{
    uint8_t list[24], cdb[10] = {0x5f, action, type, 0, 0, 0, 0, 0, 24, 0};
    put_list(list, key, service_key, 0);
    return lab_begin(user, cdb, sizeof cdb, list, 24);
}

/* Users with a key each: user n has 10 + n. */
static void register_users(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_good(reserve_out(i, REGISTER, 0, 0, 10 + i));
}

static const uint8_t *reserve_in(unsigned user, uint8_t action)
{
    assert_good(RUN(user, 0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0));
    return lab.users[user].data;
}

static void keys_are_seen_from_both_nodes(void **state)
{
    register_users(3);
    for (unsigned user = 0; user < 4; user++) {
        const uint8_t *data = reserve_in(user, 0);
        assert_int_equal(be32_at(data), 3); /* generation */
        assert_int_equal(be32_at(data + 4), 24);
        assert_int_equal(be64_at(data + 8 + 16), 12);
        assert_int_equal(lab.users[user].command.transfer_size, 32);
    }
    assert_good(RUN(0, 0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0)); /* a short allocation length cuts, the length field stays */
    assert_int_equal(lab.users[0].command.transfer_size, 8);
    assert_int_equal(be32_at(lab.users[0].data + 4), 24);
}

static void the_reservation_is_told(void **state)
{
    register_users(2);
    assert_int_equal(be32_at(reserve_in(0, 1) + 4), 0);
    assert_good(reserve_out(1, RESERVE, 5, 11, 0));
    const uint8_t *data = reserve_in(2, 1);
    assert_int_equal(be32_at(data + 4), 16);
    assert_int_equal(be64_at(data + 8), 11);
    assert_int_equal(data[21], 5);
    assert_good(reserve_out(1, RELEASE, 5, 11, 0));
    assert_good(reserve_out(1, RESERVE, 8, 11, 0));
    assert_int_equal(be64_at(reserve_in(2, 1) + 8), 0); /* all registrants: no key */
}

static void full_status_names_the_initiator_ports(void **state)
{
    register_users(3);
    assert_good(reserve_out(2, RESERVE, 3, 12, 0));
    const uint8_t *data = reserve_in(0, 3), *at = data + 8;
    static const char name[] = "iqn.2026-01.example:host0,i,0x00023d000000";
    assert_int_equal(be64_at(at), 10);
    assert_int_equal(at[12], 0);
    assert_int_equal(be16_at(at + 18), 1);
    assert_int_equal(at[24], 0x45); /* iSCSI, with ISID */
    assert_int_equal(be16_at(at + 26), (sizeof name + 3) & ~3u);
    assert_string_equal((const char *)at + 28, name);
    assert_int_equal(be32_at(at + 20), 4 + be16_at(at + 26));
    at += 2 * (24 + be32_at(at + 20));
    assert_int_equal(be64_at(at), 12);
    assert_int_equal(at[12], 1); /* holds it */
    assert_int_equal(at[13], 3);
    assert_int_equal(be16_at(at + 18), 2); /* the other node's port */
    assert_int_equal(be32_at(data + 4) + 8, lab.users[0].command.transfer_size);
}

static void capabilities_are_those_there_are(void **state)
{
    const uint8_t *data = reserve_in(0, 2);
    assert_memory_equal(data, "\x00\x08\x15\x90\xea\x01\x00\x00", 8);
    uint8_t list[24];
    put_list(list, 0, 5, 0x01); /* APTPL */
    assert_good(RUN_OUT(0, list, 24, 0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0));
    assert_int_equal(reserve_in(1, 2)[3], 0x91);
    assert_illegal(RUN(0, 0x5e, 4, 0, 0, 0, 0, 0, 0, 64, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);
}

static void malformed_requests_are_refused(void **state)
{
    uint8_t list[28] = {0};
    register_users(1);
    assert_illegal(RUN_OUT(0, list, 28, 0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 28, 0), SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    assert_illegal(RUN_OUT(0, list, 20, 0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR);
    assert_illegal(RUN_OUT(0, list, 24, 0x5f, 7, 0, 0, 0, 0, 0, 0, 24, 0),
                   SCSI_ASC_INVALID_FIELD_IN_CDB); /* REGISTER AND MOVE */
    assert_illegal(reserve_out(0, RESERVE, 2, 10, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);       /* no such type */
    assert_illegal(reserve_out(0, RESERVE, 0x11, 10, 0), SCSI_ASC_INVALID_FIELD_IN_CDB);    /* no such scope */
    assert_illegal(reserve_out(0, PREEMPT, 1, 10, 0), SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    put_list(list, 10, 11, 0x08); /* SPEC_I_PT */
    assert_illegal(RUN_OUT(0, list, 24, 0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0),
                   SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST);
    assert_good(reserve_out(0, RESERVE, 1, 10, 0));
    assert_illegal(reserve_out(0, RELEASE, 3, 10, 0), SCSI_ASC_INVALID_RELEASE);
}

static void all_ports_registers_the_same_initiator_at_both_nodes(void **state)
{
    uint8_t list[24];
    put_list(list, 0, 77, 0x04); /* ALL_TG_PT */
    assert_good(RUN_OUT(0, list, 24, 0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0));
    const uint8_t *data = reserve_in(1, 3);
    assert_int_equal(be16_at(data + 8 + 18), 1);
    assert_int_equal(data[8 + 12], 0x02);
    const uint8_t *second = data + 8 + 24 + be32_at(data + 8 + 20);
    assert_int_equal(be16_at(second + 18), 2);
    assert_int_equal(be64_at(second), 77);
}

/* Every command against another's exclusive reservations, from a stranger: SPC-4 table 66, SBC-4 table 14. */
static void every_command_knows_its_place(void **state)
{
    static const struct {
        uint8_t cdb[16];
        bool under_write_exclusive, under_exclusive_access; /* allowed */
    } rows[] = {
        {{0x00}, true, true},                                           /* TEST UNIT READY */
        {{0x03, 0, 0, 0, 18}, true, true},                              /* REQUEST SENSE */
        {{0x12, 0, 0, 0, 96}, true, true},                              /* INQUIRY */
        {{0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64}, true, true},               /* REPORT LUNS */
        {{0x25}, true, true},                                           /* READ CAPACITY (10) */
        {{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}, true, true},
        {{0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64}, true, true},            /* REPORT TARGET PORT GROUPS */
        {{0x5e, 0, 0, 0, 0, 0, 0, 0, 64}, true, true},                  /* PERSISTENT RESERVE IN */
        {{0x1b, 0, 0, 0, 1}, true, true},                               /* START */
        {{0x1b, 0, 0, 0, 0}, false, false},                             /* STOP */
        {{0x1e, 0, 0, 0, 0}, true, true},                               /* ALLOW MEDIUM REMOVAL */
        {{0x1e, 0, 0, 0, 1}, false, false},                             /* PREVENT */
        {{0x08, 0, 0, 0, 1}, true, false},                              /* READ (6) */
        {{0x28, 0, 0, 0, 0, 0, 0, 0, 1}, true, false},
        {{0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, true, false},
        {{0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 1}, true, false},
        {{0x2f, 0, 0, 0, 0, 0, 0, 0, 1}, true, false},                  /* VERIFY (10) */
        {{0x1a, 0, 0x3f, 0, 255}, true, false},                         /* MODE SENSE (6) */
        {{0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 8}, true, false},               /* REPORT SUPPORTED OPERATION CODES */
        {{0x15, 0x10, 0, 0, 0}, false, false},                          /* MODE SELECT (6) */
        {{0x35}, false, false},                                         /* SYNCHRONIZE CACHE (10) */
        {{0x0a, 0, 0, 0, 1}, false, false},                             /* WRITE (6) */
        {{0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, false, false},
        {{0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, false, false},
        {{0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 1}, false, false},
        {{0x41, 0, 0, 0, 0, 0, 0, 0, 1}, false, false},                 /* WRITE SAME (10) */
        {{0x42, 0, 0, 0, 0, 0, 0, 0, 8}, false, false},                 /* UNMAP */
        {{0x16}, false, false},                                         /* RESERVE (6) */
        {{0x17}, false, false},                                         /* RELEASE (6) */
    };
    static const uint8_t zeros[4096];
    register_users(1);
    for (uint8_t type = 1; type <= 3; type += 2) {
        assert_good(reserve_out(0, RESERVE, type, 10, 0));
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            bool conflict =
                lab_run(3, rows[i].cdb, 16, zeros, sizeof zeros)->status == SCSI_STATUS_RESERVATION_CONFLICT;
            bool allowed = type == 1 ? rows[i].under_write_exclusive : rows[i].under_exclusive_access;
            if (conflict == allowed)
                fail_msg("type %u, opcode %02x: conflict %d", type, rows[i].cdb[0], conflict);
        }
        assert_good(reserve_out(0, RELEASE, type, 10, 0));
    }
}

static void the_other_node_obeys_and_tells(void **state)
{
    register_users(4);
    assert_good(reserve_out(0, RESERVE, 6, 10, 0)); /* exclusive access, registrants only */
    assert_good(write_one(2));
    assert_good(reserve_out(3, REGISTER, 0, 13, 0));
    assert_conflict(write_one(3));
    assert_conflict(read_one(3));
    assert_good(reserve_out(2, PREEMPT, 6, 12, 10)); /* from the other node */
    assert_attention(0, SCSI_ASC_REGISTRATIONS_PREEMPTED);
    assert_conflict(write_one(0));
    assert_good(write_one(1));
    assert_good(test_unit_ready(1)); /* the type is the same: nothing to tell */
    assert_good(reserve_out(2, RELEASE, 6, 12, 0));
    assert_attention(1, SCSI_ASC_RESERVATIONS_RELEASED);
    assert_good(test_unit_ready(1));
    assert_good(reserve_out(1, CLEAR, 0, 11, 0));
    assert_attention(2, SCSI_ASC_RESERVATIONS_PREEMPTED);
    assert_good(test_unit_ready(2));
    assert_good(test_unit_ready(1));
}

static void the_state_outlives_sessions_and_daemons(void **state)
{
    register_users(2);
    assert_good(reserve_out(0, RESERVE, 3, 10, 0));
    for (unsigned i = 0; i < 2; i++) {
        lab_logout(i);
    }
    lab.luns[0].unit_free(lab.luns[0].unit); /* as after a restart */
    lab.luns[0].unit = NULL;
    lab_login(1);
    assert_conflict(read_one(1));
    lab_login(0);
    assert_good(write_one(0));
    assert_good(reserve_out(0, RELEASE, 3, 10, 0));
    assert_good(read_one(1));
}

static void two_at_once_are_done_one_after_the_other(void **state)
{
    register_users(3);
    assert_false(begin_out(0, RESERVE, 1, 10, 0));
    assert_false(begin_out(2, RESERVE, 1, 12, 0)); /* both nodes saw no reservation */
    assert_int_equal(lab.swap_count, 2);
    lab_step();
    assert_true(lab.users[0].is_done);
    assert_good(&lab.users[0].command);
    lab_step();
    assert_true(lab.users[2].is_done);
    assert_conflict(&lab.users[2].command);
}

/* At one node there is one change under way, however many ask; nobody loses against those who came later. */
static void a_node_makes_one_change_at_a_time(void **state)
{
    register_users(2);
    assert_false(begin_out(0, RESERVE, 1, 10, 0));
    assert_false(begin_out(1, REGISTER, 0, 11, 21));
    assert_int_equal(lab.swap_count, 1);
    lab_step();
    assert_true(lab.users[0].is_done && !lab.users[1].is_done);
    assert_int_equal(lab.swap_count, 1);
    lab_step();
    assert_good(&lab.users[1].command);
    assert_false(begin_out(0, RELEASE, 1, 10, 0));
    assert_false(begin_out(1, RESERVE, 1, 11, 0)); /* its old key: over without a change, when its turn comes */
    lab_step();
    assert_good(&lab.users[0].command);
    assert_conflict(&lab.users[1].command);
    assert_int_equal(lab.swap_count, 0);
}

static void one_that_waits_may_be_lost(void **state)
{
    assert_false(begin_out(0, REGISTER, 0, 0, 10));
    assert_false(begin_out(1, REGISTER, 0, 0, 11));
    lun_nexus_drop(&lab.users[1].lun_nexus);
    lab_settle();
    assert_good(&lab.users[0].command);
    assert_true(lab.users[1].is_done && lab.users[1].command.dropped);
    assert_int_equal(be32_at(reserve_in(2, 0) + 4), 8);
}

static void one_that_was_overtaken_goes_on_from_what_is(void **state)
{
    assert_false(begin_out(0, REGISTER, 0, 0, 10));
    assert_false(begin_out(2, REGISTER, 0, 0, 12));
    lab_settle();
    assert_good(&lab.users[0].command);
    assert_good(&lab.users[2].command);
    assert_int_equal(be32_at(reserve_in(1, 0) + 4), 16); /* none was lost */
}

static void an_answer_that_got_lost_is_no_conflict(void **state)
{
    lab.failure = -ESTALE;
    lab.made_all_the_same = true; /* the link broke after it was made; the second try finds it */
    assert_good(reserve_out(0, REGISTER, 0, 0, 10));
    assert_int_equal(be32_at(reserve_in(0, 0) + 4), 8);
    lab.failure = -EIO;
    lab.made_all_the_same = true; /* and nobody can tell in time */
    assert_good(reserve_out(1, REGISTER, 0, 0, 11));
    assert_int_equal(be32_at(reserve_in(0, 0) + 4), 16);
}

static void what_cannot_be_stored_is_not_answered(void **state)
{
    lab.failure = -EIO;
    assert_true(reserve_out(0, REGISTER, 0, 0, 10)->dropped);
    lab.failure = -ENOSPC;
    assert_illegal(reserve_out(0, REGISTER, 0, 0, 10), SCSI_ASC_NO_REGISTRATION_RESOURCES);
    assert_int_equal(be32_at(reserve_in(0, 0) + 4), 0);
}

static void a_lost_nexus_gets_no_answer(void **state)
{
    assert_false(begin_out(0, REGISTER, 0, 0, 10));
    lun_nexus_drop(&lab.users[0].lun_nexus);
    lab_step();
    assert_true(lab.users[0].is_done && lab.users[0].command.dropped);
    assert_int_equal(be32_at(reserve_in(1, 0) + 4), 8); /* it was made */
}

/* The parameter data is still on its way when the reservation comes. */
static void a_write_that_began_before_is_judged_again(void **state)
{
    register_users(1);
    struct scsi_command write = {
        .nexus = &lab.users[1].nexus, .cdb = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, .done = lab_done};
    static uint8_t block[4096] __attribute__((aligned(4096)));
    assert_true(scsi_command_plan(&write));
    assert_good(reserve_out(0, RESERVE, 1, 10, 0));
    write.data = block;
    write.data_size = 512;
    assert_true(scsi_command_execute(&write));
    assert_conflict(&write);
}

static void preempt_and_abort_waits_for_the_preempted(void **state)
{
    register_users(3);
    assert_good(reserve_out(0, RESERVE, 5, 10, 0));
    assert_false(begin_out(1, PREEMPT_AND_ABORT, 5, 11, 10));
    lab_settle();
    assert_false(lab.users[1].is_done); /* its connection is being closed; what it sent may still be at work */
    assert_int_equal(lab.users[0].closes, 1);
    assert_int_equal(lab.users[2].closes, 0);
    lab_logout(0);
    assert_false(lab.users[1].is_done); /* what the other node had forwarded may still be on its way */
    assert_int_equal(lab.swap_count, 1);
    lab_step();
    assert_true(lab.users[1].is_done);
    assert_good(&lab.users[1].command);
    assert_int_equal(lab.users[1].command.request.opcode, LUN_BARRIER);
    assert_good(test_unit_ready(2)); /* nothing changed by that: nobody is told */
    lab_login(0);
    assert_conflict(write_one(0));
}

static void preempt_and_abort_reaches_the_other_node(void **state)
{
    register_users(4);
    assert_false(begin_out(1, PREEMPT_AND_ABORT, 5, 11, 13));
    lab_settle();
    assert_int_equal(lab.users[3].closes, 1);
    assert_true(lab.users[1].is_done); /* the other node's nexuses are waited for by the change and the barrier */
    assert_good(&lab.users[1].command);
}

/* One that waits for the end of its victim's connection is preempted itself: it does not keep its own connection open. */
static void two_that_preempt_do_not_wait_for_each_other(void **state)
{
    register_users(3);
    assert_false(begin_out(1, PREEMPT_AND_ABORT, 5, 11, 10));
    lab_settle();
    assert_false(lab.users[1].is_done); /* the first has not gone yet */
    assert_false(begin_out(2, PREEMPT_AND_ABORT, 5, 12, 11));
    lab_settle();
    assert_int_equal(lab.users[1].closes, 1);
    scsi_command_cancel(&lab.users[1].command); /* as its connection ends */
    assert_true(lab.users[1].is_done && lab.users[1].command.dropped);
    lab_logout(1);
    lab_logout(0);
    assert_true(lab.users[2].is_done);
    assert_good(&lab.users[2].command);
}

static void a_plain_preempt_closes_nothing(void **state)
{
    register_users(2);
    assert_good(reserve_out(1, PREEMPT, 5, 11, 10));
    assert_int_equal(lab.users[0].closes, 0);
}

static void a_text_nobody_can_read_locks(void **state)
{
    lab_put(SCSI_STATE_RESERVATIONS, "{\"serial\":1}");
    assert_conflict(read_one(0));
    assert_conflict(write_one(3));
    assert_good(reserve_out(0, REGISTER, 0, 0, 10));
    assert_conflict(write_one(0));
    assert_good(reserve_out(0, CLEAR, 0, 10, 0));
    assert_good(write_one(0));
    assert_good(write_one(3));
}

static void resets_are_told_before_conflicts_and_the_rest_after(void **state)
{
    register_users(1);
    assert_good(reserve_out(0, RESERVE, 3, 10, 0));
    scsi_attention_raise(&lab.users[1].nexus, SCSI_ATTENTION_CAPACITY_CHANGED);
    scsi_attention_raise(&lab.users[1].nexus, SCSI_ATTENTION_RESET);
    assert_sense(read_one(1), SCSI_KEY_UNIT_ATTENTION, SCSI_ASC_BUS_DEVICE_RESET);
    assert_conflict(read_one(1));
    assert_attention(1, SCSI_ASC_CAPACITY_CHANGED);
}

static void reserve_6_holds_until_release_logout_or_reset(void **state)
{
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0));
    assert_good(RUN(0, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0)); /* (10): the same reservation */
    assert_conflict(RUN(1, 0x16, 0, 0, 0, 0, 0));
    assert_conflict(test_unit_ready(1));
    assert_conflict(read_one(1));
    assert_conflict(RUN(1, 0x1a, 0, 0x3f, 0, 255, 0));
    assert_good(RUN(1, 0x12, 0, 0, 0, 96, 0));
    assert_good(RUN(1, 0x17, 0, 0, 0, 0, 0)); /* not its own: nothing happens */
    assert_conflict(read_one(1));
    assert_good(write_one(0));
    assert_good(RUN(0, 0x17, 0, 0, 0, 0, 0));
    assert_good(RUN(1, 0x16, 0, 0, 0, 0, 0));
    lab_logout(1);
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0));
    lab_login(1);
    scsi_unit_reset(&lab.users[1].nexus, SCSI_ATTENTION_RESET);
    assert_attention(0, SCSI_ASC_BUS_DEVICE_RESET);
    assert_attention(1, SCSI_ASC_BUS_DEVICE_RESET);
    assert_good(RUN(1, 0x16, 0, 0, 0, 0, 0));
}

static void reserve_6_holds_at_both_nodes(void **state)
{
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0));
    assert_conflict(write_one(2));
    assert_conflict(RUN(3, 0x16, 0, 0, 0, 0, 0));
    assert_good(RUN(2, 0x17, 0, 0, 0, 0, 0));
    assert_conflict(write_one(2));
    lab_logout(0);
    assert_int_equal(lab.swap_count, 1);
    assert_good(write_one(1)); /* here it counts at once, there when it is made */
    assert_good(write_one(2));
    assert_good(RUN(2, 0x16, 0, 0, 0, 0, 0));
    assert_conflict(write_one(1));
    scsi_unit_reset(&lab.users[1].nexus, SCSI_ATTENTION_RESET); /* breaks it, wherever it is held */
    lab_settle();
    assert_attention(1, SCSI_ASC_BUS_DEVICE_RESET);
    assert_good(write_one(1));
}

static void whoever_comes_while_it_is_released_gets_it(void **state)
{
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0));
    scsi_nexus_leave(&lab.users[0].nexus);
    assert_int_equal(lab.swap_count, 1);
    lab.failure = -ESTALE; /* the release finds that somebody was faster, and tries again */
    assert_good(RUN(1, 0x16, 0, 0, 0, 0, 0));
    assert_good(write_one(1));
    assert_conflict(write_one(2));
    assert_conflict(write_one(0));
}

/* The daemon died with its sessions: the reservation is of a nexus that is no more. */
static void reserve_6_does_not_outlive_the_daemon(void **state)
{
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0));
    for (unsigned i = 0; i < 2; i++) {
        lab_logout(i);
        lab_settle();
    }
    assert_good(write_one(2));
    lab_login(0);
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0));
    char *text = strdup(*lab_text(SCSI_STATE_RESERVATIONS));
    lab_logout(0);
    lab_settle();
    lab_put(SCSI_STATE_RESERVATIONS, text); /* as it was when the power went */
    free(text);
    assert_conflict(write_one(2));
    lab_login(0);
    lab_settle();
    assert_good(write_one(2));
}

/* CRH, SPC-4 §5.13.3. */
static void both_kinds_of_reservation_keep_apart(void **state)
{
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0));
    assert_conflict(reserve_out(0, REGISTER, 0, 0, 10));
    assert_conflict(RUN(1, 0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0));
    assert_good(RUN(0, 0x17, 0, 0, 0, 0, 0));
    register_users(2);
    assert_conflict(RUN(0, 0x16, 0, 0, 0, 0, 0)); /* registered, and nobody holds it */
    assert_good(reserve_out(0, RESERVE, 5, 10, 0));
    assert_good(RUN(0, 0x16, 0, 0, 0, 0, 0)); /* may use it anyway: GOOD, and nothing changes */
    assert_good(RUN(1, 0x17, 0, 0, 0, 0, 0));
    assert_good(write_one(1));
    assert_conflict(RUN(2, 0x16, 0, 0, 0, 0, 0));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, lab_setup, lab_teardown)
    const struct CMUnitTest tests[] = {
        TEST(keys_are_seen_from_both_nodes),
        TEST(the_reservation_is_told),
        TEST(full_status_names_the_initiator_ports),
        TEST(capabilities_are_those_there_are),
        TEST(malformed_requests_are_refused),
        TEST(all_ports_registers_the_same_initiator_at_both_nodes),
        TEST(every_command_knows_its_place),
        TEST(the_other_node_obeys_and_tells),
        TEST(the_state_outlives_sessions_and_daemons),
        TEST(two_at_once_are_done_one_after_the_other), TEST(a_node_makes_one_change_at_a_time),
        TEST(one_that_waits_may_be_lost),
        TEST(one_that_was_overtaken_goes_on_from_what_is),
        TEST(an_answer_that_got_lost_is_no_conflict),
        TEST(what_cannot_be_stored_is_not_answered),
        TEST(a_lost_nexus_gets_no_answer),
        TEST(a_write_that_began_before_is_judged_again),
        TEST(preempt_and_abort_waits_for_the_preempted),
        TEST(preempt_and_abort_reaches_the_other_node),
        TEST(two_that_preempt_do_not_wait_for_each_other), TEST(a_plain_preempt_closes_nothing),
        TEST(a_text_nobody_can_read_locks),
        TEST(resets_are_told_before_conflicts_and_the_rest_after),
        TEST(reserve_6_holds_until_release_logout_or_reset),
        TEST(reserve_6_holds_at_both_nodes), TEST(whoever_comes_while_it_is_released_gets_it),
        TEST(reserve_6_does_not_outlive_the_daemon), TEST(both_kinds_of_reservation_keep_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
