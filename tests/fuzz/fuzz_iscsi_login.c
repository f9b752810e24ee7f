/* A stranger's connection, from its first byte: login in pieces, with whatever keys, perhaps into a session. */
#include "tests/fuzz/iscsi_bench.h"

#define PDUS_MAX 24u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct iscsi_talk talk;
    struct fuzz_input input = {data, size};
    iscsi_talk_start(&talk, iscsi_bench_of_process());
    for (unsigned i = 0; i < PDUS_MAX && input.size && !talk.lost; i++)
        iscsi_talk_pdu(&talk, &input);
    iscsi_talk_settle(&talk);
    fuzz_planted(talk.logins > 1 && !talk.follow); /* in full feature phase after a second request */
    iscsi_talk_end(&talk);
    return 0;
}
