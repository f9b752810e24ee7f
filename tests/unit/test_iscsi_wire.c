/* The full feature phase byte by byte: digests, data, numbers, rejects. */
#include "tests/unit/iscsi_lab.h"

/* NOP-Out with data and both digests, split into single bytes: the digests of the answer are right. */
static void both_digests_and_single_bytes(void **state)
{
    struct bench *bench = *state;
    uint8_t request[48 + 4 + 8 + 4] = {0x40, 0x80}, answer[64];
    int fd = RAW_LOG_IN(bench, "HeaderDigest=CRC32C\0DataDigest=CRC32C\0");
    put_be24(request + 5, 5);
    put_be32(request + 16, 0x1234);
    put_be32(request + 20, ISCSI_TAG_NONE);
    put_be32(request + 24, 1);
    memcpy(request + 52, "hello", 5);
    iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), request, 48), request + 48);
    iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), request + 52, 8), request + 60);
    for (size_t i = 0; i < sizeof(request); i++)
        assert_int_equal(send(fd, request + i, 1, 0), 1);
    receive(fd, answer, 64);
    assert_int_equal(answer[0], 0x20);
    assert_int_equal(be24_at(answer + 5), 5);
    assert_true(iscsi_digest_matches(iscsi_digest_add(iscsi_digest_begin(), answer, 48), answer + 48));
    assert_memory_equal(answer + 52, "hello\0\0\0", 8);
    assert_true(iscsi_digest_matches(iscsi_digest_add(iscsi_digest_begin(), answer + 52, 8), answer + 60));
    /* A wrong data digest is told, and ends the connection: error recovery level 0. */
    uint8_t reject[48 + 4 + 48 + 4];
    request[61] ^= 1;
    assert_int_equal(send(fd, request, sizeof(request), 0), sizeof(request));
    receive(fd, reject, sizeof(reject));
    assert_int_equal(reject[0], 0x3f);
    assert_int_equal(reject[2], 0x02);
    assert_memory_equal(reject + 52, request, 48);
    expect_hang_up(fd, "", 0);
}

static void data_out_must_be_what_was_asked_for(void **state)
{
    struct bench *bench = *state;
    /* What is wrong: offset, transfer tag, too much, final bit too early. */
    for (unsigned wrong = 0; wrong < 6; wrong += 1 + (wrong == 0)) {
        uint8_t write[48] = {0}, data[48 + 1536] = {0x05, 0x80}, r2t[48];
        int fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=No\0");
        raw_take_attention(fd);
        put_write(write, 5, 2, 0xa0, 1024);
        assert_int_equal(send(fd, write, 48, 0), 48);
        receive(fd, r2t, 48);
        assert_int_equal(r2t[0], 0x31);
        assert_int_equal(be32_at(r2t + 44), 1024);
        put_be24(data + 5, wrong == 4 ? 1536 : wrong == 5 ? 512 : 1024);
        put_be32(data + 16, 5);
        put_be32(data + 20, be32_at(r2t + 20) + (wrong == 3));
        put_be32(data + 40, wrong == 2 ? 512 : 0);
        if (wrong == 0) {
            assert_int_equal(send(fd, data, 48 + 1024, 0), 48 + 1024);
            receive(fd, r2t, 48);
            assert_int_equal(r2t[0], 0x21);
            assert_int_equal(r2t[3], SCSI_STATUS_GOOD);
            close(fd);
        } else {
            expect_hang_up(fd, data, 48 + be24_at(data + 5));
        }
    }
    wait_until(bench, stats.sessions == 0 && stats.memory_bytes == 0);
}

/* A DataSN that does not count up: the PDU is rejected, the command fails when its last data came, the session goes on. */
static void data_that_does_not_count_up_fails_its_command(void **state)
{
    struct bench *bench = *state;
    static const uint32_t numbers[][2] = {{0, 0}, {1, 0}, {27, 28}, {UINT32_MAX, 0}};
    for (unsigned i = 0; i < 4; i++) {
        uint8_t write[48] = {0}, data[48 + 512] = {0x05}, r2t[48], reject[96], answer[48], sense[64], ready[48] = {0x01, 0x80};
        int fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=No\0");
        raw_take_attention(fd);
        put_write(write, 5, 2, 0xa0, 1024);
        assert_int_equal(send(fd, write, 48, 0), 48);
        receive(fd, r2t, 48);
        memset(data + 48, 0xee, 512);
        for (unsigned part = 0; part < 2; part++) {
            data[1] = part ? 0x80 : 0;
            put_be24(data + 5, 512);
            put_be32(data + 16, 5);
            put_be32(data + 20, be32_at(r2t + 20));
            put_be32(data + 36, numbers[i][part]);
            put_be32(data + 40, part * 512);
            assert_int_equal(send(fd, data, sizeof(data), 0), sizeof(data));
        }
        receive(fd, reject, 96);
        assert_int_equal(reject[0], 0x3f);
        assert_int_equal(reject[2], 0x04);
        receive(fd, answer, 48);
        assert_int_equal(answer[0], 0x21);
        assert_int_equal(answer[3], SCSI_STATUS_CHECK_CONDITION);
        receive(fd, sense, (be24_at(answer + 5) + 3) & ~3u);
        assert_int_equal(sense[2 + 2] & 0xf, 0xb);
        assert_int_equal(bench->ram.memory[0], 0);
        put_be32(ready + 24, 3);
        assert_int_equal(send(fd, ready, 48, 0), 48);
        receive(fd, answer, 48);
        assert_int_equal(answer[3], SCSI_STATUS_GOOD);
        close(fd);
    }
}

static void unasked_data_must_have_been_agreed_on(void **state)
{
    struct bench *bench = *state;
    uint8_t write[48 + 512] = {0};
    int fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=No\0");
    raw_take_attention(fd);
    put_write(write, 5, 2, 0xa0, 512);
    put_be24(write + 5, 512);
    expect_hang_up(fd, write, sizeof(write));
    fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=Yes\0FirstBurstLength=512\0");
    raw_take_attention(fd);
    put_write(write, 5, 2, 0x20, 512); /* not final: more would come */
    put_be24(write + 5, 0);
    expect_hang_up(fd, write, 48);
}

/* RFC 7143 §4.2.2.1: what lies outside the window is ignored; what leaves a gap breaks the protocol. */
static void command_numbers_are_kept(void **state)
{
    struct bench *bench = *state;
    uint8_t ready[48] = {0x01, 0x80}, answer[48];
    int fd = RAW_LOG_IN(bench, "");
    raw_take_attention(fd);
    put_be32(ready + 16, 7);
    put_be32(ready + 24, 2 + 500);
    assert_int_equal(send(fd, ready, 48, 0), 48);
    put_be32(ready + 24, 1);
    assert_int_equal(send(fd, ready, 48, 0), 48);
    put_be32(ready + 24, 2);
    assert_int_equal(send(fd, ready, 48, 0), 48);
    receive(fd, answer, 48);
    assert_int_equal(answer[0], 0x21);
    assert_int_equal(be32_at(answer + 28), 3);       /* ExpCmdSN: one was taken */
    assert_int_equal(be32_at(answer + 32), 3 + 127); /* MaxCmdSN */
    put_be32(ready + 24, 5);
    expect_hang_up(fd, ready, 48);
}

static void unknown_requests_are_rejected(void **state)
{
    struct bench *bench = *state;
    uint8_t snack[48] = {0x10, 0x80}, answer[96], command[48 + 1020] = {0x01, 0x80, 0, 0, 255};
    int fd = RAW_LOG_IN(bench, "");
    assert_int_equal(send(fd, snack, 48, 0), 48);
    receive(fd, answer, 96);
    assert_int_equal(answer[0], 0x3f);
    assert_int_equal(answer[2], 0x03); /* SNACK reject */
    assert_memory_equal(answer + 48, snack, 48);
    put_be32(command + 24, 1);
    assert_int_equal(send(fd, command, sizeof(command), 0), sizeof(command)); /* the largest additional header */
    receive(fd, answer, 96);
    assert_int_equal(answer[0], 0x3f);
    close(fd);
}

/* A header digest that is wrong: nothing of the PDU can be believed (RFC 7143 §7.7). */
static void a_wrong_header_digest_is_hung_up_on(void **state)
{
    struct bench *bench = *state;
    uint8_t request[52] = {0x40, 0x80};
    int fd = RAW_LOG_IN(bench, "HeaderDigest=CRC32C\0");
    expect_hang_up(fd, request, sizeof(request));
}

static void put_data_out(uint8_t *pdu, const uint8_t *r2t, unsigned seed)
{
    memset(pdu, 0, 48);
    pdu[0] = 0x05;
    pdu[1] = 0x80;
    put_be24(pdu + 5, 512);
    memcpy(pdu + 16, r2t + 16, 8); /* task and transfer tag */
    put_be32(pdu + 40, be32_at(r2t + 40));
    memset(pdu + 48, (int)seed, 512);
}

/* Several bursts are asked for at once; their data comes in the order of asking (DataSequenceInOrder). */
static void several_bursts_at_once(void **state)
{
    struct bench *bench = *state;
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        uint8_t write[48] = {0}, r2ts[5][48], data[48 + 512], answer[48];
        int fd = RAW_LOG_IN(bench, "InitialR2T=Yes\0ImmediateData=No\0MaxBurstLength=512\0MaxOutstandingR2T=3\0");
        raw_take_attention(fd);
        put_write(write, 5, 2, 0xa0, 5 * 512);
        assert_int_equal(send(fd, write, 48, 0), 48);
        for (unsigned i = 0; i < 3; i++) {
            receive(fd, r2ts[i], 48);
            assert_int_equal(r2ts[i][0], 0x31);
            assert_int_equal(be32_at(r2ts[i] + 36), i); /* R2TSN */
            assert_int_equal(be32_at(r2ts[i] + 40), i * 512);
        }
        for (unsigned i = 0; i < 5 && !wrong; i++) {
            put_data_out(data, r2ts[i], i + 1);
            assert_int_equal(send(fd, data, sizeof(data), 0), sizeof(data));
            if (i < 2)
                receive(fd, r2ts[i + 3], 48);
        }
        put_data_out(data, r2ts[1], 9);
        if (wrong) {
            expect_hang_up(fd, data, sizeof(data));
            continue;
        }
        receive(fd, answer, 48);
        assert_int_equal(answer[0], 0x21);
        assert_int_equal(answer[3], SCSI_STATUS_GOOD);
        assert_int_equal(be32_at(answer + 36), 5); /* ExpDataSN: R2Ts */
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(bench->ram.memory[i * 512 + 511], i + 1);
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(both_digests_and_single_bytes),
        LAB_TEST(data_out_must_be_what_was_asked_for),
        LAB_TEST(data_that_does_not_count_up_fails_its_command),
        LAB_TEST(unasked_data_must_have_been_agreed_on),
        LAB_TEST(command_numbers_are_kept),
        LAB_TEST(unknown_requests_are_rejected),
        LAB_TEST(a_wrong_header_digest_is_hung_up_on),
        LAB_TEST(several_bursts_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
