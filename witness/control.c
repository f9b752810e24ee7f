/* The witness's control socket: what an operator on this host may ask. */
#include "witness/control.h"

#include "common/log.h"
#include "common/seal.h"

static void handle_token(struct control_request *request, json_t *params, void *userdata)
{
    struct witness_control *control = userdata;
    char text[TOKEN_TEXT_SIZE];
    struct err err = {0};
    if (enrol_new_token(control->enrol, text, &err) < 0) {
        control_fail_err(request, &err);
        return;
    }
    log_notice("a token for one enrolment was made, valid for %d minutes", ENROL_TOKEN_LIFE_S / 60);
    control_reply(request, json_pack("{s:s, s:i}", "token", text, "seconds", ENROL_TOKEN_LIFE_S));
    seal_wipe(text, sizeof text);
}

static void handle_status(struct control_request *request, json_t *params, void *userdata)
{
    struct witness_control *control = userdata;
    json_t *status = server_status(control->server);
    if (status != NULL)
        json_object_set_new(status, "version", json_string(HCI_VERSION));
    control_reply(request, status);
}

int witness_control_new(sd_event *event, const char *path, struct witness_control *control, struct control_server **ret,
                        struct err *err)
{
    static const struct control_method methods[] = {
        {"token.new", handle_token},
        {"status", handle_status},
        {NULL, NULL},
    };
    return control_server_new(event, path, methods, control, ret, err);
}
