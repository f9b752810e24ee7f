/* A login under way, for iscsi_login.c (stages, the session's opening) and iscsi_login_identity.c (who, and may it). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "storaged/iscsi/iscsi_chap.h"
#include "storaged/iscsi/iscsi_session.h"

enum iscsi_login_stage { ISCSI_STAGE_SECURITY = 0, ISCSI_STAGE_OPERATIONAL = 1, ISCSI_STAGE_FULL = 3 };

/* Status class and detail, RFC 7143 §11.13.5. */
enum iscsi_login_status {
    ISCSI_LOGIN_SUCCESS = 0x0000,
    ISCSI_LOGIN_INITIATOR_ERROR = 0x0200,
    ISCSI_LOGIN_AUTHENTICATION = 0x0201,
    ISCSI_LOGIN_FORBIDDEN = 0x0202,
    ISCSI_LOGIN_NOT_FOUND = 0x0203,
    ISCSI_LOGIN_VERSION = 0x0205,
    ISCSI_LOGIN_TOO_MANY_CONNECTIONS = 0x0206,
    ISCSI_LOGIN_MISSING_PARAMETER = 0x0207,
    ISCSI_LOGIN_SESSION_TYPE = 0x0209,
    ISCSI_LOGIN_NO_SESSION = 0x020a,
    ISCSI_LOGIN_INVALID = 0x020b,
    ISCSI_LOGIN_UNAVAILABLE = 0x0301,
    ISCSI_LOGIN_NO_RESOURCES = 0x0302,
};

struct iscsi_login {
    struct iscsi_connection *connection;
    enum iscsi_login_stage stage;
    unsigned pdus;
    bool identified, discovery, authenticated;
    bool chap_required; /* normal sessions: by the volume */
    bool chap_chosen;
    bool reinstates; /* its old session is being drained */
    char initiator[224];
    char volume[64];
    struct iscsi_session_name name;
    uint8_t flags; /* of the request that is being answered */
    uint32_t task_tag, command_sn;
    struct iscsi_chap chap;
    struct iscsi_credential credential; /* discovery: what it was authenticated with */
    struct iscsi_text_writer answer;
    struct ring_timer retry;
};

/* NULL when the volume is gone. */
struct lun *iscsi_login_find_lun(const struct iscsi_login *login);
/* From the first request: initiator, session type, target. */
enum iscsi_login_status iscsi_login_identify(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason);
/* One step of the security stage. */
enum iscsi_login_status iscsi_login_authenticate(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason);
