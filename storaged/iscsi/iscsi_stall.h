/* Initiators that stand still while others wait for the memory they hold. */
#pragma once

struct iscsi_target;

/* Somebody waits for memory: from now on it is looked at who keeps it. */
void iscsi_stall_watch(struct iscsi_target *target);
void iscsi_stall_stop(struct iscsi_target *target);
