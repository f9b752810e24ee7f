/* Sense data: why a SCSI command failed, as SPC-4 §4.5 wants it told. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SCSI_STATUS_GOOD 0x00
#define SCSI_STATUS_CHECK_CONDITION 0x02
#define SCSI_STATUS_BUSY 0x08
#define SCSI_STATUS_RESERVATION_CONFLICT 0x18
#define SCSI_STATUS_TASK_SET_FULL 0x28

#define SCSI_KEY_NO_SENSE 0x0
#define SCSI_KEY_NOT_READY 0x2
#define SCSI_KEY_MEDIUM_ERROR 0x3
#define SCSI_KEY_HARDWARE_ERROR 0x4
#define SCSI_KEY_ILLEGAL_REQUEST 0x5
#define SCSI_KEY_UNIT_ATTENTION 0x6
#define SCSI_KEY_DATA_PROTECT 0x7
#define SCSI_KEY_COPY_ABORTED 0xa
#define SCSI_KEY_ABORTED_COMMAND 0xb
#define SCSI_KEY_MISCOMPARE 0xe

/* Additional sense code and qualifier in one number: 0xCCQQ. */
#define SCSI_ASC_NOTHING 0x0000
#define SCSI_ASC_SANITIZE_IN_PROGRESS 0x041b
#define SCSI_ASC_WRITE_ERROR 0x0c00
#define SCSI_ASC_DATA_PHASE_ERROR 0x4b00
#define SCSI_ASC_THIRD_PARTY_FAILURE 0x0d01
#define SCSI_ASC_COPY_TARGET_NOT_REACHABLE 0x0d02
#define SCSI_ASC_UNRECOVERED_READ_ERROR 0x1100
#define SCSI_ASC_PARAMETER_LIST_LENGTH_ERROR 0x1a00
#define SCSI_ASC_INVALID_OPERATION_CODE 0x2000
#define SCSI_ASC_MISCOMPARE 0x1d00
#define SCSI_ASC_LBA_OUT_OF_RANGE 0x2100
#define SCSI_ASC_INVALID_FIELD_IN_CDB 0x2400
#define SCSI_ASC_LOGICAL_UNIT_NOT_SUPPORTED 0x2500
#define SCSI_ASC_INVALID_FIELD_IN_PARAMETER_LIST 0x2600
#define SCSI_ASC_TOO_MANY_TARGET_DESCRIPTORS 0x2606
#define SCSI_ASC_UNSUPPORTED_TARGET_DESCRIPTOR 0x2607
#define SCSI_ASC_TOO_MANY_SEGMENT_DESCRIPTORS 0x2608
#define SCSI_ASC_UNSUPPORTED_SEGMENT_DESCRIPTOR 0x2609
#define SCSI_ASC_INVALID_RELEASE 0x2604
#define SCSI_ASC_SOFTWARE_WRITE_PROTECTED 0x2702
#define SCSI_ASC_SPACE_ALLOCATION_FAILED 0x2707
#define SCSI_ASC_SANITIZE_FAILED 0x3103
#define SCSI_ASC_POWER_ON 0x2900
#define SCSI_ASC_BUS_RESET 0x2902
#define SCSI_ASC_BUS_DEVICE_RESET 0x2903
#define SCSI_ASC_NEXUS_LOSS 0x2907
#define SCSI_ASC_MODE_PARAMETERS_CHANGED 0x2a01
#define SCSI_ASC_RESERVATIONS_PREEMPTED 0x2a03
#define SCSI_ASC_RESERVATIONS_RELEASED 0x2a04
#define SCSI_ASC_REGISTRATIONS_PREEMPTED 0x2a05
#define SCSI_ASC_ASYMMETRIC_ACCESS_CHANGED 0x2a06
#define SCSI_ASC_CAPACITY_CHANGED 0x2a09
#define SCSI_ASC_COMMANDS_CLEARED 0x2f00
#define SCSI_ASC_SAVING_NOT_SUPPORTED 0x3900
#define SCSI_ASC_LUNS_CHANGED 0x3f0e
#define SCSI_ASC_INTERNAL_TARGET_FAILURE 0x4400
#define SCSI_ASC_NO_REGISTRATION_RESOURCES 0x5504

#define SCSI_SENSE_FIXED_SIZE 18u
#define SCSI_SENSE_MAX 28u /* descriptor format with information and sense key specific data */

struct scsi_sense {
    uint8_t key;
    uint16_t asc;
    bool has_sector; /* INFORMATION: the logical block at fault; of COMPARE AND WRITE the offset of the difference */
    uint64_t sector;
    /* Field pointer (SPC-4 §4.5.2.4.2), ILLEGAL REQUEST only. */
    bool has_field, in_cdb;
    uint16_t field; /* byte */
    int8_t bit;     /* -1: the whole byte */
    bool has_progress; /* NOT READY: 65536ths of what is going on (SPC-4 §4.5.2.4.4) */
    uint16_t progress;
};

/* In fixed format, and in descriptor format (D_SENSE is 1). They return the size written. */
uint8_t scsi_sense_encode(const struct scsi_sense *sense, uint8_t ret[static SCSI_SENSE_MAX]);
uint8_t scsi_sense_encode_descriptors(const struct scsi_sense *sense, uint8_t ret[static SCSI_SENSE_MAX]);
