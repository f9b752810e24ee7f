/* Back-pressure: who gets no buffer waits in one queue, served in order as buffers come back. */
#include "storaged/iscsi/iscsi_memory.h"

#include "common/check.h"

static size_t rounded(size_t size)
{
    return (size + 4095) & ~(size_t)4095;
}

static bool has_share(const struct iscsi_memory *memory, const struct iscsi_memory_account *account, size_t size)
{
    unsigned holders = memory->holders + (account->used == 0);
    return account->used > 0 && account->used + size > memory->limit / (holders + 1);
}

static void put_back(struct iscsi_memory_claim *claim, struct list *before)
{
    claim->waiting = true;
    claim->account->waiting++;
    list_append(before, &claim->link); /* at the end of the list that begins behind its place */
}

static void take_out(struct iscsi_memory_claim *claim)
{
    list_remove(&claim->link);
    claim->waiting = false;
    claim->account->waiting--;
}

/* From the loop, never from within a put: the claims start commands, which put again; they take no other claim back.
 * Who has its share is passed by; where memory itself is lacking the queue stands. */
static void serve(struct iscsi_memory *memory)
{
    memory->serving = true;
    memory->lacking = false;
    memory->passes++;
    for (struct list *item = memory->claims.next, *after = item->next; item != &memory->claims && !memory->lacking;
         item = after, after = item->next) {
        struct iscsi_memory_claim *claim = list_entry(item, struct iscsi_memory_claim, link);
        struct iscsi_memory_account *account = claim->account;
        if (account->passed_by == memory->passes)
            continue;
        take_out(claim);
        if (claim->retry(claim))
            continue;
        check(!claim->waiting);
        put_back(claim, after);
        account->passed_by = memory->passes;
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

void *iscsi_memory_get(struct iscsi_memory *memory, struct iscsi_memory_account *account, size_t size, bool urgent)
{
    if (!memory->serving && ((memory->lacking && !list_is_empty(&memory->claims)) || account->waiting))
        return NULL;
    if (!urgent && has_share(memory, account, rounded(size)))
        return NULL;
    void *data = memory->used + rounded(size) <= memory->limit ? iobuf_get(memory->arena, size) : NULL;
    if (data) {
        memory->holders += account->used == 0;
        account->used += rounded(size);
        memory->used += rounded(size);
        return data;
    }
    memory->lacking = true;
    if (memory->used + rounded(size) <= memory->limit && !memory->waiter_started) {
        memory->waiter_started = true;
        iobuf_wait(memory->arena, &memory->waiter);
    }
    return NULL;
}

void iscsi_memory_put(struct iscsi_memory *memory, struct iscsi_memory_account *account, void *data, size_t size)
{
    if (!data)
        return;
    check(memory->used >= rounded(size) && account->used >= rounded(size));
    memory->used -= rounded(size);
    account->used -= rounded(size);
    memory->holders -= account->used == 0;
    iobuf_put(memory->arena, data);
    post(memory);
}

void iscsi_memory_wait(struct iscsi_memory *memory, struct iscsi_memory_account *account, struct iscsi_memory_claim *claim)
{
    check(!claim->waiting);
    claim->account = account;
    memory->waits++;
    put_back(claim, &memory->claims);
}

void iscsi_memory_cancel(struct iscsi_memory *memory, struct iscsi_memory_claim *claim)
{
    if (!claim->waiting)
        return;
    take_out(claim);
    post(memory); /* the next one may want less */
}
