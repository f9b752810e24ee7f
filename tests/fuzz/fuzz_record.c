/* The owner record of a guest: a text that any node may have written. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vmha/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record record, again;
    struct err err;
    char *text = fuzz_text(data, size);
    if (record_parse(text, &record, &err) == 0) {
        check(strcmp(record.text, text) == 0);
        record_format(&record);
        check(record_parse(record.text, &again, &err) == 0);
        check(again.state == record.state && again.incarnation == record.incarnation && again.thaw == record.thaw);
        check(again.force == record.force && id_equal(&again.node, &record.node) && strcmp(again.reason, record.reason) == 0);
        fuzz_planted(record.state == RECORD_FAILED);
    }
    free(text);
    return 0;
}
