/* The session's task table: places, states, memory, aborting. */
#include "storaged/iscsi/iscsi_task.h"

#include "common/check.h"
#include "common/fsm.h"
#include "storaged/iscsi/iscsi_abort.h"
#include "storaged/iscsi/iscsi_session.h"
#include "storaged/iscsi/iscsi_target_internal.h"

static const struct fsm_state task_states[ISCSI_TASK_STATE_COUNT] = {
    [ISCSI_TASK_FREE] = {"free", FSM_BIT(ISCSI_TASK_RECEIVING), "the place waits for a request"},
    [ISCSI_TASK_RECEIVING] = {"receiving",
                              FSM_BIT(ISCSI_TASK_WAITING) | FSM_BIT(ISCSI_TASK_EXECUTING) | FSM_BIT(ISCSI_TASK_DRAINING) |
                                  FSM_BIT(ISCSI_TASK_SENDING) | FSM_BIT(ISCSI_TASK_FREE),
                              "the request or its data is coming in"},
    [ISCSI_TASK_WAITING] = {"waiting", FSM_BIT(ISCSI_TASK_RECEIVING) | FSM_BIT(ISCSI_TASK_FREE), "it waits for a buffer"},
    [ISCSI_TASK_EXECUTING] = {"executing", FSM_BIT(ISCSI_TASK_SENDING) | FSM_BIT(ISCSI_TASK_FREE),
                              "the group has it and will give it back"},
    [ISCSI_TASK_DRAINING] = {"draining", FSM_BIT(ISCSI_TASK_SENDING) | FSM_BIT(ISCSI_TASK_FREE),
                             "a task management request waits for the tasks it aborted"},
    [ISCSI_TASK_SENDING] = {"sending", FSM_BIT(ISCSI_TASK_FREE), "its answer is on the way"},
};

static const struct fsm_table task_table = {"iscsi task", ISCSI_TASK_STATE_COUNT, task_states};

void iscsi_task_move(struct iscsi_task *task, enum iscsi_task_state state)
{
    fsm_move(&task_table, &task->state, state);
}

static struct list *bucket_of(struct iscsi_session *session, uint32_t task_tag)
{
    return &session->tags[(task_tag ^ task_tag >> 16) % ISCSI_TAG_BUCKETS];
}

struct iscsi_task *iscsi_task_new(struct iscsi_session *session, const struct iscsi_pdu *pdu, bool counted)
{
    if (list_is_empty(&session->free_tasks))
        return NULL;
    struct iscsi_task *task = list_entry(session->free_tasks.next, struct iscsi_task, link);
    list_remove(&task->link);
    list_append(&session->active_tasks, &task->link);
    check(task->state == ISCSI_TASK_FREE && !task->memory && !task->send.queued);
    iscsi_task_move(task, ISCSI_TASK_RECEIVING);
    task->opcode = pdu->opcode;
    task->task_tag = pdu->task_tag;
    list_append(bucket_of(session, pdu->task_tag), &task->tag_link);
    task->counted = counted;
    if (counted)
        session->window_used++;
    task->aborted = task->planned = task->planned_end = task->unsolicited = false;
    task->aborter = NULL;
    task->expected_size = task->wanted = task->received = task->asked = 0;
    task->r2t_count = 0;
    task->data_sn = task->r2t_sn = task->to_send = task->sent = 0;
    task->response = 0;
    task->aborting = 0;
    task->closes_all = false;
    task->send.data = NULL;
    task->send.data_size = 0;
    return task;
}

struct iscsi_task *iscsi_task_find(struct iscsi_session *session, uint32_t task_tag)
{
    list_for_each(item, bucket_of(session, task_tag)) {
        struct iscsi_task *task = list_entry(item, struct iscsi_task, tag_link);
        if (task->task_tag == task_tag && !task->aborted)
            return task;
    }
    return NULL;
}

static void uncount(struct iscsi_task *task)
{
    if (task->counted)
        task->session->window_used--;
    task->counted = false;
}

void iscsi_task_release(struct iscsi_task *task)
{
    struct iscsi_session *session = task->session;
    struct iscsi_task *aborter = task->aborter;
    struct iscsi_memory *memory = &session->target->memory;
    check(!task->send.queued && task->state != ISCSI_TASK_FREE);
    uncount(task);
    if (task->aborting)
        iscsi_abort_forget(task);
    if (session->connection)
        iscsi_connection_forget_task(session->connection, task);
    iscsi_memory_cancel(memory, &task->claim);
    iscsi_memory_put(memory, &session->memory, task->memory, task->memory_size);
    task->memory = NULL;
    task->aborter = NULL;
    iscsi_task_move(task, ISCSI_TASK_FREE);
    list_remove(&task->link);
    list_remove(&task->tag_link);
    list_append(&session->free_tasks, &task->link);
    if (aborter)
        iscsi_abort_one_ended(aborter);
    iscsi_session_check_drained(session);
}

void iscsi_task_abort(struct iscsi_task *task, struct iscsi_task *aborter)
{
    struct iscsi_session *session = task->session;
    bool in_socket = false;
    /* A second request to abort waits for nothing: the first one's answer comes later, but the ending is the same. */
    if (aborter && !task->aborter) {
        task->aborter = aborter;
        aborter->aborting++;
    }
    if (session->connection && task->state == ISCSI_TASK_SENDING)
        return;
    task->aborted = true;
    if (session->connection)
        in_socket = !iscsi_connection_unsend(session->connection, &task->send);
    else
        task->send.queued = false;
    if (task->state == ISCSI_TASK_EXECUTING)
        scsi_command_cancel(&task->command);
    else if (!in_socket)
        iscsi_task_release(task);
}

static bool get_memory(struct iscsi_task *task, uint32_t size, bool urgent)
{
    struct iscsi_session *session = task->session;
    check(!task->memory);
    task->memory = iscsi_memory_get(&session->target->memory, &session->memory, size, urgent);
    task->memory_size = size;
    return task->memory != NULL;
}

bool iscsi_task_get_memory(struct iscsi_task *task, uint32_t size)
{
    return get_memory(task, size, false);
}

bool iscsi_task_get_memory_beyond_share(struct iscsi_task *task, uint32_t size)
{
    return get_memory(task, size, true);
}

void iscsi_task_send_last(struct iscsi_task *task)
{
    uncount(task);
    iscsi_session_stamp(task->session, task->send.header, true);
    if (task->state != ISCSI_TASK_SENDING)
        iscsi_task_move(task, ISCSI_TASK_SENDING);
    iscsi_connection_send(task->session->connection, &task->send);
}
