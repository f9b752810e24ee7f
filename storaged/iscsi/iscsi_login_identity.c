/* Who logs in, to what, and the proof of it: the first request's names and the security stage (RFC 7143 §6.3, §12). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/check.h"
#include "storaged/iscsi/iscsi_login_internal.h"
#include "storaged/iscsi/iscsi_target_internal.h"

static void take_secrets(struct iscsi_chap *chap, const struct lun_admission *admission)
{
    snprintf(chap->user, sizeof(chap->user), "%s", admission->user);
    snprintf(chap->secret, sizeof(chap->secret), "%s", admission->secret);
    chap->mutual = admission->mutual;
    snprintf(chap->mutual_user, sizeof(chap->mutual_user), "%s", admission->mutual_user);
    snprintf(chap->mutual_secret, sizeof(chap->mutual_secret), "%s", admission->mutual_secret);
}

static enum iscsi_login_status ask_admission(struct iscsi_login *login, struct lun *lun, const char **ret_reason)
{
    struct lun_admission admission = {.reason = *ret_reason};
    int r = lun->admit(lun, login->initiator, &admission);
    if (r == 0 || r == -EAGAIN) {
        login->chap_required = admission.chap;
        take_secrets(&login->chap, &admission);
    }
    *ret_reason = admission.reason;
    explicit_bzero(&admission, sizeof(admission));
    return r == 0 || r == -EAGAIN ? ISCSI_LOGIN_SUCCESS : ISCSI_LOGIN_FORBIDDEN;
}

struct lun *iscsi_login_find_lun(const struct iscsi_login *login)
{
    return lun_table_find(login->connection->target->table, login->volume);
}

static enum iscsi_login_status identify_target(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    const char *name = iscsi_text_take(text, "TargetName");
    size_t prefix = strlen(LUN_IQN_PREFIX);
    *ret_reason = "it names no TargetName";
    if (!name)
        return ISCSI_LOGIN_MISSING_PARAMETER;
    *ret_reason = "there is no such target here";
    if (strncmp(name, LUN_IQN_PREFIX, prefix) != 0 || strlen(name + prefix) >= sizeof(login->volume))
        return ISCSI_LOGIN_NOT_FOUND;
    strcpy(login->volume, name + prefix);
    struct lun *lun = iscsi_login_find_lun(login);
    if (!lun)
        return ISCSI_LOGIN_NOT_FOUND;
    *ret_reason = "it may not use this volume now";
    return ask_admission(login, lun, ret_reason);
}

enum iscsi_login_status iscsi_login_identify(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    const char *initiator = iscsi_text_take(text, "InitiatorName"), *type = iscsi_text_take(text, "SessionType");
    *ret_reason = "it names no InitiatorName of 1 to 223 bytes";
    if (!initiator || !initiator[0] || strlen(initiator) >= sizeof(login->initiator))
        return ISCSI_LOGIN_MISSING_PARAMETER;
    strcpy(login->initiator, initiator);
    *ret_reason = "its SessionType is neither Normal nor Discovery";
    login->discovery = type && strcmp(type, "Discovery") == 0;
    if (type && !login->discovery && strcmp(type, "Normal") != 0)
        return ISCSI_LOGIN_SESSION_TYPE;
    login->identified = true;
    login->connection->parameters.discovery = login->discovery;
    if (login->discovery)
        return ISCSI_LOGIN_SUCCESS;
    enum iscsi_login_status status = identify_target(login, text, ret_reason);
    if (status == ISCSI_LOGIN_SUCCESS) /* RFC 7143 §13.9: in the first response */
        iscsi_text_put(&login->answer, "TargetPortalGroupTag", "%u", login->connection->target->options.port_group);
    return status;
}

/* --- authentication ------------------------------------------------------------------------------------------------- */

/* A discovery session names no target. It proves itself with the credentials of any volume that would have it, and is
 * shown those that need exactly these: without a proof only what needs none. Returns whether there is any such volume;
 * loads the credentials that `text` passes with, when there is a text. */
static bool find_discovery_secret(struct iscsi_login *login, const struct iscsi_text *text)
{
    bool any = false;
    struct lun *lun;
    for (unsigned i = 0; (lun = lun_table_at(login->connection->target->table, i)); i++) {
        struct lun_admission admission = {0};
        int r = lun->closing ? -EACCES : lun->admit(lun, login->initiator, &admission);
        bool usable = (r == 0 || r == -EAGAIN) && admission.chap;
        any |= usable;
        bool passes = usable && text && iscsi_chap_would_pass(&login->chap, text, admission.user, admission.secret);
        if (passes)
            take_secrets(&login->chap, &admission);
        if (passes && iscsi_credential_keep(&login->credential, admission.user, admission.secret) < 0)
            any = passes = false;
        explicit_bzero(&admission, sizeof(admission));
        if (passes)
            break;
    }
    return any;
}

static enum iscsi_login_status choose_method(struct iscsi_login *login, const char *offer, const char **ret_reason)
{
    bool chap = login->chap_required;
    if (login->discovery)
        chap = iscsi_text_list_has(offer, "CHAP") && find_discovery_secret(login, NULL);
    const char *method = chap ? "CHAP" : "None";
    if (!iscsi_text_list_has(offer, method)) {
        iscsi_text_put(&login->answer, "AuthMethod", "Reject");
        *ret_reason = chap ? "it does not offer CHAP, which this volume requires"
                           : "it insists on authentication, for which there is no secret here";
        return ISCSI_LOGIN_AUTHENTICATION;
    }
    iscsi_text_put(&login->answer, "AuthMethod", "%s", method);
    login->chap_chosen = chap;
    login->authenticated = !chap;
    return ISCSI_LOGIN_SUCCESS;
}

static enum iscsi_login_status step_chap(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    if (login->discovery && login->chap.state == ISCSI_CHAP_EXPECT_RESPONSE)
        find_discovery_secret(login, text);
    if (iscsi_chap_step(&login->chap, text, &login->answer, ret_reason) < 0)
        return ISCSI_LOGIN_AUTHENTICATION;
    login->authenticated = login->chap.state == ISCSI_CHAP_DONE;
    return ISCSI_LOGIN_SUCCESS;
}

enum iscsi_login_status iscsi_login_authenticate(struct iscsi_login *login, struct iscsi_text *text, const char **ret_reason)
{
    const char *offer = iscsi_text_take(text, "AuthMethod");
    if (offer && (login->chap_chosen || login->authenticated)) {
        *ret_reason = "it offers AuthMethod twice";
        return ISCSI_LOGIN_INITIATOR_ERROR;
    }
    if (offer)
        return choose_method(login, offer, ret_reason);
    return login->chap_chosen && !login->authenticated ? step_chap(login, text, ret_reason) : ISCSI_LOGIN_SUCCESS;
}
