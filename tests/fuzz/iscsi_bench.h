/* An iSCSI target in this process, and an initiator that says what the fuzzer wants: PDUs that are mended where that is
 * asked for (length, sequence number, transfer tag, digests), so that the fuzzer meets the code behind the checks. */
#pragma once

#include "storaged/iscsi/iscsi_pdu.h"
#include "storaged/iscsi/iscsi_target.h"
#include "tests/block/ram_lun.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/ring_turn.h"

#define ISCSI_BENCH_VOLUME (256u * 1024)

struct iscsi_bench {
    struct ring *ring;
    struct iobuf_arena *arena;
    struct lun_table *table;
    struct iscsi_target *target;
    struct ram_lun open, secret, closed;
    struct ring_turn turn;
};

/* What the answers tell, as far as they were followed. */
struct iscsi_talk {
    struct iscsi_bench *bench;
    int fd;
    bool lost;                      /* the target closed the connection */
    bool header_digest, data_digest; /* in force */
    bool follow;                    /* the answers are PDUs that can be understood */
    uint32_t command_sn;
    bool has_r2t;
    uint8_t r2t[ISCSI_BHS_SIZE];
    uint8_t last_login[ISCSI_BHS_SIZE];
    unsigned logins, data_ins, responses, finished_writes; /* answers seen; the last: GOOD after Data-Out */
    bool sent_data_out;
    uint8_t answer[1u << 16];
    size_t answer_size;
};

struct iscsi_bench *iscsi_bench_of_process(void);

void iscsi_talk_start(struct iscsi_talk *talk, struct iscsi_bench *bench);
/* Sends all of it, running the target meanwhile. */
void iscsi_talk_send(struct iscsi_talk *talk, const void *data, size_t size);
/* Lets the target work until it has nothing more to say. */
void iscsi_talk_settle(struct iscsi_talk *talk);
/* Hangs up; the target must let go of everything. */
void iscsi_talk_end(struct iscsi_talk *talk);

/* Takes one PDU of the input, mends and sends it. Its first byte says what is mended (enum mend): ordinary is number,
 * length and logical unit, and that the answers are waited for. */
#define ISCSI_TALK_ORDINARY 39u
void iscsi_talk_pdu(struct iscsi_talk *talk, struct fuzz_input *input);
/* A login request with these keys (`size` with the last NUL). */
void iscsi_talk_login(struct iscsi_talk *talk, uint8_t flags, const char *keys, size_t size);
