/* libvirt behind one door: starts, resumes, ends and watches the domains of this node.
 * The only file that includes libvirt headers. libvirt blocks (a frozen QEMU does not answer its monitor), so its calls
 * run on a few threads of their own; answers and events come back on the caller's loop, in order, each answer once. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/id.h"

#define HYPERVISOR_DOMAINS_MAX 64u
#define HYPERVISOR_NAME_MAX 64u
#define HYPERVISOR_WORKERS 4u
#define HYPERVISOR_KILL_MS 10000u /* SIGKILLed processes are waited for so long before the answer is "not yet" */

struct hypervisor;

struct hypervisor_domain {
    char name[HYPERVISOR_NAME_MAX];
    struct id group;
    uint64_t incarnation;
    bool paused;   /* by a start that did not go on or by a person; not by an I/O error */
    bool io_error;
    bool frozen;   /* its cgroup is */
};

struct hypervisor_callbacks {
    /* Connected; every domain of ours that is active, each in its own cgroup now. */
    void (*listed)(const struct hypervisor_domain *domains, unsigned count, void *userdata);
    void (*lost)(void *userdata);
    void (*ended)(const char *name, bool by_guest, void *userdata);
    void (*io_error)(const char *name, void *userdata);
};

/* `error` NULL: done. Else one sentence, borrowed. */
typedef void hypervisor_answer(const char *error, void *userdata);

/* Connects in the background and again for ever (every second). `cgroup_root` must be prepared. */
int hypervisor_new(sd_event *event, const char *uri, const char *cgroup_root,
                   const struct hypervisor_callbacks *callbacks,
                   void *userdata, struct hypervisor **ret, struct err *err);
/* Leaves the domains alone. Answers that are outstanding are not given. */
void hypervisor_free(struct hypervisor *hypervisor);

/* Starts a transient domain paused and moves its QEMU to its cgroup. `secret` NULL: no CHAP. All strings are copied. */
void hypervisor_start(struct hypervisor *hypervisor, const char *name, const char *xml, const struct id *secret_id,
                      const char *secret, hypervisor_answer *answer, void *userdata);
void hypervisor_resume(struct hypervisor *hypervisor, const char *name, hypervisor_answer *answer, void *userdata);
/* Asks the guest's system; the domain's end comes as an event. */
void hypervisor_shutdown(struct hypervisor *hypervisor, const char *name, hypervisor_answer *answer, void *userdata);
/* SIGKILL to the cgroup at once, then destroys what libvirt knows; done only when no process is left. */
void hypervisor_kill(struct hypervisor *hypervisor, const char *name, hypervisor_answer *answer, void *userdata);
/* Does libvirt accept this XML (machine, devices, memory)? Nothing is defined or started. */
void hypervisor_check(struct hypervisor *hypervisor, const char *xml, hypervisor_answer *answer, void *userdata);
