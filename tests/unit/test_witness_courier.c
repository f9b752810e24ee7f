/* The ways out of alerts: a queue that is full drops and says so, a hook that hangs goes with all its children. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "witness/courier.h"
#include "witness/exec_hook.h"

struct slow {
    sem_t begun, go_on;
    unsigned delivered;
    char last[16];
};

static int deliver_slowly(const struct alert *alert, const atomic_bool *stopping, void *userdata, struct err *err)
{
    struct slow *slow = userdata;
    sem_post(&slow->begun);
    sem_wait(&slow->go_on);
    slow->delivered++;
    memcpy(slow->last, alert->kind, sizeof slow->last);
    return 0;
}

static struct alert numbered(unsigned number)
{
    struct alert alert = {.raised = true};
    snprintf(alert.kind, sizeof alert.kind, "%u", number);
    return alert;
}

static void a_full_queue_drops_the_latest(void **state)
{
    struct slow slow = {0};
    struct counters counters = {0};
    struct courier *courier = NULL;
    struct alert alert = numbered(0);
    sem_init(&slow.begun, 0, 0);
    sem_init(&slow.go_on, 0, 0);
    assert_int_equal(courier_new("test", deliver_slowly, &slow, &counters, &courier, NULL), 0);
    courier_send(courier, &alert);
    sem_wait(&slow.begun); /* it is out of the queue */
    for (unsigned i = 1; i <= COURIER_QUEUE_MAX + 5; i++) {
        alert = numbered(i);
        courier_send(courier, &alert);
    }
    assert_int_equal(count_get(&counters, COUNT_ALERTS_DROPPED), 5);
    for (unsigned i = 0; i < COURIER_QUEUE_MAX; i++) { /* in their order */
        sem_post(&slow.go_on);
        sem_wait(&slow.begun);
    }
    sem_post(&slow.go_on);
    courier_free(courier);
    assert_int_equal(slow.delivered, COURIER_QUEUE_MAX + 1);
    assert_int_equal(atoi(slow.last), COURIER_QUEUE_MAX);
    assert_int_equal(count_get(&counters, COUNT_DELIVERIES), COURIER_QUEUE_MAX + 1);
}

static int refuse(const struct alert *alert, const atomic_bool *stopping, void *userdata, struct err *err)
{
    sem_post(userdata);
    return err_set(err, -EIO, "io", "refused");
}

static void what_waits_for_its_next_try_does_not_keep_the_end(void **state)
{
    sem_t begun;
    struct counters counters = {0};
    struct courier *courier = NULL;
    struct alert alert = numbered(0);
    sem_init(&begun, 0, 0);
    assert_int_equal(courier_new("test", refuse, &begun, &counters, &courier, NULL), 0);
    courier_send(courier, &alert);
    for (unsigned tries = 0; tries < 2; tries++)
        sem_wait(&begun);
    courier_free(courier);
    assert_true(count_get(&counters, COUNT_DELIVERIES_FAILED) >= 2);
}

struct hanging {
    char pipe[64];
    atomic_bool stopping;
    pid_t grandchild;
};

/* Whoever opens the pipe to read learns the number of the process that the hook left behind. */
static void *stop_when_it_runs(void *userdata)
{
    struct hanging *hanging = userdata;
    int number = 0;
    FILE *file = fopen(hanging->pipe, "r");
    if (file != NULL && fscanf(file, "%d", &number) == 1)
        hanging->grandchild = number;
    if (file != NULL)
        fclose(file);
    hanging->stopping = true;
    return NULL;
}

static void make_script(const char *folder, const char *pipe, struct exec_hook *ret)
{
    snprintf(ret->path, sizeof ret->path, "%s/hook", folder);
    FILE *file = fopen(ret->path, "w");
    fprintf(file, "#!/bin/sh\nsleep 1000 &\necho $! > %s\nwait\n", pipe);
    fclose(file);
    assert_int_equal(chmod(ret->path, 0700), 0);
}

static void a_hook_that_hangs_goes_with_its_children(void **state)
{
    char folder[] = "/tmp/hci-hook-XXXXXX";
    struct hanging hanging = {0};
    struct exec_hook hook;
    struct err err = {0};
    struct alert alert = numbered(0);
    pthread_t thread;
    assert_non_null(mkdtemp(folder));
    snprintf(hanging.pipe, sizeof hanging.pipe, "%s/pipe", folder);
    assert_int_equal(mkfifo(hanging.pipe, 0600), 0);
    make_script(folder, hanging.pipe, &hook);
    assert_int_equal(pthread_create(&thread, NULL, stop_when_it_runs, &hanging), 0);
    assert_int_equal(exec_hook_deliver(&alert, &hanging.stopping, &hook, &err), -ETIMEDOUT);
    pthread_join(thread, NULL);
    assert_true(hanging.grandchild > 0);
    /* Killed, and taken in by init, or not yet taken in: in no case still asleep. */
    char path[64], status[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", hanging.grandchild);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        size_t size = fread(status, 1, sizeof status - 1, file);
        status[size] = '\0';
        fclose(file);
    }
    assert_null(strstr(status, ") S "));
    unlink(hook.path);
    unlink(hanging.pipe);
    rmdir(folder);
}

static void a_hook_that_cannot_be_run_is_said(void **state)
{
    atomic_bool stopping = false;
    struct exec_hook hook = {.path = "/nonexistent/hook"};
    struct err err = {0};
    struct alert alert = numbered(0);
    assert_int_equal(exec_hook_deliver(&alert, &stopping, &hook, &err), -ENOENT);
    assert_non_null(strstr(err.text, "'/nonexistent/hook': cannot be run"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_queue_drops_the_latest),
        cmocka_unit_test(what_waits_for_its_next_try_does_not_keep_the_end),
        cmocka_unit_test(a_hook_that_hangs_goes_with_its_children),
        cmocka_unit_test(a_hook_that_cannot_be_run_is_said),
    };
    return cmocka_run_group_tests_name("witness_courier", tests, NULL, NULL);
}
