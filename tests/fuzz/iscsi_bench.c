/* Target and talking for the iSCSI fuzz targets: over a socket pair, one connection per input. */
#include "tests/fuzz/iscsi_bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bytes.h"
#include "storaged/iscsi/iscsi_target_internal.h"

#define MEMORY_BYTES (4u << 20)
#define QUIET_TURNS 6u      /* so many without an answer: the target has nothing to say */
#define TURNS_MAX 20000u    /* to let go of everything: more is a hang */

/* How a PDU of the input is mended; its first byte. */
enum mend {
    MEND_NUMBER = 1,   /* CmdSN is the one that is due */
    MEND_LENGTH = 2,   /* DataSegmentLength is what follows */
    MEND_LUN = 4,      /* logical unit 0 */
    MEND_TRANSFER = 8, /* the last R2T's task, tag and offset */
    BREAK_DIGEST = 16,
    SETTLE = 32,
    FILL = 64,         /* data of 16 times the length, all alike, instead of the input's own */
    RAW = 128,         /* no PDU: the data as it is */
};

static struct iscsi_bench *bench_new(void)
{
    static struct iscsi_bench bench;
    struct iscsi_target_options options = {.port_group = 1, .memory_bytes = MEMORY_BYTES};
    struct err err;
    check(ring_new(64, &bench.ring) == 0 && iobuf_arena_new(2 * MEMORY_BYTES, &bench.arena) == 0);
    ring_turn_init(&bench.turn, bench.ring);
    bench.table = lun_table_new();
    check(ram_lun_open(&bench.open, bench.ring, "open", ISCSI_BENCH_VOLUME) == 0);
    check(ram_lun_open(&bench.secret, bench.ring, "secret", ISCSI_BENCH_VOLUME) == 0);
    check(ram_lun_open(&bench.closed, bench.ring, "closed", ISCSI_BENCH_VOLUME) == 0);
    bench.closed.admission = -EACCES;
    strcpy(bench.secret.user, "guest");
    strcpy(bench.secret.secret, "not for everyone");
    check(lun_table_add(bench.table, &bench.open.lun) == 0 && lun_table_add(bench.table, &bench.secret.lun) == 0 &&
          lun_table_add(bench.table, &bench.closed.lun) == 0);
    check(iscsi_target_new(bench.ring, bench.arena, bench.table, &options, &bench.target) == 0);
    check(iscsi_target_listen(bench.target, "127.0.0.1:0", &err) == 0);
    return &bench;
}

struct iscsi_bench *iscsi_bench_of_process(void)
{
    static struct iscsi_bench *bench;
    if (!bench)
        bench = bench_new();
    return bench;
}

void iscsi_talk_start(struct iscsi_talk *talk, struct iscsi_bench *bench)
{
    int pair[2];
    memset(talk, 0, sizeof(*talk));
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    talk->bench = bench;
    talk->fd = pair[1];
    talk->follow = true;
    talk->command_sn = 1;
    bench->target->portals[0].accepted(&bench->target->portals[0], pair[0]);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static void take_answer(struct iscsi_talk *talk, const uint8_t *bhs, uint32_t data_size)
{
    switch (bhs[0] & 0x3f) {
    case ISCSI_LOGIN_RESPONSE:
        memcpy(talk->last_login, bhs, ISCSI_BHS_SIZE);
        talk->logins++;
        /* In full feature phase from here on: digests, if agreed, that only the caller knows of. */
        talk->follow = !((bhs[1] & 0x83) == 0x83 && be16_at(bhs + 36) == 0);
        break;
    case ISCSI_R2T:
        memcpy(talk->r2t, bhs, ISCSI_BHS_SIZE);
        talk->has_r2t = true;
        check(be32_at(bhs + 44) > 0 && be32_at(bhs + 44) <= 1u << 20);
        break;
    case ISCSI_DATA_IN: talk->data_ins++; break;
    case ISCSI_SCSI_RESPONSE:
        talk->responses++;
        talk->finished_writes += talk->sent_data_out && bhs[3] == 0;
        break;
    case ISCSI_NOP_IN:
    case ISCSI_TASK_RESPONSE:
    case ISCSI_TEXT_RESPONSE:
    case ISCSI_LOGOUT_RESPONSE:
    case ISCSI_REJECT: break;
    default: check(bhs[0] == 0x32); /* asynchronous message; anything else is no answer of a target */
    }
    check(data_size <= 1u << 20);
}

/* One PDU at the front of the answer's bytes; its size, or 0 while it is not whole. */
static size_t answer_pdu(struct iscsi_talk *talk, size_t at)
{
    const uint8_t *bhs = talk->answer + at;
    size_t left = talk->answer_size - at;
    if (left < ISCSI_BHS_SIZE)
        return 0;
    uint32_t data_size = be24_at(bhs + 5);
    size_t size = ISCSI_BHS_SIZE + data_size + iscsi_padding(data_size);
    if (talk->header_digest)
        size += ISCSI_DIGEST_SIZE;
    if (talk->data_digest && data_size)
        size += ISCSI_DIGEST_SIZE;
    check(bhs[4] == 0 && size <= sizeof(talk->answer));
    if (left < size)
        return 0;
    if (talk->header_digest)
        check(iscsi_digest_matches(iscsi_digest_add(iscsi_digest_begin(), bhs, ISCSI_BHS_SIZE), bhs + ISCSI_BHS_SIZE));
    take_answer(talk, bhs, data_size);
    return size;
}

static bool read_answers(struct iscsi_talk *talk)
{
    size_t room = sizeof(talk->answer) - talk->answer_size, at = 0, size;
    ssize_t got = recv(talk->fd, talk->answer + talk->answer_size, room, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        talk->lost = true;
    if (got <= 0)
        return false;
    talk->answer_size += (size_t)got;
    while (talk->follow && (size = answer_pdu(talk, at)) > 0)
        at += size;
    if (!talk->follow)
        at = talk->answer_size;
    memmove(talk->answer, talk->answer + at, talk->answer_size - at);
    talk->answer_size -= at;
    return true;
}

void iscsi_talk_settle(struct iscsi_talk *talk)
{
    for (unsigned quiet = 0; quiet < QUIET_TURNS && !talk->lost; quiet++) {
        ring_turn(&talk->bench->turn);
        while (read_answers(talk))
            quiet = 0;
    }
}

void iscsi_talk_send(struct iscsi_talk *talk, const void *data, size_t size)
{
    const uint8_t *from = data;
    unsigned stuck = 0;
    while (size && !talk->lost) {
        ssize_t sent = send(talk->fd, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            return;
        stuck = sent < 0 ? stuck + 1 : 0;
        if (stuck > 100) /* a target that has stopped reading, as after a refused login */
            return;
        if (sent > 0) {
            from += sent;
            size -= (size_t)sent;
        }
        if (size)
            iscsi_talk_settle(talk);
    }
}

void iscsi_talk_end(struct iscsi_talk *talk)
{
    struct iscsi_target_stats stats;
    unsigned turns = 0;
    close(talk->fd);
    do {
        ring_turn(&talk->bench->turn);
        iscsi_target_get_stats(talk->bench->target, &stats);
        check(++turns < TURNS_MAX);
    } while (stats.connections || stats.sessions);
    check(stats.memory_bytes == 0 && stats.unauthenticated == 0);
    check(list_is_empty(&talk->bench->open.lun.nexuses) && list_is_empty(&talk->bench->secret.lun.nexuses));
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static void mend(struct iscsi_talk *talk, uint8_t flags, uint8_t *bhs, size_t data_size)
{
    if (flags & MEND_LENGTH) {
        put_be24(bhs + 5, (uint32_t)data_size);
        bhs[4] = 0;
    }
    if (flags & MEND_LUN)
        memset(bhs + 8, 0, 8);
    if (flags & MEND_NUMBER) {
        put_be32(bhs + 24, talk->command_sn);
        talk->command_sn += !(bhs[0] & 0x40);
    }
    if (flags & MEND_TRANSFER && talk->has_r2t) {
        memcpy(bhs + 8, talk->r2t + 8, 16);  /* logical unit, task tag, transfer tag */
        memcpy(bhs + 40, talk->r2t + 40, 4); /* offset */
        put_be32(talk->r2t + 40, be32_at(talk->r2t + 40) + (uint32_t)data_size);
    }
    talk->sent_data_out |= (bhs[0] & 0x3f) == ISCSI_DATA_OUT;
}

static void put_digest(uint8_t *at, const uint8_t *data, size_t size, bool broken)
{
    iscsi_digest_end(iscsi_digest_add(iscsi_digest_begin(), data, size), at);
    at[0] ^= broken;
}

static void send_pdu(struct iscsi_talk *talk, const uint8_t *bhs, const uint8_t *data, size_t data_size, bool broken)
{
    size_t padded = data_size + iscsi_padding((uint32_t)data_size), size = ISCSI_BHS_SIZE;
    uint8_t *whole = calloc(1, ISCSI_BHS_SIZE + padded + 2 * ISCSI_DIGEST_SIZE);
    check(whole);
    memcpy(whole, bhs, ISCSI_BHS_SIZE);
    if (talk->header_digest) {
        put_digest(whole + size, whole, ISCSI_BHS_SIZE, broken && !data_size);
        size += ISCSI_DIGEST_SIZE;
    }
    if (data_size)
        memcpy(whole + size, data, data_size);
    if (talk->data_digest && data_size) {
        put_digest(whole + size + padded, whole + size, padded, broken);
        size += ISCSI_DIGEST_SIZE;
    }
    iscsi_talk_send(talk, whole, size + padded);
    free(whole);
}

void iscsi_talk_pdu(struct iscsi_talk *talk, struct fuzz_input *input)
{
    uint8_t flags = fuzz_u8(input), bhs[ISCSI_BHS_SIZE];
    size_t data_size = fuzz_u16(input);
    const uint8_t *data;
    uint8_t *filled = NULL;
    if (!(flags & RAW))
        fuzz_fill(input, bhs, sizeof(bhs));
    if (flags & FILL) {
        data_size = data_size % 4096 * 16;
        data = filled = malloc(data_size + 1);
        check(filled);
        memset(filled, 0x5a, data_size);
    } else {
        data = fuzz_take(input, data_size, &data_size);
    }
    if (flags & RAW) {
        iscsi_talk_send(talk, data, data_size);
    } else {
        mend(talk, flags, bhs, data_size);
        send_pdu(talk, bhs, data, data_size, flags & BREAK_DIGEST);
    }
    if (flags & SETTLE)
        iscsi_talk_settle(talk);
    free(filled);
}

void iscsi_talk_login(struct iscsi_talk *talk, uint8_t flags, const char *keys, size_t size)
{
    uint8_t bhs[ISCSI_BHS_SIZE] = {0x40 | ISCSI_LOGIN_REQUEST, flags};
    put_be24(bhs + 5, (uint32_t)size);
    bhs[8] = 0x80; /* ISID: random */
    bhs[13] = 1;
    put_be32(bhs + 24, talk->command_sn);
    send_pdu(talk, bhs, (const uint8_t *)keys, size, false);
    iscsi_talk_settle(talk);
}
