/* Work that blocks for long, formatting disks, on a thread of its own: other requests are answered meanwhile. */
#include <errno.h>
#include <string.h>

#include "common/check.h"
#include "storaged/control/control_private.h"

static void *work_thread(void *argument)
{
    struct work *work = argument;
    struct control *control = work->control;
    work->run(work);
    control_post_work(control, work);
    return NULL;
}

int work_start(struct control *control, struct work *work, struct err *err)
{
    if (control->work)
        return err_set(err, -EBUSY, "busy",
                       "another disk is being formatted on this node; try again when that is done");
    work->control = control;
    int error = -pthread_create(&work->thread, NULL, work_thread, work);
    if (error < 0)
        return err_set(err, error, "io", "no thread to format the disk (%s); try again", strerror(-error));
    control->work = work;
    return 0;
}

void work_handle(struct control *control, struct work *work)
{
    check(control->work == work);
    if (!control->stopping) /* then it is joined already */
        pthread_join(work->thread, NULL);
    control->work = NULL;
    work->done(control, work);
}
