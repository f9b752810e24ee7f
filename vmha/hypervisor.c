/* The threads around libvirt: one for its events, a few for its calls, a mailbox back to the loop. */
#include "vmha/hypervisor.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "vmha/cgroup.h"
#include "vmha/domain_xml.h"
#include "vmha/hypervisor_private.h"

#define RECONNECT_US 1000000u

enum letter_kind { LETTER_JOB, LETTER_CLOSED, LETTER_ENDED, LETTER_IO_ERROR };

struct letter {
    struct letter *next;
    enum letter_kind kind;
    struct hypervisor_job *job;
    char name[HYPERVISOR_NAME_MAX];
    bool by_guest;
};

struct hypervisor {
    /* The loop's. */
    sd_event_source *mail_source, *reconnect_source;
    struct hypervisor_callbacks callbacks;
    void *userdata;
    char uri[128], cgroup_root[128];
    virConnectPtr connection;
    bool complained;
    /* Shared, under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct hypervisor_job *jobs, **jobs_end;
    struct letter *letters, **letters_end;
    bool stop;
    int mail_fd;
    pthread_t workers[HYPERVISOR_WORKERS], events;
    int stop_timer;
    /* The event thread's: whose system shut itself down; its end follows. */
    char shut_down[HYPERVISOR_DOMAINS_MAX][HYPERVISOR_NAME_MAX];
};

static void post(struct hypervisor *hypervisor, struct letter *letter)
{
    pthread_mutex_lock(&hypervisor->lock);
    *hypervisor->letters_end = letter;
    hypervisor->letters_end = &letter->next;
    pthread_mutex_unlock(&hypervisor->lock);
    eventfd_write(hypervisor->mail_fd, 1);
}

static struct letter *letter_new(enum letter_kind kind, const char *name)
{
    struct letter *letter = calloc(1, sizeof *letter);

    check(letter);
    letter->kind = kind;
    snprintf(letter->name, sizeof letter->name, "%s", name);
    return letter;
}

static void remember_shutdown(struct hypervisor *hypervisor, const char *name)
{
    for (unsigned i = 0; i < HYPERVISOR_DOMAINS_MAX; i++)
        if (!hypervisor->shut_down[i][0]) {
            snprintf(hypervisor->shut_down[i], HYPERVISOR_NAME_MAX, "%s", name);
            return;
        }
}

static bool forget_shutdown(struct hypervisor *hypervisor, const char *name)
{
    bool found = false;

    for (unsigned i = 0; i < HYPERVISOR_DOMAINS_MAX; i++)
        if (!strcmp(hypervisor->shut_down[i], name)) {
            hypervisor->shut_down[i][0] = '\0';
            found = true;
        }
    return found;
}

/* On the event thread. A SIGTERM from the host also looks like a shutdown: only the guest's own counts as wanted. */
static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *userdata)
{
    struct hypervisor *hypervisor = userdata;
    const char *name = virDomainGetName(domain);

    if (event == VIR_DOMAIN_EVENT_STARTED) {
        forget_shutdown(hypervisor, name);
    } else if (event == VIR_DOMAIN_EVENT_SHUTDOWN && detail == VIR_DOMAIN_EVENT_SHUTDOWN_GUEST) {
        remember_shutdown(hypervisor, name);
    } else if (event == VIR_DOMAIN_EVENT_STOPPED) {
        struct letter *letter = letter_new(LETTER_ENDED, name);
        letter->by_guest = forget_shutdown(hypervisor, name) && detail == VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN;
        post(hypervisor, letter);
    } else if (event == VIR_DOMAIN_EVENT_SUSPENDED && detail == VIR_DOMAIN_EVENT_SUSPENDED_IOERROR) {
        post(hypervisor, letter_new(LETTER_IO_ERROR, name));
    }
    return 0;
}

static void on_close(virConnectPtr connection, int why, void *userdata)
{
    post(userdata, letter_new(LETTER_CLOSED, ""));
}

static void on_stop_timer(int timer, void *userdata)
{
}

static void *events_main(void *userdata)
{
    struct hypervisor *hypervisor = userdata;

    for (;;) {
        pthread_mutex_lock(&hypervisor->lock);
        bool stop = hypervisor->stop;
        pthread_mutex_unlock(&hypervisor->lock);
        if (stop)
            return NULL;
        virEventRunDefaultImpl();
    }
}

static void *worker_main(void *userdata)
{
    struct hypervisor *hypervisor = userdata;

    for (;;) {
        pthread_mutex_lock(&hypervisor->lock);
        while (!hypervisor->jobs && !hypervisor->stop)
            pthread_cond_wait(&hypervisor->work, &hypervisor->lock);
        struct hypervisor_job *job = hypervisor->stop ? NULL : hypervisor->jobs;
        if (job) {
            hypervisor->jobs = job->next;
            if (!hypervisor->jobs)
                hypervisor->jobs_end = &hypervisor->jobs;
        }
        pthread_mutex_unlock(&hypervisor->lock);
        if (!job)
            return NULL;
        hypervisor_job_run(job);
        struct letter *letter = letter_new(LETTER_JOB, job->name);
        letter->job = job;
        post(hypervisor, letter);
    }
}

static void job_free(struct hypervisor_job *job)
{
    if (job->secret)
        explicit_bzero(job->secret, strlen(job->secret));
    free(job->secret);
    free(job->xml);
    for (unsigned i = 0; i < job->domain_count; i++)
        free(job->marks[i]);
    free(job->marks);
    free(job->domains);
    if (job->connection)
        virConnectClose(job->connection);
    free(job);
}

static struct hypervisor_job *job_new(struct hypervisor *hypervisor, enum job_kind kind, const char *name,
                                      hypervisor_answer *answer, void *userdata)
{
    struct hypervisor_job *job = calloc(1, sizeof *job);

    check(job);
    job->kind = kind;
    snprintf(job->name, sizeof job->name, "%s", name);
    job->answer = answer;
    job->userdata = userdata;
    job->cgroup_root = hypervisor->cgroup_root;
    if (kind != JOB_CONNECT && hypervisor->connection) {
        job->connection = hypervisor->connection;
        virConnectRef(job->connection);
    }
    return job;
}

static void job_queue(struct hypervisor *hypervisor, struct hypervisor_job *job)
{
    pthread_mutex_lock(&hypervisor->lock);
    *hypervisor->jobs_end = job;
    hypervisor->jobs_end = &job->next;
    pthread_cond_signal(&hypervisor->work);
    pthread_mutex_unlock(&hypervisor->lock);
}

static void begin_connect(struct hypervisor *hypervisor)
{
    struct hypervisor_job *job = job_new(hypervisor, JOB_CONNECT, "", NULL, NULL);

    job->uri = hypervisor->uri;
    job->on_lifecycle = VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle);
    job->on_close = on_close;
    job->event_userdata = hypervisor;
    job_queue(hypervisor, job);
}

static int on_reconnect(sd_event_source *source, uint64_t usec, void *userdata)
{
    begin_connect(userdata);
    return 0;
}

static void reconnect_later(struct hypervisor *hypervisor)
{
    sd_event_source_set_time_relative(hypervisor->reconnect_source, RECONNECT_US);
    sd_event_source_set_enabled(hypervisor->reconnect_source, SD_EVENT_ONESHOT);
}

static void connect_done(struct hypervisor *hypervisor, struct hypervisor_job *job)
{
    unsigned count = 0;

    if (job->failed) {
        if (!hypervisor->complained)
            log_warning("the hypervisor at '%s' cannot be used, no guest is started before it can: %s", hypervisor->uri,
                        job->error);
        hypervisor->complained = true;
        reconnect_later(hypervisor);
        return;
    }
    hypervisor->complained = false;
    hypervisor->connection = job->connection;
    job->connection = NULL;
    for (unsigned i = 0; i < job->domain_count; i++) {
        struct hypervisor_domain domain = job->domains[i];
        if (domain_xml_read_mark(job->marks[i], &domain.group, &domain.incarnation))
            log_warning("domain '%s' carries a mark that cannot be read; it is left alone", domain.name);
        else
            job->domains[count++] = domain;
    }
    hypervisor->callbacks.listed(job->domains, count, hypervisor->userdata);
    job_queue(hypervisor, job_new(hypervisor, JOB_WARM, "", NULL, NULL));
}

static void closed(struct hypervisor *hypervisor)
{
    if (!hypervisor->connection)
        return;
    virConnectClose(hypervisor->connection);
    hypervisor->connection = NULL;
    log_warning("the hypervisor at '%s' closed its connection; its guests run on, none is started", hypervisor->uri);
    hypervisor->callbacks.lost(hypervisor->userdata);
    reconnect_later(hypervisor);
}

/* An end that is told late may be that of an older incarnation: libvirt is asked whether the domain is active. When
 * that cannot be answered the connection is broken, and the next list tells. */
static void probe(struct hypervisor *hypervisor, const struct letter *letter)
{
    struct hypervisor_job *job = job_new(hypervisor, JOB_PROBE, letter->name, NULL, NULL);

    job->by_guest = letter->by_guest;
    job_queue(hypervisor, job);
}

static void letter_read(struct hypervisor *hypervisor, struct letter *letter)
{
    struct hypervisor_job *job = letter->job;

    switch (letter->kind) {
    case LETTER_JOB:
        if (job->kind == JOB_CONNECT)
            connect_done(hypervisor, job);
        else if (job->kind == JOB_PROBE && !job->failed)
            hypervisor->callbacks.ended(job->name, job->by_guest, hypervisor->userdata);
        else if (job->answer)
            job->answer(job->failed ? job->error : NULL, job->userdata);
        job_free(job);
        break;
    case LETTER_CLOSED: closed(hypervisor); break;
    case LETTER_ENDED: probe(hypervisor, letter); break;
    case LETTER_IO_ERROR: hypervisor->callbacks.io_error(letter->name, hypervisor->userdata); break;
    }
}

static struct letter *take_letters(struct hypervisor *hypervisor)
{
    pthread_mutex_lock(&hypervisor->lock);
    struct letter *letters = hypervisor->letters;
    hypervisor->letters = NULL;
    hypervisor->letters_end = &hypervisor->letters;
    pthread_mutex_unlock(&hypervisor->lock);
    return letters;
}

static int on_mail(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct hypervisor *hypervisor = userdata;
    eventfd_t ignored;

    eventfd_read(fd, &ignored);
    for (struct letter *letter = take_letters(hypervisor), *after; letter; letter = after) {
        after = letter->next;
        letter_read(hypervisor, letter);
        free(letter);
    }
    return 0;
}

/* libvirt prints every error to stderr unless told otherwise; ours are in the answers. */
static void quiet(void *userdata, virErrorPtr error)
{
}

static int start_threads(struct hypervisor *hypervisor)
{
    int r = pthread_create(&hypervisor->events, NULL, events_main, hypervisor);

    for (unsigned i = 0; i < HYPERVISOR_WORKERS && !r; i++)
        r = pthread_create(&hypervisor->workers[i], NULL, worker_main, hypervisor);
    check(!r); /* nothing can be done without, and nothing was begun */
    return 0;
}

int hypervisor_new(sd_event *event, const char *uri, const char *cgroup_root,
                   const struct hypervisor_callbacks *callbacks,
                   void *userdata, struct hypervisor **ret, struct err *err)
{
    struct hypervisor *hypervisor = calloc(1, sizeof *hypervisor);

    check(hypervisor);
    hypervisor->callbacks = *callbacks;
    hypervisor->userdata = userdata;
    snprintf(hypervisor->uri, sizeof hypervisor->uri, "%s", uri);
    snprintf(hypervisor->cgroup_root, sizeof hypervisor->cgroup_root, "%s", cgroup_root);
    hypervisor->jobs_end = &hypervisor->jobs;
    hypervisor->letters_end = &hypervisor->letters;
    pthread_mutex_init(&hypervisor->lock, NULL);
    pthread_cond_init(&hypervisor->work, NULL);
    virSetErrorFunc(NULL, quiet);
    hypervisor->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (hypervisor->mail_fd < 0 || virInitialize() || virEventRegisterDefaultImpl())
        return err_set(err, -EIO, "libvirt", "libvirt cannot be initialised: %s", virGetLastErrorMessage());
    /* Wakes the event thread up now and then, so that it sees the order to stop. */
    hypervisor->stop_timer = virEventAddTimeout(200, on_stop_timer, NULL, NULL);
    check(sd_event_add_io(event, &hypervisor->mail_source, hypervisor->mail_fd, EPOLLIN, on_mail, hypervisor) >= 0);
    check(sd_event_add_time_relative(event, &hypervisor->reconnect_source, CLOCK_BOOTTIME, RECONNECT_US, 1000,
                                     on_reconnect,
                                     hypervisor) >= 0);
    sd_event_source_set_enabled(hypervisor->reconnect_source, SD_EVENT_OFF);
    start_threads(hypervisor);
    begin_connect(hypervisor);
    *ret = hypervisor;
    return 0;
}

void hypervisor_free(struct hypervisor *hypervisor)
{
    if (!hypervisor)
        return;
    pthread_mutex_lock(&hypervisor->lock);
    hypervisor->stop = true;
    pthread_cond_broadcast(&hypervisor->work);
    pthread_mutex_unlock(&hypervisor->lock);
    for (unsigned i = 0; i < HYPERVISOR_WORKERS; i++)
        pthread_join(hypervisor->workers[i], NULL);
    if (hypervisor->connection) {
        virConnectUnregisterCloseCallback(hypervisor->connection, on_close);
        virConnectClose(hypervisor->connection);
    }
    pthread_join(hypervisor->events, NULL);
    virEventRemoveTimeout(hypervisor->stop_timer);
    for (struct letter *letter = take_letters(hypervisor), *after; letter; letter = after) {
        after = letter->next;
        if (letter->job)
            job_free(letter->job);
        free(letter);
    }
    for (struct hypervisor_job *job = hypervisor->jobs, *after; job; job = after) {
        after = job->next;
        job_free(job);
    }
    sd_event_source_unref(hypervisor->mail_source);
    sd_event_source_unref(hypervisor->reconnect_source);
    close(hypervisor->mail_fd);
    pthread_cond_destroy(&hypervisor->work);
    pthread_mutex_destroy(&hypervisor->lock);
    free(hypervisor);
}

void hypervisor_start(struct hypervisor *hypervisor, const char *name, const char *xml, const struct id *secret_id,
                      const char *secret, hypervisor_answer *answer, void *userdata)
{
    struct hypervisor_job *job = job_new(hypervisor, JOB_START, name, answer, userdata);

    job->xml = strdup(xml);
    check(job->xml);
    if (secret) {
        job->secret = strdup(secret);
        job->secret_id = *secret_id;
        check(job->secret);
    }
    job_queue(hypervisor, job);
}

void hypervisor_resume(struct hypervisor *hypervisor, const char *name, hypervisor_answer *answer, void *userdata)
{
    job_queue(hypervisor, job_new(hypervisor, JOB_RESUME, name, answer, userdata));
}

void hypervisor_shutdown(struct hypervisor *hypervisor, const char *name, hypervisor_answer *answer, void *userdata)
{
    job_queue(hypervisor, job_new(hypervisor, JOB_SHUTDOWN, name, answer, userdata));
}

void hypervisor_kill(struct hypervisor *hypervisor, const char *name, hypervisor_answer *answer, void *userdata)
{
    /* At once, not behind the queue: workers may be waiting for this very QEMU to answer its monitor. */
    cgroup_kill(hypervisor->cgroup_root, name);
    job_queue(hypervisor, job_new(hypervisor, JOB_KILL, name, answer, userdata));
}

void hypervisor_check(struct hypervisor *hypervisor, const char *xml, hypervisor_answer *answer, void *userdata)
{
    struct hypervisor_job *job = job_new(hypervisor, JOB_CHECK, "", answer, userdata);

    job->xml = strdup(xml);
    check(job->xml);
    job_queue(hypervisor, job);
}
