/* Back-pressure: who gets no buffer waits in one queue, served in order as buffers come back. */
#include "storaged/iscsi_memory.h"

#include "common/check.h"

static size_t rounded(size_t size)
{
    return (size + 4095) & ~(size_t)4095;
}

/* From the loop, never from within a put: the claims start commands, which put again. */
static void serve(struct iscsi_memory *memory)
{
    memory->serving = true;
    while (!list_is_empty(&memory->claims)) {
        struct iscsi_memory_claim *claim = list_entry(memory->claims.next, struct iscsi_memory_claim, link);
        list_remove(&claim->link);
        claim->waiting = false;
        if (claim->retry(claim))
            continue;
        check(!claim->waiting);
        claim->waiting = true;
        claim->link.next = memory->claims.next; /* first again */
        claim->link.previous = &memory->claims;
        memory->claims.next->previous = &claim->link;
        memory->claims.next = &claim->link;
        break;
    }
    memory->serving = false;
}

static void post(struct iscsi_memory *memory)
{
    if (memory->mail_posted || list_is_empty(&memory->claims))
        return;
    memory->mail_posted = true;
    ring_defer(memory->ring, &memory->mail);
}

static void run_mail(struct ring_mail *mail)
{
    struct iscsi_memory *memory = list_entry(mail, struct iscsi_memory, mail);
    memory->mail_posted = false;
    serve(memory);
}

static void arena_has_memory(struct iobuf_waiter *waiter)
{
    struct iscsi_memory *memory = list_entry(waiter, struct iscsi_memory, waiter);
    memory->waiter_started = false;
    post(memory);
}

void iscsi_memory_init(struct iscsi_memory *memory, struct ring *ring, struct iobuf_arena *arena, size_t limit)
{
    *memory = (struct iscsi_memory){.ring = ring, .arena = arena, .limit = limit};
    memory->waiter.retry = arena_has_memory;
    memory->mail.run = run_mail;
    list_init(&memory->claims);
}

void iscsi_memory_close(struct iscsi_memory *memory)
{
    check(memory->used == 0 && list_is_empty(&memory->claims) && !memory->mail_posted);
    if (memory->waiter_started)
        iobuf_wait_cancel(memory->arena, &memory->waiter);
}

void *iscsi_memory_get(struct iscsi_memory *memory, size_t size)
{
    if (memory->used + rounded(size) > memory->limit || (!memory->serving && !list_is_empty(&memory->claims)))
        return NULL;
    void *data = iobuf_get(memory->arena, size);
    if (data) {
        memory->used += rounded(size);
    } else if (!memory->waiter_started) {
        memory->waiter_started = true;
        iobuf_wait(memory->arena, &memory->waiter);
    }
    return data;
}

void iscsi_memory_put(struct iscsi_memory *memory, void *data, size_t size)
{
    if (!data)
        return;
    check(memory->used >= rounded(size));
    memory->used -= rounded(size);
    iobuf_put(memory->arena, data);
    post(memory);
}

void iscsi_memory_wait(struct iscsi_memory *memory, struct iscsi_memory_claim *claim)
{
    check(!claim->waiting);
    claim->waiting = true;
    memory->waits++;
    list_append(&memory->claims, &claim->link);
}

void iscsi_memory_cancel(struct iscsi_memory *memory, struct iscsi_memory_claim *claim)
{
    if (!claim->waiting)
        return;
    claim->waiting = false;
    list_remove(&claim->link);
    post(memory); /* the next one may want less */
}
