/* What hypervisor.c (threads and queues) and hypervisor_jobs.c (calls to libvirt) share. */
#pragma once

#include <libvirt/libvirt.h>

#include "vmha/hypervisor.h"

enum job_kind { JOB_CONNECT, JOB_START, JOB_RESUME, JOB_SHUTDOWN, JOB_KILL, JOB_CHECK, JOB_PROBE, JOB_WARM };

/* Made by the loop, carried out by a worker, answered and freed by the loop. */
struct hypervisor_job {
    struct hypervisor_job *next;
    enum job_kind kind;
    char name[HYPERVISOR_NAME_MAX];
    char *xml;
    char *secret;              /* wiped when freed */
    struct id secret_id;
    bool by_guest;             /* JOB_PROBE */
    hypervisor_answer *answer;
    void *userdata;
    /* Filled by the worker. */
    virConnectPtr connection;  /* borrowed by reference for the job; JOB_CONNECT: the new one, owned */
    bool failed;               /* JOB_PROBE: the domain is active, or nobody knows */
    char error[512];
    struct hypervisor_domain *domains; /* JOB_CONNECT; `group` is filled by the loop from `marks` */
    char **marks;
    unsigned domain_count;
    /* JOB_CONNECT */
    const char *uri;
    const char *cgroup_root;
    virConnectDomainEventGenericCallback on_lifecycle;
    virConnectCloseFunc on_close;
    void *event_userdata;
};

void hypervisor_job_run(struct hypervisor_job *job);
