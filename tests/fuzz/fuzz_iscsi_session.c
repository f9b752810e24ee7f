/* Full feature phase: commands, data, text, task management, NOPs and logouts of an initiator that has logged in. */
#include <string.h>

#include "tests/fuzz/iscsi_bench.h"

#define PDUS_MAX 64u

enum mode {
    HEADER_DIGEST = 1, DATA_DIGEST = 2, NO_INITIAL_R2T = 4, NO_IMMEDIATE = 8, SMALL_BURSTS = 16, HOLDS = 32,
    BACKWARDS = 64, DISCOVERY = 128
};

static size_t put_key(char *keys, size_t at, const char *text)
{
    size_t size = strlen(text) + 1;
    memcpy(keys + at, text, size);
    return at + size;
}

static void log_in(struct iscsi_talk *talk, uint8_t mode)
{
    char keys[512];
    size_t size = put_key(keys, 0, "InitiatorName=iqn.2026-01.io.hci:fuzz");
    size = put_key(keys, size, mode & DISCOVERY ? "SessionType=Discovery" : "TargetName=iqn.2026-01.io.hci:open");
    size = put_key(keys, size, mode & HEADER_DIGEST ? "HeaderDigest=CRC32C" : "HeaderDigest=None");
    size = put_key(keys, size, mode & DATA_DIGEST ? "DataDigest=CRC32C" : "DataDigest=None");
    size = put_key(keys, size, mode & NO_INITIAL_R2T ? "InitialR2T=No" : "InitialR2T=Yes");
    size = put_key(keys, size, mode & NO_IMMEDIATE ? "ImmediateData=No" : "ImmediateData=Yes");
    size = put_key(keys, size, mode & SMALL_BURSTS ? "MaxBurstLength=1024" : "MaxBurstLength=262144");
    size = put_key(keys, size, mode & SMALL_BURSTS ? "FirstBurstLength=512" : "FirstBurstLength=65536");
    size = put_key(keys, size, mode & SMALL_BURSTS ? "MaxOutstandingR2T=4" : "MaxOutstandingR2T=1");
    size = put_key(keys, size, "MaxRecvDataSegmentLength=8192");
    iscsi_talk_login(talk, 0x87, keys, size);
    check(talk->logins == 1 && !talk->follow);
    talk->follow = true;
    talk->header_digest = mode & HEADER_DIGEST;
    talk->data_digest = mode & DATA_DIGEST;
}

/* TEST UNIT READY takes the unit attention that a new session begins with: the input's first command counts. */
static void take_attention(struct iscsi_talk *talk)
{
    uint8_t test[3 + ISCSI_BHS_SIZE] = {ISCSI_TALK_ORDINARY, 0, 0, ISCSI_SCSI_COMMAND, 0x81};
    struct fuzz_input input = {test, sizeof(test)};
    iscsi_talk_pdu(talk, &input);
    check(talk->responses == 1);
    talk->responses = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct iscsi_talk talk;
    struct fuzz_input input = {data, size};
    struct iscsi_bench *bench = iscsi_bench_of_process();
    uint8_t mode = fuzz_u8(&input);
    iscsi_talk_start(&talk, bench);
    log_in(&talk, mode);
    if (!(mode & DISCOVERY))
        take_attention(&talk);
    bench->open.holds = mode & HOLDS;
    bench->open.backwards = mode & BACKWARDS;
    for (unsigned i = 0; i < PDUS_MAX && input.size && !talk.lost; i++)
        iscsi_talk_pdu(&talk, &input);
    iscsi_talk_settle(&talk);
    bench->open.holds = false;
    ram_lun_kick(&bench->open);
    iscsi_talk_settle(&talk);
    fuzz_planted(talk.finished_writes > 0 && talk.has_r2t);
    iscsi_talk_end(&talk);
    return 0;
}
