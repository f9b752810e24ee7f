/* One SCSI command from its CDB to its status, independent of the transport that carries it.
 *
 * The transport fills the first part of `struct scsi_command`, asks scsi_command_plan what the command needs, provides
 * the buffer and the data it asks for, and calls scsi_command_execute. All on the data thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storaged/lun.h"
#include "storaged/scsi_sense.h"

#define SCSI_CDB_SIZE 16u
#define SCSI_REPLY_MAX 4096u /* parameter data of every command fits */

/* Unit attentions, most important first (SAM-5 §5.14); bits of scsi_nexus.attentions. */
enum scsi_attention {
    SCSI_ATTENTION_POWER_ON,
    SCSI_ATTENTION_RESET,
    SCSI_ATTENTION_COMMANDS_CLEARED,
    SCSI_ATTENTION_ACCESS_CHANGED,
    SCSI_ATTENTION_COUNT,
};

/* What SCSI remembers of one initiator at one logical unit. */
struct scsi_nexus {
    struct lun *lun;
    struct lun_nexus *lun_nexus;
    uint16_t port_group; /* of this node: 1 or 2; also its relative target port identifier */
    uint32_t attentions;
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
    uint64_t sector, sectors; /* what is still to be done */
    unsigned descriptor, descriptor_count;
};

/* True: the command needs direction, transfer_size, buffer_size and then execution. False: `status` is final. */
bool scsi_command_plan(struct scsi_command *command);
/* True: finished, `status` is final. False: `done` will be called, never from within this call. */
bool scsi_command_execute(struct scsi_command *command);
void scsi_attention_raise(struct scsi_nexus *nexus, enum scsi_attention attention);

/* --- for the command sets (scsi_*.c) ------------------------------------------------------------------------------ */

struct scsi_operation {
    uint8_t opcode;
    int8_t service_action; /* -1: none */
    uint8_t cdb_size;
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
bool scsi_execute_read_capacity10(struct scsi_command *command);
bool scsi_execute_read_capacity16(struct scsi_command *command);
bool scsi_execute_get_lba_status(struct scsi_command *command);
bool scsi_plan_read(struct scsi_command *command);
bool scsi_plan_write(struct scsi_command *command);
bool scsi_plan_verify(struct scsi_command *command);
bool scsi_plan_synchronize_cache(struct scsi_command *command);
bool scsi_plan_unmap(struct scsi_command *command);
bool scsi_plan_write_same(struct scsi_command *command);
bool scsi_execute_verify(struct scsi_command *command);
bool scsi_execute_medium(struct scsi_command *command);
bool scsi_execute_flush(struct scsi_command *command);
bool scsi_execute_unmap(struct scsi_command *command);
bool scsi_execute_write_same(struct scsi_command *command);

#define SCSI_UNMAP_SECTORS_MAX (1u << 20)      /* 512 MiB in one UNMAP command; VPD B0 */
#define SCSI_UNMAP_DESCRIPTORS_MAX 64u         /* VPD B0 */
#define SCSI_WRITE_SAME_SECTORS_MAX (1u << 15) /* 16 MiB; VPD B0 */
#define SCSI_TRANSFER_SECTORS_MAX (LUN_REQUEST_MAX / LUN_SECTOR_SIZE)
