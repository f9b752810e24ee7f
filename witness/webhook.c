/* One POST per alert over libcurl, TLS verified. */
#include "witness/webhook.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

int webhook_init(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -EIO;
}

static size_t swallow(char *data, size_t size, size_t count, void *userdata)
{
    return size * count;
}

static int on_progress(void *userdata, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const atomic_bool *stopping = userdata;
    return *stopping ? 1 : 0;
}

static void configure(CURL *curl, const struct webhook *webhook, struct curl_slist *headers, const char *body,
                      const atomic_bool *stopping, char *reason)
{
    curl_easy_setopt(curl, CURLOPT_URL, webhook->url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https,http");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)WEBHOOK_CONNECT_S);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)WEBHOOK_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "hci-witnessd/" HCI_VERSION);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, swallow);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, (void *)stopping);
    if (webhook->ca[0] != '\0')
        curl_easy_setopt(curl, CURLOPT_CAINFO, webhook->ca);
}

/* The URL may hold a secret (many services put a key into it), so that only its host is told. */
static int tell(const char *url, CURL *curl, CURLcode code, const char *reason, struct err *err)
{
    long status = 0;
    const char *host = strstr(url, "://");
    host = host == NULL ? url : host + 3;
    const char *at = strchr(host, '@');
    size_t length = strcspn(host, "/?#");
    if (at != NULL && at < host + length) {
        length -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    if (code != CURLE_OK)
        return err_set(err, -EIO, "io", "host '%.*s' was not reached (%s)", (int)length, host,
                       reason[0] != '\0' && strstr(reason, url) == NULL ? reason : curl_easy_strerror(code));
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status > 299)
        return err_set(err, -EIO, "refused", "host '%.*s' answered with HTTP status %ld", (int)length, host, status);
    return 0;
}

int webhook_deliver(const struct alert *alert, const atomic_bool *stopping, void *userdata, struct err *err)
{
    const struct webhook *webhook = userdata;
    char reason[CURL_ERROR_SIZE] = "";
    cleanup_free char *body = alert_to_json(alert);
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (headers != NULL && webhook->header[0] != '\0')
        headers = curl_slist_append(headers, webhook->header);
    int result = err_set(NULL, -ENOMEM, "no_memory", "out of memory");
    if (body != NULL && curl != NULL && headers != NULL) {
        configure(curl, webhook, headers, body, stopping, reason);
        CURLcode code = curl_easy_perform(curl);
        result = tell(webhook->url, curl, code, reason, err);
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return result;
}
