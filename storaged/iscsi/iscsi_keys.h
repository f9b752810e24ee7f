/* The operational parameters that both sides agree on at login (RFC 7143 §13). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "storaged/iscsi/iscsi_text.h"

#define ISCSI_LOGIN_SEGMENT_MAX 8192u /* MaxRecvDataSegmentLength until declared, RFC 7143 §13.12 */
#define ISCSI_SEGMENT_MAX 262144u     /* what we declare */
#define ISCSI_BURST_MAX (1u << 20)
#define ISCSI_FIRST_BURST_MAX 262144u
#define ISCSI_R2TS_MAX 4u

struct iscsi_parameters {
    bool header_digest, data_digest;
    bool initial_r2t, immediate_data;
    uint32_t send_segment_max; /* the initiator's MaxRecvDataSegmentLength */
    uint32_t burst_max, first_burst_max;
    uint32_t r2t_max; /* outstanding for one command */
    bool discovery;   /* many keys mean nothing then */
    uint64_t seen;   /* keys already negotiated: none may come twice (RFC 7143 §6.3) */
    bool declared;   /* we told our MaxRecvDataSegmentLength */
};

/* The values that hold when nothing is said. */
void iscsi_parameters_init(struct iscsi_parameters *parameters);
/* Answers every pair that is not taken yet. -EPROTO: an offer that no answer can mend, or one made twice. */
int iscsi_parameters_negotiate(struct iscsi_parameters *parameters, struct iscsi_text *text, struct iscsi_text_writer *answer);
/* The same in full feature phase, where only what RFC 7143 §13 allows at any time may be said again. */
int iscsi_parameters_renegotiate(struct iscsi_parameters *parameters, struct iscsi_text *text, struct iscsi_text_writer *answer);
/* Once, in an operational stage: what we declare without being asked. */
void iscsi_parameters_declare(struct iscsi_parameters *parameters, struct iscsi_text_writer *answer);
