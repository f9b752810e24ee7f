/* Counters as text for Prometheus over libmicrohttpd. */
#include "witness/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"

#define TEXT_MAX 16384u

struct metrics {
    struct MHD_Daemon *daemon;
    const struct counters *counters;
};

/* One line each; the first of a name brings its HELP and TYPE. */
static const struct {
    enum counter counter;
    const char *name, *label, *type, *help;
} lines[] = {
    {COUNT_CLUSTERS, "hci_witness_clusters", "", "gauge", "Clusters enrolled."},
    {COUNT_NODES_HEARD, "hci_witness_nodes_heard", "", "gauge", "Nodes heard within lost_after."},
    {COUNT_CLUSTERS_RESTORED, "hci_witness_clusters_restored", "", "gauge", "Clusters that are granted nothing: old store."},
    {COUNT_STORE_BYTES, "hci_witness_store_bytes", "", "gauge", "Size of the store."},
    {COUNT_STORE_FULL, "hci_witness_store_full", "", "gauge", "1 while the disk takes no changes."},
    {COUNT_ALERTS_ACTIVE, "hci_witness_alerts_active", "", "gauge", "Alerts raised and not ended."},
    {COUNT_LEASE, "hci_witness_requests_total", "{kind=\"lease\"}", "counter", "Requests taken, by kind."},
    {COUNT_CAS, "hci_witness_requests_total", "{kind=\"cas\"}", NULL, NULL},
    {COUNT_RECORDS, "hci_witness_requests_total", "{kind=\"records\"}", NULL, NULL},
    {COUNT_FOREIGN, "hci_witness_refused_total", "{reason=\"foreign\"}", "counter", "Datagrams not taken, by reason."},
    {COUNT_STRANGER, "hci_witness_refused_total", "{reason=\"stranger\"}", NULL, NULL},
    {COUNT_FORGED, "hci_witness_refused_total", "{reason=\"forged\"}", NULL, NULL},
    {COUNT_QUOTA, "hci_witness_refused_total", "{reason=\"quota\"}", NULL, NULL},
    {COUNT_REPEATED, "hci_witness_refused_total", "{reason=\"repeated\"}", NULL, NULL},
    {COUNT_CHALLENGED, "hci_witness_refused_total", "{reason=\"challenged\"}", NULL, NULL},
    {COUNT_OK, "hci_witness_cas_total", "{verdict=\"ok\"}", "counter", "Judgements on records, by verdict."},
    {COUNT_STALE, "hci_witness_cas_total", "{verdict=\"stale\"}", NULL, NULL},
    {COUNT_ADOPT, "hci_witness_cas_total", "{verdict=\"adopt\"}", NULL, NULL},
    {COUNT_BEHIND, "hci_witness_cas_total", "{verdict=\"behind\"}", NULL, NULL},
    {COUNT_WAIT, "hci_witness_cas_total", "{verdict=\"wait\"}", NULL, NULL},
    {COUNT_REFUSED, "hci_witness_cas_total", "{verdict=\"refused\"}", NULL, NULL},
    {COUNT_REBOUND, "hci_witness_cas_total", "{verdict=\"rebound\"}", NULL, NULL},
    {COUNT_UNSTORED, "hci_witness_unstored_total", "", "counter", "Changes not answered because they were not durable."},
    {COUNT_ENROLMENTS, "hci_witness_enrolments_total", "{result=\"ok\"}", "counter", "Enrolments, by result."},
    {COUNT_ENROLMENTS_REFUSED, "hci_witness_enrolments_total", "{result=\"refused\"}", NULL, NULL},
    {COUNT_ALERTS, "hci_witness_alerts_total", "{state=\"raised\"}", "counter", "Alerts, by what was told."},
    {COUNT_ALERTS_ENDED, "hci_witness_alerts_total", "{state=\"ended\"}", NULL, NULL},
    {COUNT_ALERTS_DROPPED, "hci_witness_alerts_total", "{state=\"dropped\"}", NULL, NULL},
    {COUNT_DELIVERIES, "hci_witness_deliveries_total", "{result=\"ok\"}", "counter", "Deliveries to webhook and hook."},
    {COUNT_DELIVERIES_FAILED, "hci_witness_deliveries_total", "{result=\"failed\"}", NULL, NULL},
};

static void write_commits(FILE *out, const struct counters *counters)
{
    uint64_t sum = 0;
    fputs("# HELP hci_witness_commit_seconds How long changes took to be durable.\n"
          "# TYPE hci_witness_commit_seconds histogram\n", out);
    for (unsigned i = 0; i < COUNT_COMMIT_BUCKETS; i++) {
        sum += atomic_load_explicit(&counters->commits[i], memory_order_relaxed);
        if (i + 1 < COUNT_COMMIT_BUCKETS)
            fprintf(out, "hci_witness_commit_seconds_bucket{le=\"%g\"} %llu\n", 0.001 * (1u << i), (unsigned long long)sum);
    }
    fprintf(out, "hci_witness_commit_seconds_bucket{le=\"+Inf\"} %llu\n", (unsigned long long)sum);
    fprintf(out, "hci_witness_commit_seconds_sum %.6f\n",
            (double)atomic_load_explicit(&counters->commit_ns, memory_order_relaxed) / 1e9);
    fprintf(out, "hci_witness_commit_seconds_count %llu\n", (unsigned long long)sum);
}

static size_t write_text(const struct counters *counters, char *text, size_t size)
{
    FILE *out = fmemopen(text, size, "w");
    if (out == NULL)
        return 0;
    for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (lines[i].type != NULL)
            fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", lines[i].name, lines[i].help, lines[i].name, lines[i].type);
        fprintf(out, "%s%s %llu\n", lines[i].name, lines[i].label,
                (unsigned long long)count_get(counters, lines[i].counter));
    }
    write_commits(out, counters);
    long written = ftell(out);
    fclose(out);
    check(written > 0 && (size_t)written < size);
    return (size_t)written;
}

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *text, size_t size)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(size, (void *)text, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_size, void **state)
{
    const struct metrics *metrics = userdata;
    char text[TEXT_MAX];
    static const char only[] = "only GET /metrics is answered here\n";
    if (strcmp(method, "GET") != 0)
        return reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, only, sizeof only - 1);
    if (strcmp(url, "/metrics") != 0)
        return reply(connection, MHD_HTTP_NOT_FOUND, only, sizeof only - 1);
    return reply(connection, MHD_HTTP_OK, text, write_text(metrics->counters, text, sizeof text));
}

int metrics_new(const char *address, uint16_t port, const struct counters *counters, struct metrics **ret, struct err *err)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &local.sin_addr) != 1)
        return err_set(err, -EINVAL, "invalid", "metrics address '%s': is no IPv4 address; write for example 127.0.0.1:9203",
                       address);
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL)
        return err_set(err, -ENOMEM, "no_memory", "hci-witnessd: out of memory");
    metrics->counters = counters;
    metrics->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, port, NULL, NULL, on_request, metrics,
                                       MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&local, MHD_OPTION_CONNECTION_LIMIT,
                                       METRICS_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, METRICS_TIMEOUT_S,
                                       MHD_OPTION_END);
    if (metrics->daemon == NULL) {
        free(metrics);
        return err_set(err, -EADDRINUSE, "io", "metrics address '%s:%u': cannot be bound; choose an address and a free port "
                       "of this host", address, port);
    }
    *ret = metrics;
    return 0;
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    MHD_stop_daemon(metrics->daemon);
    free(metrics);
}
