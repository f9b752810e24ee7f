/* INQUIRY: what this disk is, and the vital product data pages that tell initiators how to treat it. */
#include <stdio.h>
#include <string.h>

#include "common/bytes.h"
#include "common/check.h"
#include "storaged/scsi/scsi_command.h"

#define VENDOR "HCI     "
#define PRODUCT "VOLUME          "
#define REVISION "0001"

struct vpd_page {
    uint8_t code;
    size_t (*fill)(const struct scsi_command *command, uint8_t *page); /* body from page + 4; returns its size */
};

static size_t fill_supported_pages(const struct scsi_command *command, uint8_t *page);

static size_t fill_serial(const struct scsi_command *command, uint8_t *page)
{
    char text[ID_TEXT_SIZE];
    memcpy(page + 4, id_format(&command->nexus->lun->volume, text), ID_TEXT_SIZE - 1);
    return ID_TEXT_SIZE - 1;
}

/* One designation descriptor, SPC-4 §7.8.6.1. `association`: 0 logical unit, 1 port, 2 device. */
static uint8_t *put_designator(uint8_t *at, uint8_t code_set, uint8_t association, uint8_t type, const void *data, uint8_t size)
{
    at[0] = (association ? 0x50 : 0) | code_set; /* protocol iSCSI */
    at[1] = (association ? 0x80 : 0) | (uint8_t)(association << 4) | type;
    at[3] = size;
    memcpy(at + 4, data, size);
    return at + 4 + size;
}

/* SCSI name strings are NUL-terminated and padded to four bytes (SPC-4 §7.8.6.11). */
static uint8_t *put_name(uint8_t *at, uint8_t association, const char *text)
{
    char padded[256] = {0};
    size_t size = (strlen(text) + 4) & ~(size_t)3;
    check(size <= sizeof(padded));
    memcpy(padded, text, strlen(text));
    return put_designator(at, 3, association, 8, padded, (uint8_t)size);
}

/* NAA 3h, locally assigned: the same on both nodes, since it comes from the volume. */
void scsi_naa_of(const struct lun *lun, uint8_t ret[static 8])
{
    memcpy(ret, lun->volume.bytes + 8, 8);
    ret[0] = 0x30 | (ret[0] & 0x0f);
}

static size_t fill_identification(const struct scsi_command *command, uint8_t *page)
{
    const struct lun *lun = command->nexus->lun;
    char text[ID_TEXT_SIZE], vendor_id[8 + ID_TEXT_SIZE], name[160];
    uint8_t naa[8], port[4] = {0}, *at = page + 4;

    scsi_naa_of(lun, naa);
    at = put_designator(at, 1, 0, 3, naa, sizeof(naa));
    snprintf(vendor_id, sizeof(vendor_id), VENDOR "%s", id_format(&lun->volume, text));
    at = put_designator(at, 2, 0, 1, vendor_id, (uint8_t)strlen(vendor_id));
    put_be16(port + 2, command->nexus->port_group);
    at = put_designator(at, 1, 1, 4, port, sizeof(port)); /* relative target port */
    at = put_designator(at, 1, 1, 5, port, sizeof(port)); /* target port group */
    snprintf(name, sizeof(name), LUN_IQN_PREFIX "%s,t,0x%04x", lun->name, command->nexus->port_group);
    at = put_name(at, 1, name);
    snprintf(name, sizeof(name), LUN_IQN_PREFIX "%s", lun->name);
    at = put_name(at, 2, name);
    return (size_t)(at - page - 4);
}

static size_t fill_extended_inquiry(const struct scsi_command *command, uint8_t *page)
{
    page[5] = 0x07; /* HEADSUP, ORDSUP, SIMPSUP: every order is kept by the group's serializer */
    return 60;
}

static size_t fill_block_limits(const struct scsi_command *command, uint8_t *page)
{
    page[5] = LUN_COMPARE_MAX;
    put_be16(page + 6, LUN_BLOCK_SIZE / LUN_SECTOR_SIZE); /* optimal transfer length granularity */
    put_be32(page + 8, SCSI_TRANSFER_SECTORS_MAX);
    put_be32(page + 12, SCSI_TRANSFER_SECTORS_MAX); /* optimal transfer length */
    put_be32(page + 20, SCSI_UNMAP_SECTORS_MAX);
    put_be32(page + 24, SCSI_UNMAP_DESCRIPTORS_MAX);
    put_be32(page + 28, LUN_BLOCK_SIZE / LUN_SECTOR_SIZE); /* optimal unmap granularity */
    put_be32(page + 32, UINT32_C(1) << 31);                /* UGAVALID, alignment 0 */
    put_be64(page + 36, SCSI_WRITE_SAME_SECTORS_MAX);
    put_be32(page + 44, LUN_ATOMIC_MAX);
    put_be32(page + 48, SCSI_ATOMIC_ALIGNMENT);
    put_be32(page + 52, SCSI_ATOMIC_GRANULARITY);
    return 60;
}

static size_t fill_characteristics(const struct scsi_command *command, uint8_t *page)
{
    put_be16(page + 4, 1); /* non-rotating */
    page[7] = 0x40;        /* WABEREQ 01b: after SANITIZE's block erase reads succeed, and read zeros */
    return 60;
}

static size_t fill_provisioning(const struct scsi_command *command, uint8_t *page)
{
    page[5] = 0x80 | 0x40 | 0x20 | 0x04; /* LBPU, LBPWS, LBPWS10, LBPRZ */
    page[6] = 0x02;                      /* thin */
    return 4;
}

static size_t fill_third_party_copy(const struct scsi_command *command, uint8_t *page)
{
    return scsi_copy_fill_page(page + 4);
}

static const struct vpd_page vpd_pages[] = {
    {0x00, fill_supported_pages}, {0x80, fill_serial},          {0x83, fill_identification}, {0x86, fill_extended_inquiry},
    {0x8f, fill_third_party_copy},
    {0xb0, fill_block_limits},    {0xb1, fill_characteristics}, {0xb2, fill_provisioning},
};

static size_t fill_supported_pages(const struct scsi_command *command, uint8_t *page)
{
    size_t count = sizeof(vpd_pages) / sizeof(vpd_pages[0]);
    for (size_t i = 0; i < count; i++)
        page[4 + i] = vpd_pages[i].code;
    return count;
}

static bool inquire_vpd(struct scsi_command *command)
{
    for (size_t i = 0; i < sizeof(vpd_pages) / sizeof(vpd_pages[0]); i++) {
        if (vpd_pages[i].code != command->cdb[2])
            continue;
        command->data[1] = command->cdb[2];
        size_t size = vpd_pages[i].fill(command, command->data);
        put_be16(command->data + 2, (uint16_t)size);
        return scsi_reply(command, 4 + size);
    }
    return scsi_fail_cdb(command, 2, -1);
}

static bool inquire_standard(struct scsi_command *command)
{
    static const uint16_t versions[] = {0x00a0 /* SAM-5 */, 0x0960 /* iSCSI */, 0x0460 /* SPC-4 */, 0x04c0 /* SBC-3 */};
    uint8_t *data = command->data;
    if (!scsi_lun_exists(command))
        data[0] = 0x7f; /* no device here, and none possible */
    data[2] = 0x06;     /* SPC-4 */
    data[3] = 0x12;     /* HISUP, response data format 2 */
    data[4] = 96 - 5;
    data[5] = 0x10 | 0x08; /* TPGS: implicit asymmetric access; 3PC: EXTENDED COPY */
    data[7] = 0x02; /* CMDQUE */
    memcpy(data + 8, VENDOR PRODUCT REVISION, 28);
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
        put_be16(data + 58 + 2 * i, versions[i]);
    return scsi_reply(command, 96);
}

bool scsi_execute_inquiry(struct scsi_command *command)
{
    if (command->cdb[1] & 0x02) /* CMDDT, obsolete */
        return scsi_fail_cdb(command, 1, 1);
    if (!(command->cdb[1] & 0x01))
        return command->cdb[2] ? scsi_fail_cdb(command, 2, -1) : inquire_standard(command);
    if (!scsi_lun_exists(command))
        return scsi_fail(command, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_LOGICAL_UNIT_NOT_SUPPORTED);
    return inquire_vpd(command);
}
