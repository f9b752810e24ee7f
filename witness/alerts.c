/* Hands alerts on. When hundreds of sites fall silent at once, the cause is near the witness, and hundreds of calls at
 * night would hide it: beyond a bound they become one. */
#include "witness/alerts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "witness/alert_text.h"
#include "witness/courier.h"
#include "witness/limit.h"

#define SUM_UP_US UINT64_C(60000000)

struct alerts {
    struct counters *counters;
    struct config *config;
    struct courier *webhook, *hook; /* NULL: not configured */
    sd_event_source *summing;
    struct limit rate;
    unsigned held_back, held_back_dark;
    time_t held_back_since;
};

static void log_alert(const struct alert *alert)
{
    char kind[48], state[32], site[96], id[80], node[96], since[64], key[128];
    snprintf(kind, sizeof kind, "HCI_ALERT=%s", alert->kind);
    snprintf(state, sizeof state, "HCI_ALERT_STATE=%s", alert->raised ? "raised" : "ended");
    snprintf(key, sizeof key, "HCI_ALERT_KEY=%s", alert->key);
    snprintf(site, sizeof site, "HCI_SITE=%s", alert->site);
    snprintf(id, sizeof id, "HCI_SITE_ID=%s", alert->site_id);
    snprintf(node, sizeof node, "HCI_NODE=%s", alert->node);
    snprintf(since, sizeof since, "HCI_SINCE=%s", alert->since);
    const char *const fields[] = {kind, state, key, site, id, node, since};
    bool dire = strcmp(alert->kind, "site_dark") == 0 || strcmp(alert->kind, "store_full") == 0;
    log_write_fields(!alert->raised ? LOG_LEVEL_NOTICE : dire ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, alert->sentence,
                     fields, sizeof fields / sizeof fields[0]);
}

static void deliver(struct alerts *alerts, const struct alert *alert)
{
    if (alerts->webhook != NULL)
        courier_send(alerts->webhook, alert);
    if (alerts->hook != NULL)
        courier_send(alerts->hook, alert);
}

static void hold_back(struct alerts *alerts, const struct alert *alert)
{
    if (alerts->held_back++ == 0) {
        alerts->held_back_since = time(NULL);
        alerts->held_back_dark = 0;
        sd_event_source_set_time_relative(alerts->summing, SUM_UP_US);
        sd_event_source_set_enabled(alerts->summing, SD_EVENT_ONESHOT);
    }
    alerts->held_back_dark += alert->raised && strcmp(alert->kind, "site_dark") == 0;
}

void alerts_tell(struct alerts *alerts, const struct alert *alert)
{
    log_alert(alert);
    count_add(alerts->counters, alert->raised ? COUNT_ALERTS : COUNT_ALERTS_ENDED);
    if (limit_take_each(&alerts->rate, ALERTS_EACH_S * NSEC_PER_SEC, ALERTS_BURST, clock_boottime_ns()))
        deliver(alerts, alert);
    else
        hold_back(alerts, alert);
}

static int on_sum_up(sd_event_source *source, uint64_t now, void *userdata)
{
    struct alerts *alerts = userdata;
    struct alert alert;
    char sentence[sizeof alert.sentence];
    snprintf(sentence, sizeof sentence,
             "%u more alerts in the last minute were not sent one by one, %u of them 'site dark': when many sites fall silent "
             "together, look at this witness's own network first; every site decides as before as long as both its nodes are "
             "up; each alert is in this witness's journal (journalctl -u hci-witnessd HCI_ALERT_STATE=raised)",
             alerts->held_back, alerts->held_back_dark);
    alert_describe_own("many", true, alerts->held_back_since, time(NULL), sentence, &alert);
    alerts->held_back = 0;
    log_alert(&alert);
    deliver(alerts, &alert);
    return 0;
}

int alerts_new(sd_event *event, struct config *config, struct counters *counters, struct alerts **ret, struct err *err)
{
    struct alerts *alerts = calloc(1, sizeof *alerts);
    if (alerts == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    *alerts = (struct alerts){.config = config, .counters = counters};
    int error = sd_event_add_time_relative(event, &alerts->summing, CLOCK_BOOTTIME, SUM_UP_US, 0, on_sum_up, alerts);
    if (error >= 0)
        error = sd_event_source_set_enabled(alerts->summing, SD_EVENT_OFF);
    if (error < 0)
        err_set(err, error, "io", "alerts: %s", strerror(-error));
    if (error >= 0 && config->webhook.url[0] != '\0')
        error = webhook_init() < 0 ? err_set(err, -EIO, "io", "webhook: libcurl cannot be used")
                                   : courier_new("webhook", webhook_deliver, &config->webhook, counters, &alerts->webhook, err);
    if (error >= 0 && config->hook.path[0] != '\0')
        error = courier_new("hook", exec_hook_deliver, &config->hook, counters, &alerts->hook, err);
    if (error < 0) {
        alerts_free(alerts);
        return error;
    }
    *ret = alerts;
    return 0;
}

void alerts_free(struct alerts *alerts)
{
    if (alerts == NULL)
        return;
    courier_free(alerts->webhook);
    courier_free(alerts->hook);
    sd_event_source_disable_unref(alerts->summing);
    free(alerts);
}

void alerts_test(struct alerts *alerts, char *ret_sentence, size_t size)
{
    struct alert alert;
    time_t now = time(NULL);
    alert_describe_own("test", true, now, now, "this is a test of the alerts of hci-witnessd, asked for by an operator: "
                       "nothing has happened and nothing is to be done", &alert);
    log_alert(&alert);
    deliver(alerts, &alert);
    snprintf(ret_sentence, size, "a test alert went to the journal%s%s%s", alerts->webhook != NULL ? ", to the webhook" : "",
             alerts->hook != NULL ? ", to the hook" : "",
             alerts->webhook == NULL && alerts->hook == NULL ? " only: witnessd.conf names no webhook and no hook"
                                                             : "; the journal says when a delivery fails");
}
