/* One SCSI command from its CDB to its status, independent of the transport that carries it.
 *
 * The transport fills the first part of `struct scsi_command`, asks scsi_command_plan what the command needs, provides
 * the buffer and the data it asks for, and calls scsi_command_execute. All on the data thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storaged/lun.h"
#include "storaged/scsi/scsi_sense.h"

#define SCSI_CDB_SIZE 16u
#define SCSI_REPLY_MAX 4096u /* parameter data of every command fits */

struct scsi_command;

/* Unit attentions, most important first (SAM-5 §5.14); bits of scsi_nexus.attentions. Those up to NEXUS_LOSS are told
 * even where a reservation is in the way (SAM-5 §5.3.3). */
enum scsi_attention {
    SCSI_ATTENTION_POWER_ON,
    SCSI_ATTENTION_TARGET_RESET,
    SCSI_ATTENTION_RESET, /* of the logical unit */
    SCSI_ATTENTION_NEXUS_LOSS,
    SCSI_ATTENTION_COMMANDS_CLEARED,
    SCSI_ATTENTION_RESERVATIONS_PREEMPTED,
    SCSI_ATTENTION_RESERVATIONS_RELEASED,
    SCSI_ATTENTION_REGISTRATIONS_PREEMPTED,
    SCSI_ATTENTION_MODE_CHANGED,
    SCSI_ATTENTION_CAPACITY_CHANGED,
    SCSI_ATTENTION_ACCESS_CHANGED,
    SCSI_ATTENTION_LUNS_CHANGED,
    SCSI_ATTENTION_COUNT,
};

struct scsi_unit; /* scsi_unit.h: what SCSI keeps of a logical unit */

/* The last EXTENDED COPY of a nexus, for RECEIVE COPY RESULTS (SPC-4 §6.24.2). */
enum scsi_copy_status { SCSI_COPY_RUNNING, SCSI_COPY_DONE, SCSI_COPY_FAILED };
struct scsi_copy_result {
    bool valid;
    uint8_t list_id, status;
    uint16_t segments;
    uint64_t sectors;
    struct scsi_sense sense;
};

/* What SCSI remembers of one initiator at one logical unit. */
struct scsi_nexus {
    /* Filled by the transport before scsi_nexus_open. */
    struct lun *lun;
    struct lun_nexus *lun_nexus;
    uint16_t port_group; /* of this node: 1 or 2; also its relative target port identifier */
    uint8_t isid[6];     /* with the initiator's name: the initiator port */

    struct scsi_unit *unit;
    struct list link; /* in unit->nexuses */
    uint32_t attentions;
    struct scsi_copy_result copy;
    int registrant;  /* its place among the unit's registrants; -1: not registered */
    bool reserves;   /* the unit, by RESERVE (6) */
    bool left;       /* the initiator is gone; what it sent is being drained */
    bool preempted;  /* by PREEMPT AND ABORT: its connection is being closed */
};

/* A change of one of the logical unit's texts (lun->state); scsi_state.h. */
struct scsi_change {
    const char *key;
    bool (*step)(struct scsi_command *command);
    bool (*made)(struct scsi_command *command);
    bool (*resume)(struct scsi_command *command);
    bool parked; /* in unit->parked */
    unsigned attempts;
};

enum scsi_direction { SCSI_NO_DATA, SCSI_DATA_IN, SCSI_DATA_OUT };

struct scsi_command {
    /* Filled by the transport before scsi_command_plan. */
    struct scsi_nexus *nexus;
    uint8_t cdb[SCSI_CDB_SIZE];
    uint64_t lun_number; /* the eight bytes of SAM-5 §4.7, big-endian */
    void (*done)(struct scsi_command *command);

    /* Filled by scsi_command_plan. */
    enum scsi_direction direction;
    uint32_t transfer_size; /* bytes by the CDB. DATA_IN: final only after execution (a reply may be shorter) */
    uint32_t buffer_size;   /* of the buffer needed for execution; may exceed transfer_size; 0: none */

    /* Filled by the transport before scsi_command_execute. */
    uint8_t *data;      /* buffer_size bytes from iobuf_get, still the transport's own */
    uint32_t data_size; /* DATA_OUT: bytes that came, at most transfer_size */
    bool surplus;       /* DATA_OUT: the initiator announced more than transfer_size */

    /* The end. */
    uint8_t status;
    struct scsi_sense sense; /* with CHECK CONDITION */
    bool dropped;            /* no answer may be given (LUN_DROPPED) */

    /* Private to the command sets. */
    const struct scsi_operation *operation;
    struct lun_request request;
    bool (*advance)(struct scsi_command *command); /* prepares the next request; false: the command is finished */
    enum lun_opcode opcode;   /* of the requests that scsi_advance_once makes */
    uint64_t sector, sectors; /* what is still to be done */
    uint64_t copied_sectors;
    unsigned descriptor, descriptor_count, steps;
    struct scsi_change change;
};

/* True: the command needs direction, transfer_size, buffer_size and then execution. False: `status` is final. */
bool scsi_command_plan(struct scsi_command *command);
/* True: finished, `status` is final. False: `done` will be called, never from within this call. */
bool scsi_command_execute(struct scsi_command *command);
/* The transport gives an executing command up. One that waits for something long ends now, by `done`; for others
 * nothing happens: the group gives them back soon. */
void scsi_command_cancel(struct scsi_command *command);
void scsi_attention_raise(struct scsi_nexus *nexus, enum scsi_attention attention);
/* The sense data of a command that ended with CHECK CONDITION, in the format that D_SENSE asks for. Returns the size. */
uint8_t scsi_command_sense(const struct scsi_command *command, uint8_t ret[static SCSI_SENSE_MAX]);

/* A nexus begins with a unit attention (29/00) and knows its registration. -ENOMEM. */
int scsi_nexus_open(struct scsi_nexus *nexus);
void scsi_nexus_close(struct scsi_nexus *nexus);
/* The initiator logs out: what it reserved is free before it is told that it is out, for others hear of that at once. */
void scsi_nexus_leave(struct scsi_nexus *nexus);
/* What lun_nexus.changed says. */
void scsi_nexus_changed(struct scsi_nexus *nexus, enum lun_change change);
/* LOGICAL UNIT RESET and TARGET RESET (SAM-5 §6.3.3): every initiator gets `attention` (RESET, TARGET_RESET), RESERVE (6)
 * ends, mode parameters are the saved ones again. Aborting tasks is the transport's. */
void scsi_unit_reset(struct scsi_nexus *from, enum scsi_attention attention);

/* --- for the command sets (scsi_*.c) ------------------------------------------------------------------------------ */

/* What a command does, judged against the reservations of others (SPC-4 §5.13.1, SBC-4 §4.17) and write protection. */
enum scsi_access {
    SCSI_ACCESS_WRITE,   /* changes the medium */
    SCSI_ACCESS_CONTROL, /* judged as a write, but leaves the medium alone */
    SCSI_ACCESS_READ,
    SCSI_ACCESS_STATUS,  /* every persistent reservation allows it; RESERVE (6) of another does not */
    SCSI_ACCESS_FREE,    /* never in conflict */
    SCSI_ACCESS_OWN,     /* the command judges for itself */
};

struct scsi_operation {
    uint8_t opcode;
    int8_t service_action; /* -1: none */
    uint8_t cdb_size;
    enum scsi_access access;
    uint8_t allocation_at, allocation_bytes; /* where the CDB tells the room for a reply; 0: not a reply */
    bool ignores_attention;                  /* SAM-5 §5.14: INQUIRY, REPORT LUNS, REQUEST SENSE */
    bool any_lun;                            /* answers at logical units that do not exist */
    bool (*plan)(struct scsi_command *command);    /* NULL: a reply, or no data */
    bool (*execute)(struct scsi_command *command); /* as scsi_command_execute */
    uint8_t usage[SCSI_CDB_SIZE];                  /* CDB usage data, SPC-4 §6.35.3, for bytes 1… */
};

/* The dispatch table, also what REPORT SUPPORTED OPERATION CODES tells. NULL past the end. */
const struct scsi_operation *scsi_operation_at(unsigned index);
const struct scsi_operation *scsi_operation_find(const uint8_t *cdb, bool *ret_opcode_known);
bool scsi_lun_exists(const struct scsi_command *command);
/* True: the command is refused (its status is set), by a reservation of another; by write protection. */
bool scsi_access_conflicts(struct scsi_command *command);
bool scsi_access_is_protected(struct scsi_command *command);
/* True: a unit attention is reported instead (its sense is set), one of the first `below` kinds. */
bool scsi_attention_report(struct scsi_command *command, enum scsi_attention below);

/* These end the command and return what plan (false) or execute (true) returns. */
bool scsi_plan_fail(struct scsi_command *command, uint8_t key, uint16_t asc);
bool scsi_plan_fail_cdb(struct scsi_command *command, uint16_t byte, int8_t bit);
bool scsi_fail(struct scsi_command *command, uint8_t key, uint16_t asc);
bool scsi_fail_cdb(struct scsi_command *command, uint16_t byte, int8_t bit);
bool scsi_fail_parameter(struct scsi_command *command, uint16_t byte);
/* `size` bytes are in command->data; the allocation length cuts them. */
bool scsi_reply(struct scsi_command *command, size_t size);
/* Runs command->advance and its requests; what scsi_command_execute returns. */
bool scsi_medium_start(struct scsi_command *command);

bool scsi_execute_nothing(struct scsi_command *command);
bool scsi_execute_inquiry(struct scsi_command *command);
bool scsi_execute_request_sense(struct scsi_command *command);
bool scsi_execute_report_luns(struct scsi_command *command);
bool scsi_execute_report_target_port_groups(struct scsi_command *command);
bool scsi_execute_report_operations(struct scsi_command *command);
bool scsi_execute_report_task_management(struct scsi_command *command);
bool scsi_execute_mode_sense(struct scsi_command *command);
bool scsi_plan_mode_select(struct scsi_command *command);
bool scsi_execute_mode_select(struct scsi_command *command);
bool scsi_plan_reserve(struct scsi_command *command);
bool scsi_execute_reserve(struct scsi_command *command);
bool scsi_execute_release(struct scsi_command *command);
bool scsi_execute_read_keys(struct scsi_command *command);
bool scsi_execute_read_reservation(struct scsi_command *command);
bool scsi_execute_report_capabilities(struct scsi_command *command);
bool scsi_plan_read_full_status(struct scsi_command *command);
bool scsi_execute_read_full_status(struct scsi_command *command);
bool scsi_plan_persistent_reserve_out(struct scsi_command *command);
bool scsi_execute_persistent_reserve_out(struct scsi_command *command);
bool scsi_execute_read_capacity10(struct scsi_command *command);
bool scsi_execute_read_capacity16(struct scsi_command *command);
bool scsi_execute_get_lba_status(struct scsi_command *command);
bool scsi_execute_read_defect_data(struct scsi_command *command);
bool scsi_plan_read(struct scsi_command *command);
bool scsi_plan_write(struct scsi_command *command);
bool scsi_plan_or_write(struct scsi_command *command);
bool scsi_plan_compare_write(struct scsi_command *command);
bool scsi_plan_write_atomic(struct scsi_command *command);
bool scsi_plan_write_verify(struct scsi_command *command);
bool scsi_plan_prefetch(struct scsi_command *command);
bool scsi_plan_copy(struct scsi_command *command);
bool scsi_plan_sanitize(struct scsi_command *command);
bool scsi_plan_verify(struct scsi_command *command);
bool scsi_plan_synchronize_cache(struct scsi_command *command);
bool scsi_plan_unmap(struct scsi_command *command);
bool scsi_plan_write_same(struct scsi_command *command);
bool scsi_execute_verify(struct scsi_command *command);
bool scsi_execute_write_verify(struct scsi_command *command);
bool scsi_execute_whole(struct scsi_command *command); /* COMPARE AND WRITE, WRITE ATOMIC */
bool scsi_execute_copy(struct scsi_command *command);
bool scsi_execute_copy_results(struct scsi_command *command);
/* Fails the command while the volume is being sanitized, or when that failed; false: it may go on. */
bool scsi_sanitize_refuses(struct scsi_command *command);
bool scsi_sanitize_report(struct scsi_command *command); /* the same whatever the command */
void scsi_sanitize_refresh(struct lun *lun); /* follows lun->state */
size_t scsi_copy_fill_page(uint8_t *body); /* VPD 8F; returns its size */
void scsi_copy_failed(struct scsi_command *command); /* a request of it failed: makes COPY ABORTED of it */
void scsi_naa_of(const struct lun *lun, uint8_t ret[static 8]); /* the designator of VPD 83 */
bool scsi_execute_sanitize(struct scsi_command *command);
bool scsi_execute_medium(struct scsi_command *command);
bool scsi_execute_flush(struct scsi_command *command);
bool scsi_execute_unmap(struct scsi_command *command);
bool scsi_execute_write_same(struct scsi_command *command);

#define SCSI_UNMAP_SECTORS_MAX (1u << 20)      /* 512 MiB in one UNMAP command; VPD B0 */
#define SCSI_UNMAP_DESCRIPTORS_MAX 64u         /* VPD B0 */
#define SCSI_WRITE_SAME_SECTORS_MAX (1u << 15) /* 16 MiB; VPD B0 */
#define SCSI_COPIES_MAX 64u
#define SCSI_ATOMIC_ALIGNMENT LUN_ATOMIC_MAX /* sectors; VPD B0: so that none crosses a multiple of it */
#define SCSI_ATOMIC_GRANULARITY 8u
#define SCSI_TRANSFER_SECTORS_MAX (LUN_REQUEST_MAX / LUN_SECTOR_SIZE)
