/* witnessd.conf: whom to tell, when, and where to show figures. Every line has a default; there need not be a file. */
#pragma once

#include "common/err.h"
#include "witness/alert_core.h"
#include "witness/exec_hook.h"
#include "witness/webhook.h"

#define CONFIG_PATH "/etc/hci/witnessd.conf"

struct config {
    struct alert_config alert;
    struct webhook webhook; /* url "": none */
    struct exec_hook hook;  /* path "": none */
    char metrics_address[64]; /* "": off */
    uint16_t metrics_port;
};

void config_default(struct config *ret);
/* `required`: a missing file is an error. Errors are one sentence: the file, the line, the value, what is allowed; they
 * quote no URL or header, which may hold secrets. */
int config_load(const char *path, bool required, struct config *ret, struct err *err);
/* "127.0.0.1:9203" */
int config_parse_address(const char *text, char ret_address[static 64], uint16_t *ret_port);
