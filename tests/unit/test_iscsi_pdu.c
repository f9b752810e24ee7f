/* iSCSI headers and digests: are wrong ones refused, right ones understood? */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/bytes.h"
#include "storaged/iscsi/iscsi_pdu.h"

static void decodes_a_command(void **state)
{
    uint8_t bhs[ISCSI_BHS_SIZE] = {0x41, 0xa1, 0, 0, 0, 0x01, 0x02, 0x03};
    struct iscsi_pdu pdu;
    put_be32(bhs + 16, 0x11223344);
    put_be32(bhs + 24, 7);
    put_be32(bhs + 28, 9);
    assert_int_equal(iscsi_pdu_decode(bhs, 0x10203, &pdu), 0);
    assert_int_equal(pdu.opcode, ISCSI_SCSI_COMMAND);
    assert_true(pdu.immediate);
    assert_int_equal(pdu.flags, 0xa1);
    assert_int_equal(pdu.data_size, 0x10203);
    assert_int_equal(pdu.task_tag, 0x11223344);
    assert_int_equal(pdu.command_sn, 7);
    assert_int_equal(pdu.expected_stat_sn, 9);
    assert_int_equal(iscsi_pdu_decode(bhs, 0x10202, &pdu), -EMSGSIZE);
}

static void refuses_what_is_no_request(void **state)
{
    struct iscsi_pdu pdu;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        uint8_t bhs[ISCSI_BHS_SIZE] = {(uint8_t)opcode};
        unsigned kind = opcode & 0x3f;
        int expected = !(opcode & 0x80) && (kind <= 6 || kind == 0x10) ? 0 : -EPROTO;
        assert_int_equal(iscsi_pdu_decode(bhs, 0, &pdu), expected);
    }
}

static void additional_header_only_with_commands(void **state)
{
    struct iscsi_pdu pdu;
    uint8_t bhs[ISCSI_BHS_SIZE] = {ISCSI_SCSI_COMMAND, 0, 0, 0, 255};
    assert_int_equal(iscsi_pdu_decode(bhs, 0, &pdu), 0);
    assert_int_equal(pdu.ahs_size, ISCSI_AHS_MAX);
    bhs[0] = 0x43;
    assert_int_equal(iscsi_pdu_decode(bhs, 0, &pdu), -EPROTO);
}

/* The examples of RFC 3720 B.4. */
static void digests_as_the_standard_shows(void **state)
{
    uint8_t data[32] = {0}, digest[4];
    const uint8_t zeros[4] = {0xaa, 0x36, 0x91, 0x8a}, ones[4] = {0x43, 0xab, 0xa8, 0x62}, rising[4] = {0x4e, 0x79, 0xdd, 0x46};
    iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), data, 32), digest);
    assert_memory_equal(digest, zeros, 4);
    memset(data, 0xff, 32);
    iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), data, 32), digest);
    assert_memory_equal(digest, ones, 4);
    for (int i = 0; i < 32; i++)
        data[i] = (uint8_t)i;
    uint32_t pieces = iscsi_digest_add(iscsi_digest_add(iscsi_digest_begin(), data, 5), data + 5, 27);
    assert_true(iscsi_digest_matches(pieces, rising));
    assert_false(iscsi_digest_matches(pieces, ones));
}

static void pads_to_four(void **state)
{
    assert_int_equal(iscsi_padding(0), 0);
    assert_int_equal(iscsi_padding(1), 3);
    assert_int_equal(iscsi_padding(4), 0);
    assert_int_equal(iscsi_padding(7), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_a_command),           cmocka_unit_test(refuses_what_is_no_request),
        cmocka_unit_test(additional_header_only_with_commands), cmocka_unit_test(digests_as_the_standard_shows),
        cmocka_unit_test(pads_to_four),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
