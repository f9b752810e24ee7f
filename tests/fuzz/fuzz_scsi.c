/* CDBs and their parameter data, one command after the other from two initiators at one volume in memory: whatever
 * comes, a status goes out, and no reply tells what lay in its buffer before. (The volume checks every request's range.) */
#include <stdlib.h>
#include <string.h>

#include "storaged/scsi/scsi_command.h"
#include "tests/block/ram_lun.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/ring_turn.h"

#define VOLUME_BYTES (128u * 1024)
#define COMMANDS_MAX 16u
#define TURNS_MAX 20000u /* of one command: more is a loop */
#define LEAK_MIN 4u
#define PORTS 2u

enum mode { ROTTEN_SECTOR = 1, NO_SPACE = 2, OLD_ATTENTIONS = 0x80 };

struct port {
    struct lun_nexus lun_nexus;
    struct scsi_nexus scsi;
    bool closing; /* its connection shall end */
};

struct bench {
    struct ring *ring;
    struct ring_turn turn;
    struct lun_table *table;
    struct ram_lun ram;
    void (*submit)(struct lun *lun, struct lun_request *request);
    struct list refused; /* requests for which there is no space */
    struct ring_mail refuse;
    struct port ports[PORTS];
    uint8_t mode;
    unsigned requests;
};

struct run {
    struct scsi_command command;
    bool done, cancelled;
};

static struct bench bench;

/* --- the volume --------------------------------------------------------------------------------------------------- */

static void refuse_all(struct ring_mail *mail)
{
    while (!list_is_empty(&bench.refused)) {
        struct lun_request *request = list_entry(bench.refused.next, struct lun_request, link);
        list_remove(&request->link);
        request->status = LUN_NO_SPACE;
        request->done(request);
    }
}

static void submit(struct lun *lun, struct lun_request *request)
{
    bool writes = request->opcode != LUN_READ && request->opcode != LUN_FLUSH && request->opcode != LUN_MAP &&
                  request->opcode != LUN_BARRIER;
    bench.requests++;
    if (!(bench.mode & NO_SPACE) || !writes || bench.requests % 4 != 3) {
        bench.submit(lun, request);
        return;
    }
    if (list_is_empty(&bench.refused))
        ring_defer(bench.ring, &bench.refuse);
    list_append(&bench.refused, &request->link);
}

static void close_port(struct lun_nexus *nexus, const char *reason)
{
    list_entry(nexus, struct port, lun_nexus)->closing = true;
}

static void port_changed(struct lun_nexus *nexus, enum lun_change change)
{
    scsi_nexus_changed(&list_entry(nexus, struct port, lun_nexus)->scsi, change);
}

static void port_open(struct port *port, unsigned index)
{
    memset(port, 0, sizeof(*port));
    strcpy(port->lun_nexus.initiator, index ? "iqn.2026-01.io.hci:b" : "iqn.2026-01.io.hci:a");
    port->lun_nexus.close = close_port;
    port->lun_nexus.changed = port_changed;
    lun_nexus_open(&port->lun_nexus, &bench.ram.lun);
    port->scsi = (struct scsi_nexus){.lun = &bench.ram.lun, .lun_nexus = &port->lun_nexus, .port_group = 1};
    check(scsi_nexus_open(&port->scsi) == 0);
    if (!(bench.mode & OLD_ATTENTIONS))
        port->scsi.attentions = 0;
}

static void port_close(struct port *port)
{
    lun_nexus_drop(&port->lun_nexus);
    scsi_nexus_close(&port->scsi);
    lun_nexus_close(&port->lun_nexus);
}

/* Those whose connection was to end log in again; the one of a command under way first gives that command up. */
static void serve_closing(struct run *run)
{
    for (unsigned i = 0; i < PORTS; i++) {
        struct port *port = &bench.ports[i];
        if (!port->closing)
            continue;
        if (run && !run->done && run->command.nexus == &port->scsi) {
            if (!run->cancelled)
                scsi_command_cancel(&run->command);
            run->cancelled = true;
            continue;
        }
        port_close(port);
        port_open(port, i);
    }
}

/* --- commands ----------------------------------------------------------------------------------------------------- */

struct given {
    uint8_t cdb[SCSI_CDB_SIZE];
    uint64_t lun_number;
    unsigned port;
    const uint8_t *out;
    size_t out_size;
    uint32_t announced;
};

static void command_done(struct scsi_command *command)
{
    struct run *run = list_entry(command, struct run, command);
    check(!run->done);
    run->done = true;
}

static void give_data(struct scsi_command *command, const struct given *given)
{
    if (command->direction != SCSI_DATA_OUT)
        return;
    size_t size = given->announced < command->transfer_size ? given->announced : command->transfer_size;
    command->data_size = (uint32_t)size;
    command->surplus = given->announced > command->transfer_size;
    check(size <= command->buffer_size);
    if (size)
        memset(command->data, 0, size);
    if (size && given->out_size)
        memcpy(command->data, given->out, size < given->out_size ? size : given->out_size);
}

static uint8_t before(uint8_t salt, uint32_t at)
{
    return (uint8_t)(salt + at * 29 + (at >> 8) * 101);
}

/* The buffer is as large as was asked for and not a byte more. */
static void carry_out(struct run *run, const struct given *given, uint8_t salt)
{
    struct scsi_command *command = &run->command;
    void *memory = NULL;
    check(command->buffer_size <= LUN_REQUEST_MAX + 8192);
    check(!command->buffer_size || posix_memalign(&memory, 4096, command->buffer_size) == 0);
    command->data = memory;
    for (uint32_t i = 0; i < command->buffer_size; i++)
        command->data[i] = before(salt, i);
    give_data(command, given);
    run->done = scsi_command_execute(command);
    for (unsigned turns = 0; !run->done; turns++) {
        check(turns < TURNS_MAX);
        ring_turn(&bench.turn);
        serve_closing(run);
    }
    serve_closing(NULL);
}

static void run_command(struct run *run, const struct given *given, uint8_t salt)
{
    struct scsi_command *command = &run->command;
    uint8_t sense[SCSI_SENSE_MAX];
    memset(run, 0, sizeof(*run));
    command->nexus = &bench.ports[given->port].scsi;
    command->lun_number = given->lun_number;
    command->done = command_done;
    memcpy(command->cdb, given->cdb, sizeof(command->cdb));
    bench.requests = 0;
    if (scsi_command_plan(command))
        carry_out(run, given, salt);
    if (command->status == SCSI_STATUS_CHECK_CONDITION)
        check(scsi_command_sense(command, sense) <= SCSI_SENSE_MAX && (command->sense.key || command->cdb[0] == 0x03));
    if (command->status == SCSI_STATUS_GOOD && command->direction == SCSI_DATA_IN)
        check(command->transfer_size <= command->buffer_size);
}

/* Two runs over buffers that held different bytes: what each time is what lay there was never written. */
static void look_for_leaks(const struct scsi_command *first, const struct scsi_command *second)
{
    unsigned same = 0;
    uint32_t size = first->transfer_size < second->transfer_size ? first->transfer_size : second->transfer_size;
    for (uint32_t i = 0; i < size; i++) {
        bool untouched = first->data[i] == before(3, i) && second->data[i] == before(144, i);
        same = untouched ? same + 1 : 0;
        check(same < LEAK_MIN);
    }
}

static bool gave_data(const struct run *run)
{
    const struct scsi_command *command = &run->command;
    return command->status == SCSI_STATUS_GOOD && command->direction == SCSI_DATA_IN && !command->dropped &&
           command->data;
}

static void run_twice(const struct given *given)
{
    struct run first, second;
    run_command(&first, given, 3);
    /* UNMAP of two ranges */
    fuzz_planted(first.command.status == SCSI_STATUS_GOOD && given->cdb[0] == 0x42 && bench.requests > 1);
    if (gave_data(&first)) {
        run_command(&second, given, 144);
        if (gave_data(&second))
            look_for_leaks(&first.command, &second.command);
        free(second.command.data);
    }
    free(first.command.data);
}

static void take_command(struct fuzz_input *input, struct given *ret)
{
    uint8_t flags = fuzz_u8(input);
    fuzz_fill(input, ret->cdb, sizeof(ret->cdb));
    ret->lun_number = flags & 1 ? (uint64_t)fuzz_u8(input) << 48 : 0;
    ret->port = flags >> 1 & 1;
    ret->announced = flags & 4 ? fuzz_u16(input) * 16u : 0;
    ret->out = fuzz_take(input, flags & 8 ? fuzz_u8(input) * 8u : 0, &ret->out_size);
    if (!(flags & 4))
        ret->announced = (uint32_t)ret->out_size;
}

/* --- a new volume for every input --------------------------------------------------------------------------------- */

static void begin(uint8_t mode)
{
    if (!bench.ring) {
        check(ring_new(64, &bench.ring) == 0);
        ring_turn_init(&bench.turn, bench.ring);
        bench.refuse.run = refuse_all;
        list_init(&bench.refused);
    }
    bench.mode = mode;
    bench.table = lun_table_new();
    check(bench.table && ram_lun_open(&bench.ram, bench.ring, "db1", VOLUME_BYTES) == 0);
    memset(&bench.ram.lun.volume, 7, sizeof(bench.ram.lun.volume)); /* the same for every run of an input */
    bench.ram.bad_sector = mode & ROTTEN_SECTOR ? 1 : UINT64_MAX;
    bench.submit = bench.ram.lun.submit;
    bench.ram.lun.submit = submit;
    check(lun_table_add(bench.table, &bench.ram.lun) == 0);
    for (unsigned i = 0; i < PORTS; i++)
        port_open(&bench.ports[i], i);
}

/* What goes on in the background ends by itself. */
static void end(void)
{
    const struct ram_lun *ram = &bench.ram;
    for (unsigned turns = 0; ram->lun.sanitize || ram->state.swaps || !list_is_empty(&ram->pending); turns++) {
        check(turns < TURNS_MAX);
        ring_turn(&bench.turn);
    }
    lun_table_remove(bench.table, &bench.ram.lun);
    for (unsigned i = 0; i < PORTS; i++)
        port_close(&bench.ports[i]);
    ring_turn(&bench.turn);
    ram_lun_close(&bench.ram);
    lun_table_free(bench.table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    begin(fuzz_u8(&input));
    for (unsigned i = 0; i < COMMANDS_MAX && input.size; i++) {
        struct given given;
        take_command(&input, &given);
        run_twice(&given);
    }
    end();
    return 0;
}
