/* Text requests in full feature phase: SendTargets (RFC 7143 appendix C). */
#pragma once

#include "storaged/iscsi/iscsi_pdu.h"

struct iscsi_session;

int iscsi_discovery_begin(struct iscsi_session *session, const struct iscsi_pdu *pdu);
int iscsi_discovery_end(struct iscsi_session *session, const struct iscsi_pdu *pdu);
