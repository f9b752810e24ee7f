/* How a SCSI command must have ended: for the tests of the command sets. */
#pragma once

#include "storaged/scsi/scsi_command.h"

#define assert_good(command) assert_int_equal((command)->status, SCSI_STATUS_GOOD)
#define assert_conflict(command) assert_int_equal((command)->status, SCSI_STATUS_RESERVATION_CONFLICT)
#define assert_sense(command, wanted_key, wanted_asc)                 \
    do {                                                              \
        const struct scsi_command *ended = (command);                 \
        assert_int_equal(ended->status, SCSI_STATUS_CHECK_CONDITION); \
        assert_int_equal(ended->sense.key, wanted_key);               \
        assert_int_equal(ended->sense.asc, wanted_asc);               \
    } while (0)
#define assert_illegal(command, asc) assert_sense(command, SCSI_KEY_ILLEGAL_REQUEST, asc)
