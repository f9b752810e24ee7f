/* Two storage engines in one process, joined over loopback, with a witness that is a table and leases that the test
 * writes: for tests of groups. */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/files.h"
#include "common/log.h"
#include "common/pki.h"
#include "common/seal.h"
#include "quorum/page.h"
#include "storaged/engine/engine_private.h"

#define LAB_GROUPS 8
#define LAB_POOL_BYTES ((uint64_t)256 << 20)
#define LAB_JOURNAL_BYTES ((uint64_t)16 << 20)

struct lab;

struct lab_node {
    struct lab *lab;
    unsigned index;
    struct site site;
    struct tls_identity *identity;
    char folder[104], disk[160];
    struct engine *engine;
    _Atomic bool alive;
    pthread_t thread;
    struct quorum_page *page;
    struct lun_nexus nexus; /* on the data thread */
    bool nexus_open, nexus_closing;
    unsigned outstanding, closes;
    struct ring_mail closing;
    _Atomic uint64_t resync_copied;
    _Atomic unsigned resyncs_done;
    _Atomic unsigned metas;
};

struct lab {
    char folder[64];
    uint16_t port;
    struct lab_node nodes[2];
    pthread_mutex_t lock; /* guards the table */
    struct { struct id group; uint64_t epoch; uint8_t members; bool used; } records[LAB_GROUPS];
    unsigned asked, granted;
    _Atomic bool witness_silent;
};

/* ---- the witness: R4, where a lease is fresh as long as its node lives -------------------------------------------------- */

static void lab_decide(struct lab *lab, const struct engine_cas *cas, uint8_t asker, struct engine_input *ret)
{
    unsigned slot = 0;
    while (slot < LAB_GROUPS && lab->records[slot].used && !id_equal(&lab->records[slot].group, &cas->group))
        slot++;
    assert_true(slot < LAB_GROUPS);
    lab->records[slot].used = true;
    lab->records[slot].group = cas->group;
    bool matches = lab->records[slot].epoch == cas->to.epoch && lab->records[slot].members == cas->to.members;
    for (unsigned i = 0; i < cas->from_count; i++)
        matches |= lab->records[slot].epoch == cas->from[i].epoch && lab->records[slot].members == cas->from[i].members;
    lab->asked++;
    /* A node whose lease is fresh is excluded only by the group's primary. */
    if (matches && cas->to.members == asker && !cas->was_primary && lab->nodes[asker == 1].alive) {
        ret->verdict = AUTHORITY_WAIT;
        ret->wait_ms = 100;
        ret->epoch = lab->records[slot].epoch;
        ret->members = lab->records[slot].members;
        return;
    }
    if (matches) {
        lab->granted++;
        lab->records[slot].epoch = cas->to.epoch;
        lab->records[slot].members = cas->to.members;
    }
    ret->epoch = lab->records[slot].epoch;
    ret->members = lab->records[slot].members;
    ret->verdict = matches ? AUTHORITY_OK : !(ret->members & asker) ? AUTHORITY_STALE : AUTHORITY_ADOPT;
}

static void lab_cas(void *userdata, const struct engine_cas *cas)
{
    struct lab_node *node = userdata;
    struct engine_input input = {.kind = ENGINE_VERDICT, .group = cas->group, .verdict = AUTHORITY_REFUSED};
    if (!node->lab->witness_silent) {
        if (pthread_mutex_lock(&node->lab->lock) == EOWNERDEAD) /* a node was killed while it asked */
            pthread_mutex_consistent(&node->lab->lock);
        lab_decide(node->lab, cas, (uint8_t)(1u << node->index), &input);
        pthread_mutex_unlock(&node->lab->lock);
    }
    engine_post(node->engine, &input);
}

static void lab_ask_peer_lease(void *userdata, const struct id *group)
{
    struct lab_node *node = userdata;
    struct engine_input input = {.kind = ENGINE_PEER_LEASE, .group = *group, .wait_ms = 0};
    engine_post(node->engine, &input);
}

static void lab_claim(void *userdata, const struct engine_claim *claim) {}
static void lab_records_applied(void *userdata, uint64_t counter) {}
static void lab_group_changed(void *userdata, const struct engine_group_state *state) {}
static void lab_link_changed(void *userdata, bool connected) {}

static void lab_meta_changed(void *userdata, const struct id *group, const char *name, uint64_t version)
{
    struct lab_node *node = userdata;
    node->metas++;
}

static void lab_resync_changed(void *userdata, const struct engine_resync_state *state)
{
    struct lab_node *node = userdata;
    if (state->state != ENGINE_RESYNC_DONE || state->reconcile)
        return;
    node->resync_copied = state->bytes_copied;
    node->resyncs_done++;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------------------ */

static void lab_write(const char *path, const char *text, mode_t mode)
{
    struct err err;
    assert_int_equal(files_replace(path, text, strlen(text), mode, &err), 0);
}

static void lab_issue(struct lab_node *node, const char *ca_key, const char *ca)
{
    struct err err;
    char *key, *public, *certificate, path[256];
    const struct site_node *self = site_self(&node->site);
    assert_int_equal(pki_make_key(&key, &err), 0);
    assert_int_equal(pki_public_key(key, &public, &err), 0);
    assert_int_equal(pki_issue(ca_key, ca, public, &self->id, self->name, &certificate, &err), 0);
    char key_path[256], ca_path[256];
    snprintf(path, sizeof path, "%s/node.crt", node->folder);
    snprintf(key_path, sizeof key_path, "%s/node.key", node->folder);
    snprintf(ca_path, sizeof ca_path, "%s/ca.crt", node->folder);
    lab_write(path, certificate, 0644);
    lab_write(key_path, key, 0600);
    lab_write(ca_path, ca, 0644);
    assert_int_equal(tls_identity_load(ca_path, path, key_path, &node->identity, &err), 0);
    pki_free_secret(key);
    free(public);
    free(certificate);
}

static void lab_make_site(struct lab *lab, struct lab_node *node, const struct id ids[2])
{
    struct site *site = &node->site;
    snprintf(site->name, sizeof site->name, "lab");
    memset(&site->id, 7, sizeof site->id);
    site->self = node->index;
    site->mirror_port = lab->port;
    for (unsigned i = 0; i < 2; i++) {
        snprintf(site->nodes[i].name, sizeof site->nodes[i].name, "%c", 'a' + (int)i);
        site->nodes[i].id = ids[i];
        site->nodes[i].link_count = 1;
        snprintf(site->nodes[i].links[0], sizeof site->nodes[i].links[0], "127.0.0.%u", i + 1);
    }
    snprintf(site->run_folder, sizeof site->run_folder, "%s", node->folder);
    snprintf(site->state_folder, sizeof site->state_folder, "%s", node->folder);
}

static void lab_make_page(struct lab_node *node)
{
    char path[256];
    void *page;
    snprintf(path, sizeof path, "%s/quorum.page", node->folder);
    assert_int_equal(page_make(path, &page, NULL), 0);
    node->page = page;
    atomic_store(&node->page->boot, 1);
    atomic_store(&node->page->generation, 1);
    atomic_store(&node->page->witness_until_ns, UINT64_MAX);
    atomic_store(&node->page->magic, PAGE_MAGIC);
}

static void *lab_thread(void *argument)
{
    struct lab_node *node = argument;
    assert_int_equal(engine_run(node->engine), 0);
    return NULL;
}

static void lab_start(struct lab_node *node)
{
    struct err err = {0};
    struct engine_options options = {
        .site = &node->site,
        .identity = node->identity,
        .no_portals = true,
        .arena_bytes = 8 << 20,
        .port = {node, lab_cas, lab_ask_peer_lease, lab_claim, lab_records_applied, lab_group_changed, lab_meta_changed, lab_link_changed,
                 lab_resync_changed, NULL},
    };
    if (engine_new(&options, &node->engine, &err) < 0)
        fail_msg("%s", err.text);
    const char *paths[] = {node->disk};
    if (engine_open_pool(node->engine, paths, 1, &err) < 0)
        fail_msg("%s", err.text);
    node->alive = true;
    assert_int_equal(pthread_create(&node->thread, NULL, lab_thread, node), 0);
}

static void lab_close_nexus(struct lab_node *node);

static void lab_stop(struct lab_node *node)
{
    lab_close_nexus(node);
    engine_stop(node->engine);
    pthread_join(node->thread, NULL);
    node->alive = false;
    assert_true(node->engine->stopped_cleanly);
    engine_free(node->engine);
    node->engine = NULL;
}

static struct lab *lab_new(uint16_t port)
{
    /* Shared with nodes that run in processes of their own. */
    struct lab *lab = mmap(NULL, sizeof *lab, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(lab != MAP_FAILED);
    struct err err;
    struct id ids[2] = {{{1}}, {{2}}};
    char *ca_key, *ca;
    assert_int_equal(seal_init(), 0);
    snprintf(lab->folder, sizeof lab->folder, "/dev/shm/hci-pair-XXXXXX");
    assert_non_null(mkdtemp(lab->folder));
    lab->port = port;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&lab->lock, &attributes);
    assert_int_equal(pki_make_key(&ca_key, &err), 0);
    assert_int_equal(pki_make_ca(ca_key, "lab", &ca, &err), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct lab_node *node = &lab->nodes[i];
        node->lab = lab;
        node->index = i;
        snprintf(node->folder, sizeof node->folder, "%.60s/%c", lab->folder, 'a' + (int)i);
        snprintf(node->disk, sizeof node->disk, "%.60s/%c/disk", lab->folder, 'a' + (int)i);
        assert_int_equal(mkdir(node->folder, 0700), 0);
        lab_make_site(lab, node, ids);
        lab_issue(node, ca_key, ca);
        lab_make_page(node);
        const char *paths[] = {node->disk};
        struct pool_create_options options = {
            .paths = paths, .path_count = 1, .file_bytes = LAB_POOL_BYTES, .node = ids[i], .journal_bytes = LAB_JOURNAL_BYTES};
        struct id pool;
        if (pool_create(&options, &pool, &err) < 0)
            fail_msg("%s", err.text);
    }
    pki_free_secret(ca_key);
    free(ca);
    return lab;
}

static void lab_free(struct lab *lab)
{
    char command[160];
    for (unsigned i = 0; i < 2; i++) {
        if (lab->nodes[i].engine)
            lab_stop(&lab->nodes[i]);
        page_close(lab->nodes[i].page);
        tls_identity_free(lab->nodes[i].identity);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", lab->folder);
    assert_int_equal(system(command), 0);
    munmap(lab, sizeof *lab);
}

/* ---- doing things on a data thread --------------------------------------------------------------------------------------------- */

struct lab_job {
    struct ring_mail mail;
    struct lab_node *node;
    void (*run)(struct lab_job *job);
    void *argument;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over;
};

static void lab_job_over(struct lab_job *job)
{
    pthread_mutex_lock(&job->lock);
    job->over = true;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static void lab_job_mailed(struct ring_mail *mail)
{
    struct lab_job *job = list_entry(mail, struct lab_job, mail);
    job->run(job);
}

static bool lab_do(struct lab_node *node, void (*run)(struct lab_job *job), void *argument, unsigned timeout_s)
{
    struct lab_job job = {.mail.run = lab_job_mailed, .node = node, .run = run, .argument = argument};
    pthread_mutex_init(&job.lock, NULL);
    pthread_cond_init(&job.changed, NULL);
    ring_post(engine_ring(node->engine), &job.mail);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_s;
    pthread_mutex_lock(&job.lock);
    while (!job.over)
        if (pthread_cond_timedwait(&job.changed, &job.lock, &until) == ETIMEDOUT)
            break;
    bool over = job.over;
    pthread_mutex_unlock(&job.lock);
    if (!over)
        fail_msg("a job on node %c did not end within %u s", 'a' + (int)node->index, timeout_s); /* its memory is this stack's */
    return over;
}

/* ---- an initiator ------------------------------------------------------------------------------------------------------------------ */

static void lab_nexus_finish(struct lab_node *node)
{
    if (!node->nexus_closing || !node->nexus.dropped || node->outstanding)
        return;
    lun_nexus_close(&node->nexus);
    node->nexus_open = node->nexus_closing = false;
}

static void lab_nexus_drop(struct ring_mail *mail)
{
    struct lab_node *node = list_entry(mail, struct lab_node, closing);
    lun_nexus_drop(&node->nexus);
    lab_nexus_finish(node);
}

static void lab_nexus_close(struct lun_nexus *nexus, const char *reason)
{
    struct lab_node *node = list_entry(nexus, struct lab_node, nexus);
    if (node->nexus_closing)
        return;
    node->nexus_closing = true;
    node->closes++;
    node->closing.run = lab_nexus_drop;
    ring_defer(engine_ring(node->engine), &node->closing);
}

static void lab_close_job(struct lab_job *job)
{
    if (job->node->nexus_open)
        lab_nexus_close(&job->node->nexus, "the test ends it");
    lab_job_over(job);
}

static void lab_close_nexus(struct lab_node *node)
{
    lab_do(node, lab_close_job, NULL, 5);
}

struct lab_io {
    struct lun_request request;
    struct lab_job *job;
    const char *volume;
    int status; /* enum lun_status, or negative */
};

static void lab_io_done(struct lun_request *request)
{
    struct lab_io *io = list_entry(request, struct lab_io, request);
    struct lab_node *node = io->job->node;
    io->status = request->status;
    node->outstanding--;
    if (io->status == LUN_DROPPED && !node->nexus_closing)
        lab_nexus_close(&node->nexus, "dropped");
    lab_nexus_finish(node);
    lab_job_over(io->job);
}

static void lab_io_run(struct lab_job *job)
{
    struct lab_io *io = job->argument;
    struct lab_node *node = job->node;
    struct lun *lun = lun_table_find(engine_luns(node->engine), io->volume);
    io->job = job;
    io->status = -ENOENT;
    if (!lun || node->nexus_closing) {
        lab_job_over(job);
        return;
    }
    if (!node->nexus_open) {
        snprintf(node->nexus.initiator, sizeof node->nexus.initiator, "iqn.test:%c", 'a' + (int)node->index);
        node->nexus.close = lab_nexus_close;
        lun_nexus_open(&node->nexus, lun);
        node->nexus_open = true;
    }
    io->request.done = lab_io_done;
    io->request.nexus = &node->nexus;
    node->outstanding++;
    lun_submit(lun, &io->request);
}

/* Waits; the request's status, or -ENOENT while the volume is not exported. */
static int lab_io(struct lab_node *node, const char *volume, enum lun_opcode opcode, uint64_t sector, uint32_t sectors, void *data)
{
    struct lab_io io = {.volume = volume, .request = {.opcode = opcode, .sector = sector, .sectors = sectors, .data = data}};
    lab_do(node, lab_io_run, &io, 40);
    return io.status;
}

/* As an initiator does: again until it is answered. */
static inline int lab_io_again(struct lab_node *node, const char *volume, enum lun_opcode opcode, uint64_t sector, uint32_t sectors, void *data)
{
    for (unsigned attempt = 0; attempt < 400; attempt++) {
        int status = lab_io(node, volume, opcode, sector, sectors, data);
        if (status != LUN_DROPPED && status != -ENOENT)
            return status;
        usleep(20000);
    }
    return -ETIMEDOUT;
}

/* ---- both copies, as they lie in the pools -------------------------------------------------------------------------------------------- */

struct lab_raw {
    struct pool_io io;
    struct lab_job *job;
    struct id volume;
    uint64_t block;
    uint32_t count;
    uint8_t *data;
    int result;
};

static void lab_raw_done(struct pool_io *io, int result)
{
    struct lab_raw *raw = list_entry(io, struct lab_raw, io);
    raw->result = result;
    lab_job_over(raw->job);
}

static void lab_raw_run(struct lab_job *job)
{
    struct lab_raw *raw = job->argument;
    struct pool *pool = job->node->engine->pool;
    raw->job = job;
    raw->io = (struct pool_io){
        .done = lab_raw_done, .volume = pool_volume_find(pool, &raw->volume), .block = raw->block, .count = raw->count, .data = raw->data};
    pool_read(pool, &raw->io);
}

static void lab_raw_read(struct lab_node *node, const struct id *volume, uint64_t block, uint32_t count, uint8_t *data)
{
    struct lab_raw raw = {.volume = *volume, .block = block, .count = count, .data = data};
    lab_do(node, lab_raw_run, &raw, 10);
    assert_int_equal(raw.result, 0);
}

static inline void lab_assert_equal_copies(struct lab *lab, const struct id *volume, uint64_t blocks)
{
    uint8_t *left = aligned_alloc(4096, 64 * 4096), *right = aligned_alloc(4096, 64 * 4096);
    for (uint64_t block = 0; block < blocks; block += 64) {
        uint32_t count = blocks - block < 64 ? (uint32_t)(blocks - block) : 64;
        lab_raw_read(&lab->nodes[0], volume, block, count, left);
        lab_raw_read(&lab->nodes[1], volume, block, count, right);
        for (uint32_t i = 0; i < count; i++)
            if (memcmp(left + i * 4096, right + i * 4096, 4096) != 0)
                fail_msg("block %llu differs", (unsigned long long)(block + i));
    }
    free(left);
    free(right);
}

/* ---- calls ----------------------------------------------------------------------------------------------------------------------------- */

struct lab_call {
    struct engine_call call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over;
};

static void lab_call_done(struct engine_call *call)
{
    struct lab_call *waiting = call->userdata;
    pthread_mutex_lock(&waiting->lock);
    waiting->over = true;
    pthread_cond_signal(&waiting->changed);
    pthread_mutex_unlock(&waiting->lock);
}

static int lab_call(struct lab_node *node, struct lab_call *waiting)
{
    pthread_mutex_init(&waiting->lock, NULL);
    pthread_cond_init(&waiting->changed, NULL);
    waiting->over = false;
    waiting->call.done = lab_call_done;
    waiting->call.userdata = waiting;
    engine_submit(node->engine, &waiting->call);
    pthread_mutex_lock(&waiting->lock);
    while (!waiting->over)
        pthread_cond_wait(&waiting->changed, &waiting->lock);
    pthread_mutex_unlock(&waiting->lock);
    return waiting->call.result;
}

static struct engine_group_info lab_group(struct lab_node *node, const char *name)
{
    struct engine_group_info info = {0};
    struct lab_call waiting = {.call = {.kind = ENGINE_SNAPSHOT, .snapshot = calloc(1, sizeof(struct engine_snapshot))}};
    assert_int_equal(lab_call(node, &waiting), 0);
    for (unsigned i = 0; i < waiting.call.snapshot->group_count; i++)
        if (strcmp(waiting.call.snapshot->groups[i].state.name, name) == 0)
            info = waiting.call.snapshot->groups[i];
    free(waiting.call.snapshot);
    return info;
}

static inline void lab_wait_role(struct lab_node *node, const char *name, enum authority_role role)
{
    struct engine_group_info info;
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        info = lab_group(node, name);
        bool is_authority = role == AUTHORITY_PRIMARY || role == AUTHORITY_SOLE;
        if (info.state.role == role && (!is_authority || info.state.serving))
            return;
        usleep(10000);
    }
    fail_msg("node %c: group %s is %s (%s), not %s", 'a' + (int)node->index, name, fsm_name(&authority_roles, info.state.role), info.reason,
             fsm_name(&authority_roles, role));
}

static void lab_hear(struct lab_node *node, bool up)
{
    struct engine_input input = {.kind = ENGINE_PEER, .up = up};
    engine_post(node->engine, &input);
}

/* The link and the heartbeats between the nodes. */
static inline void lab_cut(struct lab *lab, bool cut)
{
    lab_hear(&lab->nodes[0], !cut);
    lab_hear(&lab->nodes[1], !cut);
}

static inline struct id lab_create(struct lab *lab, unsigned node, const char *name, uint64_t size_bytes)
{
    for (unsigned attempt = 0; attempt < 500; attempt++) {
        struct lab_call waiting = {.call = {.kind = ENGINE_VOLUME_CREATE, .size_bytes = size_bytes}};
        snprintf(waiting.call.name, sizeof waiting.call.name, "%s", name);
        int error = lab_call(&lab->nodes[node], &waiting);
        if (error == 0)
            return waiting.call.volume;
        if (error != -ENOTCONN)
            fail_msg("%s", waiting.call.err.text);
        usleep(10000);
    }
    fail_msg("the nodes do not connect");
    return (struct id){0};
}
