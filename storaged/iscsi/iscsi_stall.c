/* An initiator that is stopped in the middle of a transfer (a paused guest, a dead host whose TCP lives on) keeps the
 * buffers of that transfer. While others wait for buffers, its connection is closed; it comes back and asks again. */
#include "storaged/iscsi/iscsi_stall.h"

#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

/* Buffers that only the initiator can set free: it has to send data, or to take some. */
static bool keeps_memory(const struct iscsi_session *session)
{
    list_for_each(item, &session->active_tasks) {
        const struct iscsi_task *task = list_entry(item, struct iscsi_task, link);
        if (task->memory && (task->state == ISCSI_TASK_RECEIVING || task->state == ISCSI_TASK_SENDING))
            return true;
    }
    return false;
}

static void look(struct ring_timer *timer)
{
    struct iscsi_target *target = list_entry(timer, struct iscsi_target, stall_timer);
    uint64_t now_ms = ring_now_ms(target->ring);
    if (list_is_empty(&target->memory.claims))
        return;
    list_for_each_safe(item, after, &target->sessions) {
        struct iscsi_session *session = list_entry(item, struct iscsi_session, link);
        struct iscsi_connection *connection = session->connection;
        if (connection && connection->moved_ms + target->options.stall_ms <= now_ms && keeps_memory(session))
            iscsi_connection_close(connection, "it stands still while others wait for the memory it keeps");
    }
    ring_timer_start(target->ring, timer, target->options.stall_ms / 2);
}

void iscsi_stall_watch(struct iscsi_target *target)
{
    if (target->stall_timer.heap_index)
        return;
    target->stall_timer.expired = look;
    ring_timer_start(target->ring, &target->stall_timer, target->options.stall_ms / 2);
}

void iscsi_stall_stop(struct iscsi_target *target)
{
    ring_timer_stop(&target->stall_timer);
}
