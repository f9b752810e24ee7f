/* Reads witnessd.conf with libconfuse. */
#include "witness/config.h"

#include <confuse.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"

#define CONFIG_SIZE_MAX 65536u
#define SECONDS_MAX (30 * 86400)

/* libconfuse hands its error function no pointer of ours, so the line is caught here. */
static _Thread_local int error_line;

static void catch_error(cfg_t *cfg, const char *format, va_list arguments)
{
    if (error_line == 0) /* the first error is the cause */
        error_line = cfg->line;
}

static void cleanup_cfg(cfg_t **cfg)
{
    if (*cfg != NULL)
        cfg_free(*cfg);
}

void config_default(struct config *ret)
{
    *ret = (struct config){.alert = {.dark_s = 60, .lost_s = 60, .degraded_s = 3600, .settle_s = 30, .repeat_s = 600}};
}

int config_parse_address(const char *text, char ret_address[static 64], uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    if (colon == NULL || end == colon + 1 || *end != '\0' || port == 0 || port > UINT16_MAX ||
        (size_t)(colon - text) >= 64 || colon == text)
        return -EINVAL;
    memcpy(ret_address, text, (size_t)(colon - text));
    ret_address[colon - text] = '\0';
    *ret_port = (uint16_t)port;
    return 0;
}

static int take_seconds(const char *path, cfg_t *cfg, const char *name, uint32_t *ret, struct err *err)
{
    long value = cfg_getint(cfg, name);
    if (value < 1 || value > SECONDS_MAX)
        return err_set(err, -EINVAL, "invalid", "%s: %s = %ld: must be 1 to %d seconds", path, name, value, SECONDS_MAX);
    *ret = (uint32_t)value;
    return 0;
}

static int take_text(const char *path, cfg_t *cfg, const char *name, char *ret, size_t size, struct err *err)
{
    const char *text = cfg_getstr(cfg, name);
    size_t length = text == NULL ? 0 : strlen(text);
    if (length >= size || (length > 0 && strpbrk(text, "\r\n") != NULL))
        return err_set(err, -EINVAL, "invalid", "%s: %s: must be one line of at most %zu characters", path, name, size - 1);
    memcpy(ret, length == 0 ? "" : text, length + 1);
    return 0;
}

static int check_values(const char *path, const char *metrics, struct config *ret, struct err *err)
{
    const char *url = ret->webhook.url;
    if (url[0] != '\0' && strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
        return err_set(err, -EINVAL, "invalid", "%s: webhook: must begin with https:// (or http:// on a trusted line)", path);
    if (ret->hook.path[0] != '\0' && (ret->hook.path[0] != '/' || access(ret->hook.path, X_OK) < 0))
        return err_set(err, -EINVAL, "invalid", "%s: hook = \"%s\": must be the absolute path of an executable file", path,
                       ret->hook.path);
    if (metrics[0] != '\0' && config_parse_address(metrics, ret->metrics_address, &ret->metrics_port) < 0)
        return err_set(err, -EINVAL, "invalid", "%s: metrics = \"%s\": must be ADDRESS:PORT, for example 127.0.0.1:9203",
                       path, metrics);
    return 0;
}

static int take(const char *path, cfg_t *cfg, struct config *ret, struct err *err)
{
    char metrics[80];
    int error = take_seconds(path, cfg, "dark_after", &ret->alert.dark_s, err);
    if (error == 0)
        error = take_seconds(path, cfg, "lost_after", &ret->alert.lost_s, err);
    if (error == 0)
        error = take_seconds(path, cfg, "degraded_after", &ret->alert.degraded_s, err);
    if (error == 0)
        error = take_seconds(path, cfg, "settle", &ret->alert.settle_s, err);
    if (error == 0)
        error = take_seconds(path, cfg, "repeat_after", &ret->alert.repeat_s, err);
    if (error == 0)
        error = take_text(path, cfg, "webhook", ret->webhook.url, sizeof ret->webhook.url, err);
    if (error == 0)
        error = take_text(path, cfg, "webhook_ca", ret->webhook.ca, sizeof ret->webhook.ca, err);
    if (error == 0)
        error = take_text(path, cfg, "webhook_header", ret->webhook.header, sizeof ret->webhook.header, err);
    if (error == 0)
        error = take_text(path, cfg, "hook", ret->hook.path, sizeof ret->hook.path, err);
    if (error == 0)
        error = take_text(path, cfg, "metrics", metrics, sizeof metrics, err);
    return error < 0 ? error : check_values(path, metrics, ret, err);
}

int config_load(const char *path, bool required, struct config *ret, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t size = 0;
    config_default(ret);
    if (!required && access(path, F_OK) < 0)
        return 0;
    int error = files_read(path, CONFIG_SIZE_MAX, &text, &size, err);
    if (error < 0)
        return error;
    cfg_opt_t options[] = {
        CFG_INT((char *)"dark_after", (long)ret->alert.dark_s, CFGF_NONE),
        CFG_INT((char *)"lost_after", (long)ret->alert.lost_s, CFGF_NONE),
        CFG_INT((char *)"degraded_after", (long)ret->alert.degraded_s, CFGF_NONE),
        CFG_INT((char *)"settle", (long)ret->alert.settle_s, CFGF_NONE),
        CFG_INT((char *)"repeat_after", (long)ret->alert.repeat_s, CFGF_NONE),
        CFG_STR((char *)"webhook", (char *)"", CFGF_NONE),
        CFG_STR((char *)"webhook_ca", (char *)"", CFGF_NONE),
        CFG_STR((char *)"webhook_header", (char *)"", CFGF_NONE),
        CFG_STR((char *)"hook", (char *)"", CFGF_NONE),
        CFG_STR((char *)"metrics", (char *)"", CFGF_NONE),
        CFG_END(),
    };
    cleanup(cleanup_cfg) cfg_t *cfg = cfg_init(options, CFGF_NONE);
    if (cfg == NULL)
        return err_set(err, -ENOMEM, "no_memory", "%s: no memory to read it", path);
    error_line = 0;
    cfg_set_error_function(cfg, catch_error);
    /* The library's own sentence may quote the line, and with it a secret. */
    if (cfg_parse_buf(cfg, text) != CFG_SUCCESS)
        return err_set(err, -EINVAL, "invalid", "%s, line %d: is none of dark_after, lost_after, degraded_after, settle, "
                       "repeat_after = SECONDS, webhook, webhook_ca, webhook_header, hook, metrics = \"TEXT\"; correct the "
                       "line", path, error_line);
    return take(path, cfg, ret, err);
}
