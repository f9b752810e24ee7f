/* A logical unit in memory and a way to run one SCSI command on it, for tests of the command sets without a transport. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/bytes.h"
#include "storaged/scsi/scsi_command.h"
#include "tests/unit/scsi_assert.h"

#define SECTORS 4096u

struct fake {
    struct lun lun;
    struct lun_nexus lun_nexus;
    struct scsi_nexus nexus;
    uint8_t memory[SECTORS * LUN_SECTOR_SIZE];
    uint64_t bad_sector;
    enum lun_status next_status;
    bool unmapped[SECTORS / 8]; /* by block */
    unsigned requests;
    struct lun_request *pending;
    bool holds; /* what is still pending when a command is done is left to the test */
};

struct run {
    struct scsi_command command;
    bool is_done;
    uint8_t *data;
};

static void serve(struct lun *lun, struct lun_request *request)
{
    struct fake *fake = list_entry(lun, struct fake, lun);
    assert_null(fake->pending);
    fake->pending = request;
    fake->requests++;
}

static enum lun_status compare_and_write(struct lun_request *request, uint8_t *at, size_t size)
{
    for (request->miscompare_offset = 0; request->miscompare_offset < size; request->miscompare_offset++)
        if (at[request->miscompare_offset] != request->data[request->miscompare_offset])
            return LUN_MISCOMPARE;
    memcpy(at, request->data + size, size);
    return LUN_OK;
}

static void find_run(struct fake *fake, struct lun_request *request)
{
    uint64_t sector = request->sector;
    request->mapped = !fake->unmapped[sector / 8];
    while (sector < request->sector + request->sectors && fake->unmapped[sector / 8] == !request->mapped)
        sector++;
    request->run_sectors = sector - request->sector;
}

static enum lun_status carry_out(struct fake *fake, struct lun_request *request)
{
    uint8_t *at = fake->memory + request->sector * LUN_SECTOR_SIZE;
    size_t size = (size_t)request->sectors * LUN_SECTOR_SIZE;
    if (fake->next_status != LUN_OK) {
        request->bad_sector = fake->bad_sector;
        return fake->next_status;
    }
    if (request->opcode == LUN_FLUSH)
        return LUN_OK;
    assert_true(request->sector + request->sectors <= SECTORS);
    if (request->opcode == LUN_READ)
        memcpy(request->data, at, size);
    else if (request->opcode == LUN_WRITE)
        memcpy(at, request->data, size);
    else if (request->opcode == LUN_UNMAP)
        memset(at, 0, size);
    else if (request->opcode == LUN_MAP)
        find_run(fake, request);
    else if (request->opcode == LUN_OR_WRITE)
        for (size_t i = 0; i < size; i++)
            at[i] |= request->data[i];
    return request->opcode == LUN_COMPARE_WRITE ? compare_and_write(request, at, size) : LUN_OK;
}

static void serve_one(struct fake *fake)
{
    struct lun_request *request = fake->pending;
    fake->pending = NULL;
    request->status = carry_out(fake, request);
    request->done(request);
}

static void command_done(struct scsi_command *command)
{
    list_entry(command, struct run, command)->is_done = true;
}

/* Carries one command through; `out` is what the initiator sends. The data stays in `run` until the next. */
static struct scsi_command *run_lun(struct fake *fake, struct run *run, uint64_t lun_number, const uint8_t *cdb, size_t cdb_size,
                                    const void *out, uint32_t out_size)
{
    struct scsi_command *command = &run->command;
    free(run->data);
    *run = (struct run){.command = {.nexus = &fake->nexus, .lun_number = lun_number, .done = command_done}};
    memcpy(command->cdb, cdb, cdb_size);
    if (!scsi_command_plan(command))
        return command;
    run->data = command->buffer_size ? aligned_alloc(4096, (command->buffer_size + 4095) & ~4095u) : NULL;
    command->data = run->data;
    if (command->direction == SCSI_DATA_OUT) {
        command->data_size = out_size < command->transfer_size ? out_size : command->transfer_size;
        command->surplus = out_size > command->transfer_size;
        if (command->data_size)
            memcpy(command->data, out, command->data_size);
    }
    run->is_done = scsi_command_execute(command);
    while (!run->is_done || (fake->pending && !fake->holds)) { /* SANITIZE goes on after its command */
        assert_non_null(fake->pending);
        serve_one(fake);
    }
    return command;
}

#define RUN(fake, run, out, out_size, ...)                                                                                     \
    run_lun(fake, run, 0, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), out, out_size)

static bool optimized_here = true;
static bool is_optimized(struct lun *lun)
{
    return optimized_here;
}

static int setup(void **state)
{
    struct fake *fake = calloc(1, sizeof(*fake));
    list_init(&fake->lun.nexuses);
    fake->lun.sectors = SECTORS;
    fake->lun.submit = serve;
    fake->lun.is_optimized = is_optimized;
    strcpy(fake->lun.name, "db1");
    for (unsigned i = 0; i < 16; i++)
        fake->lun.volume.bytes[i] = (uint8_t)(0xa0 + i);
    fake->nexus = (struct scsi_nexus){.lun = &fake->lun, .lun_nexus = &fake->lun_nexus, .port_group = 2};
    assert_int_equal(scsi_nexus_open(&fake->nexus), 0);
    fake->nexus.attentions = 0;
    *state = fake;
    return 0;
}

static int teardown(void **state)
{
    struct fake *fake = *state;
    scsi_nexus_close(&fake->nexus);
    fake->lun.unit_free(fake->lun.unit);
    free(fake);
    return 0;
}
