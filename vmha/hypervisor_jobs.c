/* The calls to libvirt, one function per job; they run on a worker thread and may block. */
#include <errno.h>
#include <inttypes.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/check.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/files.h"
#include "vmha/cgroup.h"
#include "vmha/domain_xml.h"
#include "vmha/hypervisor_private.h"

static void free_domain(virDomainPtr *domain)
{
    if (*domain)
        virDomainFree(*domain);
}
#define cleanup_domain cleanup(free_domain)

static void fail(struct hypervisor_job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct hypervisor_job *job, const char *format, ...)
{
    va_list arguments;

    job->failed = true;
    va_start(arguments, format);
    vsnprintf(job->error, sizeof job->error, format, arguments);
    va_end(arguments);
    for (char *c = job->error; *c; c++)
        if (*c == '\n')
            *c = ' ';
}

/* libvirt's own sentence about the last call of this thread. */
static const char *reason(void)
{
    const char *text = virGetLastErrorMessage();

    return text ? text : "no reason given";
}

static virDomainPtr find(struct hypervisor_job *job)
{
    virDomainPtr domain = virDomainLookupByName(job->connection, job->name);

    if (!domain)
        fail(job, "libvirt: %s", reason());
    return domain;
}

/* libvirt writes QEMU's pid there; its interface has no other way to tell it. */
static int read_pid(const char *name, pid_t *ret)
{
    char path[128];
    cleanup_free char *text = NULL;

    snprintf(path, sizeof path, "/run/libvirt/qemu/%s.pid", name);
    int r = files_read(path, 32, &text, NULL, NULL);
    if (r)
        return r;
    long pid = strtol(text, NULL, 10);
    if (pid <= 1)
        return -EINVAL;
    *ret = (pid_t)pid;
    return 0;
}

static int own_cgroup(struct hypervisor_job *job, const char *name, struct err *err)
{
    pid_t pid;
    int r = read_pid(name, &pid);

    if (r)
        return err_set(err, r, "cgroup", "guest '%s': /run/libvirt/qemu/%s.pid cannot be read: %s", name, name,
                       strerror(-r));
    return cgroup_add(job->cgroup_root, name, pid, err);
}

static void define_secret(struct hypervisor_job *job)
{
    char xml[512];

    domain_xml_secret(job->name, &job->secret_id, xml, sizeof xml);
    virSecretPtr secret = virSecretDefineXML(job->connection, xml, 0);
    if (!secret || virSecretSetValue(secret, (const unsigned char *)job->secret, strlen(job->secret), 0))
        fail(job, "libvirt does not take the CHAP secret: %s", reason());
    if (secret)
        virSecretFree(secret);
}

static void run_start(struct hypervisor_job *job)
{
    struct err err = {0};

    if (job->secret)
        define_secret(job);
    if (job->failed)
        return;
    cleanup_domain virDomainPtr domain = virDomainCreateXML(job->connection, job->xml, VIR_DOMAIN_START_PAUSED);
    if (!domain) {
        fail(job, "libvirt: %s", reason());
    } else if (own_cgroup(job, job->name, &err)) {
        fail(job, "%s", err.text);
        virDomainDestroy(domain);
    }
}

static void run_resume(struct hypervisor_job *job)
{
    int state = 0;
    cleanup_domain virDomainPtr domain = find(job);

    if (!domain || !virDomainResume(domain))
        return;
    char text[256];
    snprintf(text, sizeof text, "%s", reason());
    if (!virDomainGetState(domain, &state, NULL, 0) && state == VIR_DOMAIN_RUNNING)
        return; /* it ran already */
    fail(job, "libvirt: %s", text);
}

static void run_shutdown(struct hypervisor_job *job)
{
    cleanup_domain virDomainPtr domain = find(job);

    if (domain && virDomainShutdown(domain))
        fail(job, "libvirt: %s", reason());
}

/* True when no process is left in the cgroup within the time. */
static bool wait_empty(struct hypervisor_job *job)
{
    uint64_t end_ms = clock_boottime_ms() + HYPERVISOR_KILL_MS;
    bool populated = true, frozen;

    while (!cgroup_state(job->cgroup_root, job->name, &populated, &frozen) && populated) {
        if (clock_boottime_ms() >= end_ms)
            return false;
        /* The kernel needs a moment to take a process apart; cgroup.events is read back, not trusted to be done. */
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return true;
}

static void forget_secret(struct hypervisor_job *job)
{
    char usage[HYPERVISOR_NAME_MAX + 8];

    snprintf(usage, sizeof usage, "hci-%s", job->name);
    virSecretPtr secret = virSecretLookupByUsage(job->connection, VIR_SECRET_USAGE_TYPE_ISCSI, usage);
    if (!secret)
        return;
    virSecretUndefine(secret);
    virSecretFree(secret);
}

/* Only "there is no such domain" proves that libvirt has none; any other failure proves nothing. */
static void destroy_domain(struct hypervisor_job *job)
{
    for (unsigned i = 0; i < 50; i++) {
        cleanup_domain virDomainPtr domain = virDomainLookupByName(job->connection, job->name);
        if (!domain && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
            return;
        if (domain && virDomainIsActive(domain) == 0) {
            virDomainUndefine(domain);
            return;
        }
        if (domain)
            virDomainDestroy(domain);
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    fail(job, "libvirt still has the domain: %s", reason());
}

static void run_kill(struct hypervisor_job *job)
{
    int killed = cgroup_kill(job->cgroup_root, job->name);

    if (!wait_empty(job)) {
        fail(job, "processes are left in its cgroup %u s after SIGKILL", HYPERVISOR_KILL_MS / 1000);
        return;
    }
    if (job->connection) {
        destroy_domain(job);
        if (!job->failed)
            forget_secret(job);
    } else if (killed) { /* no cgroup that was seen empty, no libvirt to ask */
        fail(job, "libvirt is not connected");
    }
    if (!job->failed && cgroup_remove(job->cgroup_root, job->name))
        fail(job, "its cgroup cannot be removed");
}

/* What a start would do with it, short of starting: machine, emulator, devices, addresses. */
static void run_check(struct hypervisor_job *job)
{
    char *command = virConnectDomainXMLToNative(job->connection, "qemu-argv", job->xml, 0);

    if (!command)
        fail(job, "%s", reason());
    free(command);
}

/* Is the domain whose end was told still there? Then it was the end of an older incarnation. */
static void run_probe(struct hypervisor_job *job)
{
    cleanup_domain virDomainPtr domain = virDomainLookupByName(job->connection, job->name);

    if (domain ? virDomainIsActive(domain) != 0 : virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
        fail(job, "the domain is active");
}

static void list_domain(struct hypervisor_job *job, virDomainPtr domain)
{
    int state = 0, why = 0;
    bool populated;
    struct err err = {0};
    char *mark = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, DOMAIN_XML_MARK_URI, 0);

    if (!mark || job->domain_count == HYPERVISOR_DOMAINS_MAX || virDomainGetState(domain, &state, &why, 0)) {
        free(mark); /* a domain that is none of ours */
        return;
    }
    struct hypervisor_domain *entry = &job->domains[job->domain_count];
    snprintf(entry->name, sizeof entry->name, "%s", virDomainGetName(domain));
    entry->io_error = state == VIR_DOMAIN_PAUSED && why == VIR_DOMAIN_PAUSED_IOERROR;
    entry->paused = state != VIR_DOMAIN_RUNNING && !entry->io_error;
    if (own_cgroup(job, entry->name, &err))
        fail(job, "%s", err.text);
    cgroup_state(job->cgroup_root, entry->name, &populated, &entry->frozen);
    job->marks[job->domain_count++] = mark;
}

/* A QEMU in a cgroup of ours that libvirt knows nothing of cannot be managed: nobody would ever stop it. */
static void kill_stray(const char *name, void *userdata)
{
    struct hypervisor_job *job = userdata;
    struct hypervisor_job stray = {.kind = JOB_KILL, .cgroup_root = job->cgroup_root};

    for (unsigned i = 0; i < job->domain_count; i++)
        if (!strcmp(job->domains[i].name, name))
            return;
    snprintf(stray.name, sizeof stray.name, "%s", name);
    run_kill(&stray);
    if (stray.failed)
        fail(job, "stray guest '%s': %s", name, stray.error);
}

static void list_domains(struct hypervisor_job *job)
{
    virDomainPtr *domains = NULL;

    int count = virConnectListAllDomains(job->connection, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
    if (count < 0) {
        fail(job, "libvirt: %s", reason());
        return;
    }
    for (int i = 0; i < count; i++) {
        list_domain(job, domains[i]);
        virDomainFree(domains[i]);
    }
    free(domains);
    cgroup_list(job->cgroup_root, kill_stray, job);
}

static void run_connect(struct hypervisor_job *job)
{
    job->domains = calloc(HYPERVISOR_DOMAINS_MAX, sizeof *job->domains);
    job->marks = calloc(HYPERVISOR_DOMAINS_MAX, sizeof *job->marks);
    check(job->domains && job->marks);
    job->connection = virConnectOpen(job->uri);
    if (!job->connection) {
        fail(job, "%s", reason());
        return;
    }
    virConnectSetKeepAlive(job->connection, 5, 3);
    virConnectRegisterCloseCallback(job->connection, job->on_close, job->event_userdata, NULL);
    /* Events before the list: what ends in between is told twice rather than never. */
    if (virConnectDomainEventRegisterAny(job->connection, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE, job->on_lifecycle,
                                         job->event_userdata, NULL) < 0)
        fail(job, "libvirt events: %s", reason());
    if (!job->failed)
        list_domains(job);
    if (job->failed) {
        virConnectUnregisterCloseCallback(job->connection, job->on_close);
        virConnectClose(job->connection);
        job->connection = NULL;
    }
}

/* libvirt asks QEMU what it can do before a first start, for half a second: now, not when a guest is waited for. */
static void run_warm(struct hypervisor_job *job)
{
    free(virConnectGetDomainCapabilities(job->connection, NULL, NULL, NULL, NULL, 0));
}

void hypervisor_job_run(struct hypervisor_job *job)
{
    if (!job->connection && job->kind != JOB_CONNECT && job->kind != JOB_KILL) {
        fail(job, "libvirt is not connected");
        return;
    }
    switch (job->kind) {
    case JOB_CONNECT: run_connect(job); break;
    case JOB_START: run_start(job); break;
    case JOB_RESUME: run_resume(job); break;
    case JOB_SHUTDOWN: run_shutdown(job); break;
    case JOB_KILL: run_kill(job); break;
    case JOB_CHECK: run_check(job); break;
    case JOB_PROBE: run_probe(job); break;
    case JOB_WARM: run_warm(job); break;
    }
}
