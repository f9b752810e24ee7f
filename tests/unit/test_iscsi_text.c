/* iSCSI text and negotiation: strangers' bytes are held to limits, offers get the right answers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "storaged/iscsi/iscsi_keys.h"
#include "storaged/iscsi/iscsi_text.h"

/* `literal` with its inner NULs; the copy has exactly its size, so that the sanitizer sees a byte too many. */
#define PARSE(literal, text) parse(literal, sizeof(literal) - 1, text)
static char *memory;

static int parse(const char *data, size_t size, struct iscsi_text *text)
{
    free(memory);
    memory = malloc(size ? size : 1);
    memcpy(memory, data, size);
    return iscsi_text_parse(memory, size, text);
}

static void parses_pairs(void **state)
{
    struct iscsi_text text;
    assert_int_equal(PARSE("A=1\0Bee=x=y\0\0C=\0", &text), 0);
    assert_int_equal(text.count, 3);
    assert_string_equal(iscsi_text_take(&text, "Bee"), "x=y");
    assert_null(iscsi_text_take(&text, "Bee"));
    assert_string_equal(iscsi_text_take(&text, "C"), "");
    assert_null(iscsi_text_take(&text, "D"));
    assert_int_equal(PARSE("", &text), 0);
    assert_int_equal(text.count, 0);
}

static void refuses_malformed(void **state)
{
    struct iscsi_text text;
    char many[(ISCSI_TEXT_PAIRS_MAX + 1) * 4], longest[ISCSI_TEXT_KEY_MAX + 4];
    assert_int_equal(PARSE("A=1", &text), -EPROTO);
    assert_int_equal(PARSE("A\0", &text), -EPROTO);
    assert_int_equal(PARSE("=1\0", &text), -EPROTO);
    assert_int_equal(PARSE("A B=1\0", &text), -EPROTO);
    assert_int_equal(PARSE("A=1\0B=1\0A=1\0", &text), -EPROTO); /* twice */
    assert_int_equal(PARSE("A=1\nforged line\0", &text), -EPROTO);
    for (unsigned i = 0; i <= ISCSI_TEXT_PAIRS_MAX; i++) {
        memcpy(many + 4 * i, "k=v", 4);
        many[4 * i] = (char)('>' + i);
    }
    assert_int_equal(parse(many, sizeof(many), &text), -EPROTO);
    assert_int_equal(parse(many, sizeof(many) - 4, &text), 0);
    memset(longest, 'k', sizeof(longest));
    memcpy(longest + ISCSI_TEXT_KEY_MAX + 1, "=v", 3);
    assert_int_equal(parse(longest, sizeof(longest), &text), -EPROTO);
}

static void reads_numbers(void **state)
{
    uint32_t number = 0;
    assert_int_equal(iscsi_text_number("4294967295", &number), 0);
    assert_int_equal(number, UINT32_MAX);
    assert_int_equal(iscsi_text_number("0x1Ff", &number), 0);
    assert_int_equal(number, 0x1ff);
    assert_int_equal(iscsi_text_number("4294967296", &number), -ERANGE);
    assert_int_equal(iscsi_text_number("", &number), -EPROTO);
    assert_int_equal(iscsi_text_number("-1", &number), -EPROTO);
    assert_int_equal(iscsi_text_number("0x", &number), -EPROTO);
    assert_int_equal(iscsi_text_number("12k", &number), -EPROTO);
}

static void reads_binary_values(void **state)
{
    uint8_t data[4];
    size_t size;
    assert_int_equal(iscsi_text_binary("0xabCd01", data, sizeof(data), &size), 0);
    assert_int_equal(size, 3);
    assert_memory_equal(data, "\xab\xcd\x01", 3);
    assert_int_equal(iscsi_text_binary("0x123", data, sizeof(data), &size), 0);
    assert_memory_equal(data, "\x01\x23", 2);
    assert_int_equal(iscsi_text_binary("0bAAEC/w==", data, sizeof(data), &size), 0);
    assert_int_equal(size, 4);
    assert_memory_equal(data, "\x00\x01\x02\xff", 4);
    assert_int_equal(iscsi_text_binary("0x0102030405", data, sizeof(data), &size), -EMSGSIZE);
    assert_int_equal(iscsi_text_binary("0bAAECAwQF", data, sizeof(data), &size), -EMSGSIZE);
    assert_int_equal(iscsi_text_binary("0bAAE", data, sizeof(data), &size), -EPROTO);
    assert_int_equal(iscsi_text_binary("0xzz", data, sizeof(data), &size), -EPROTO);
    assert_int_equal(iscsi_text_binary("12", data, sizeof(data), &size), -EPROTO);
}

static void chooses_from_lists(void **state)
{
    const char *known[] = {"CRC32C", "None", NULL};
    assert_string_equal(iscsi_text_list_choose("None,CRC32C", known), "None");
    assert_string_equal(iscsi_text_list_choose("Foo,CRC32C", known), "CRC32C");
    assert_null(iscsi_text_list_choose("CRC32,Non", known));
    assert_null(iscsi_text_list_choose("", known));
    assert_false(iscsi_text_list_has("CHAPX,None", "CHAP"));
}

static void writer_never_overflows(void **state)
{
    char data[8];
    struct iscsi_text_writer writer = {.data = data, .size = sizeof(data)};
    iscsi_text_put(&writer, "A", "%d", 12);
    assert_int_equal(writer.used, 5);
    iscsi_text_put(&writer, "B", "%d", 3);
    assert_true(writer.full);
    assert_int_equal(writer.used, 5);
    assert_memory_equal(data, "A=12", 5);
    writer.full = false;
    iscsi_text_put(&writer, "B", "%s", "");
    assert_false(writer.full);
    assert_int_equal(writer.used, 8);
}

static int negotiate(struct iscsi_parameters *parameters, const char *offer, size_t size, char answer[static 1024])
{
    struct iscsi_text text;
    struct iscsi_text_writer writer = {.data = answer, .size = 1024};
    memset(answer, 0, 1024);
    assert_int_equal(parse(offer, size, &text), 0);
    int r = iscsi_parameters_negotiate(parameters, &text, &writer);
    for (size_t i = 0; i + 1 < writer.used; i++)
        answer[i] = answer[i] ? answer[i] : ';';
    return r;
}
#define NEGOTIATE(parameters, offer, answer) negotiate(parameters, offer, sizeof(offer), answer)

static void answers_offers(void **state)
{
    struct iscsi_parameters parameters;
    char answer[1024];
    iscsi_parameters_init(&parameters);
    assert_int_equal(NEGOTIATE(&parameters, "HeaderDigest=CRC32C,None\0InitialR2T=No\0ImmediateData=Yes\0MaxBurstLength=16776192\0"
                                            "FirstBurstLength=65536\0MaxRecvDataSegmentLength=131072\0MaxConnections=4\0"
                                            "ErrorRecoveryLevel=2\0DefaultTime2Wait=0\0X-com.example=1\0OFMarker=Yes\0InitiatorAlias=me", answer), 0);
    assert_string_equal(answer, "HeaderDigest=CRC32C;InitialR2T=No;ImmediateData=Yes;MaxBurstLength=1048576;FirstBurstLength=65536;"
                                "MaxConnections=1;ErrorRecoveryLevel=0;DefaultTime2Wait=2;X-com.example=NotUnderstood;OFMarker=No");
    assert_true(parameters.header_digest);
    assert_false(parameters.data_digest);
    assert_false(parameters.initial_r2t);
    assert_int_equal(parameters.burst_max, 1u << 20);
    assert_int_equal(parameters.first_burst_max, 65536);
    assert_int_equal(parameters.send_segment_max, 131072);
    assert_int_equal(NEGOTIATE(&parameters, "InitialR2T=Yes", answer), -EPROTO); /* twice */
}

static void refuses_impossible_offers(void **state)
{
    static const char *const offers[] = {"MaxBurstLength=511", "MaxRecvDataSegmentLength=0", "InitialR2T=Maybe", "HeaderDigest=MD5",
                                         "MaxConnections=0",   "MaxBurstLength=16777216",    "FirstBurstLength=x"};
    struct iscsi_parameters parameters;
    char answer[1024];
    for (size_t i = 0; i < sizeof(offers) / sizeof(offers[0]); i++) {
        iscsi_parameters_init(&parameters);
        assert_int_equal(negotiate(&parameters, offers[i], strlen(offers[i]) + 1, answer), -EPROTO);
    }
}

static void first_burst_within_burst(void **state)
{
    struct iscsi_parameters parameters;
    char answer[1024];
    iscsi_parameters_init(&parameters);
    assert_int_equal(NEGOTIATE(&parameters, "MaxBurstLength=4096", answer), 0);
    assert_int_equal(parameters.first_burst_max, 4096);
}

/* RFC 7143 §13: each key by its own rule. */
static void every_key_has_its_rule(void **state)
{
    static const char *const offers[][2] = {
        {"HeaderDigest=None,CRC32C", "HeaderDigest=None"},
        {"DataDigest=X-fast,CRC32C,None", "DataDigest=CRC32C"},
        {"InitialR2T=Yes", "InitialR2T=Yes"},
        {"ImmediateData=No", "ImmediateData=No"},
        {"MaxOutstandingR2T=3", "MaxOutstandingR2T=3"},
        {"MaxOutstandingR2T=65535", "MaxOutstandingR2T=4"},
        {"MaxConnections=8", "MaxConnections=1"},
        {"DefaultTime2Wait=20", "DefaultTime2Wait=20"},
        {"DefaultTime2Retain=20", "DefaultTime2Retain=0"},
        {"DataPDUInOrder=No", "DataPDUInOrder=Yes"},
        {"DataSequenceInOrder=No", "DataSequenceInOrder=Yes"},
        {"MaxBurstLength=0x10000", "MaxBurstLength=65536"},
        {"TaskReporting=FastAbort,RFC3720", "TaskReporting=RFC3720"},
        {"TaskReporting=FastAbort", "TaskReporting=Reject"},
        {"iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1"},
        {"iSCSIProtocolLevel=0", "iSCSIProtocolLevel=0"},
        {"MaxRecvDataSegmentLength=65536", ""},
        {"IFMarkInt=1~65535", "IFMarkInt=Reject"},
        {"SendTargets=All", "SendTargets=Reject"},
        {"TargetAddress=192.0.2.1", "TargetAddress=Reject"},
        {"X-org.example.key=1", "X-org.example.key=NotUnderstood"},
    };
    for (size_t i = 0; i < sizeof(offers) / sizeof(offers[0]); i++) {
        struct iscsi_parameters parameters;
        char answer[1024];
        iscsi_parameters_init(&parameters);
        assert_int_equal(negotiate(&parameters, offers[i][0], strlen(offers[i][0]) + 1, answer), 0);
        assert_string_equal(answer, offers[i][1]);
    }
}

static void a_discovery_session_moves_no_data(void **state)
{
    struct iscsi_parameters parameters;
    char answer[1024];
    iscsi_parameters_init(&parameters);
    parameters.discovery = true;
    assert_int_equal(NEGOTIATE(&parameters, "MaxBurstLength=512\0InitialR2T=No\0HeaderDigest=CRC32C\0DefaultTime2Wait=5", answer), 0);
    assert_string_equal(answer, "MaxBurstLength=Irrelevant;InitialR2T=Irrelevant;HeaderDigest=CRC32C;DefaultTime2Wait=5");
    assert_true(parameters.initial_r2t);
}

static void little_can_be_said_again(void **state)
{
    struct iscsi_parameters parameters;
    struct iscsi_text text;
    char answer[1024] = {0};
    struct iscsi_text_writer writer = {.data = answer, .size = sizeof(answer)};
    iscsi_parameters_init(&parameters);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(PARSE("MaxRecvDataSegmentLength=4096\0InitiatorAlias=me\0", &text), 0);
        assert_int_equal(iscsi_parameters_renegotiate(&parameters, &text, &writer), 0);
        assert_int_equal(writer.used, 0);
        assert_int_equal(parameters.send_segment_max, 4096);
    }
    assert_int_equal(PARSE("DataDigest=CRC32C\0X-org.example.key=1\0", &text), 0);
    assert_int_equal(iscsi_parameters_renegotiate(&parameters, &text, &writer), 0);
    assert_string_equal(answer, "DataDigest=Reject");
    assert_string_equal(answer + 18, "X-org.example.key=NotUnderstood");
    assert_false(parameters.data_digest);
    assert_int_equal(PARSE("MaxRecvDataSegmentLength=1\0", &text), 0);
    assert_int_equal(iscsi_parameters_renegotiate(&parameters, &text, &writer), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_pairs),       cmocka_unit_test(refuses_malformed),   cmocka_unit_test(reads_numbers),
        cmocka_unit_test(reads_binary_values), cmocka_unit_test(chooses_from_lists), cmocka_unit_test(writer_never_overflows),
        cmocka_unit_test(answers_offers),     cmocka_unit_test(refuses_impossible_offers), cmocka_unit_test(first_burst_within_burst),
        cmocka_unit_test(every_key_has_its_rule), cmocka_unit_test(a_discovery_session_moves_no_data),
        cmocka_unit_test(little_can_be_said_again),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    free(memory);
    return failures;
}
