/* Everything a pool writes to its disks: the one home of on-disk structs. docs/format.md shows it on one page.
 *
 * All numbers are little-endian. All places and sizes are multiples of 4096 bytes. A disk, in bytes:
 *
 *       0              superblock, slot 0                                  4096
 *       65536          superblock, slot 1                                  4096
 *   disk 0 only:
 *       131072         catalogue of volumes, slot 0                        65536
 *       196608         catalogue of volumes, slot 1                        65536
 *       1048576        group records: 64 x {slot 0, slot 1}                64 x 2 x 65536
 *       9437184        journal                                             superblock.journal_blocks x 4096
 *   every disk, at the places its superblock names:
 *       table_offset      extent descriptors: 42 per block, {slot 0, slot 1} per block
 *       checksum_offset   checksums: 3 extents per block, {slot 0, slot 1} per block
 *       data_offset       extents, 1 MiB each, aligned to 1 MiB
 *
 * What has two slots is replaced by overwriting the older one. A slot is valid when
 *   1. its magic is right, 2. its pool id is that of the pool, 3. its checksum is right;
 * of two valid ones that with the higher sequence counts. A write that is torn by a crash leaves the other slot.
 * An extent descriptor block whose slots are both invalid counts as empty if one of them is all zeros (never written),
 * otherwise the pool is damaged and is not opened. A checksum block without a valid slot counts as zeros: what is read
 * under it then fails its check.
 *
 * The journal is a ring. A log sequence number (LSN) counts its 4 KiB blocks from the pool's beginning; the block with
 * number n lies at journal_offset + (n mod journal_blocks) * 4096. Replay begins at superblock.tail_lsn and ends at the
 * first record that is not valid. A record is valid when
 *   1. its magic, 2. its journal id (new at each opening of the pool), 3. its own LSN, 4. its header's checksum,
 *   5. the checksum of each of its data blocks are right.
 * A record does not cross the end of the ring: a PAD record covers what is left there. */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "common/id.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "on-disk numbers are little-endian");

#define FORMAT_VERSION 1u
#define FORMAT_BLOCK 4096u
#define FORMAT_SLOT 65536u
#define FORMAT_EXTENT (1u << 20)
#define FORMAT_EXTENT_BLOCKS (FORMAT_EXTENT / FORMAT_BLOCK)
#define FORMAT_DISKS_MAX 16
#define FORMAT_GROUPS_MAX 64
#define FORMAT_VOLUMES_MAX 256
#define FORMAT_RECORD_BLOCKS_MAX 257u

#define FORMAT_SUPER_OFFSET(slot) ((uint64_t)(slot) * 65536)
#define FORMAT_CATALOGUE_OFFSET(slot) (131072 + (uint64_t)(slot) * FORMAT_SLOT)
#define FORMAT_GROUP_OFFSET(group, slot) (1048576 + ((uint64_t)(group) * 2 + (slot)) * FORMAT_SLOT)
#define FORMAT_GROUP_END FORMAT_GROUP_OFFSET(FORMAT_GROUPS_MAX, 0)

#define FORMAT_SUPER_MAGIC UINT64_C(0x314c4f4f50494348)     /* "HCIPOOL1" */
#define FORMAT_CATALOGUE_MAGIC UINT64_C(0x31474c5443494348) /* "HCICTLG1" */
#define FORMAT_GROUP_MAGIC UINT64_C(0x3150555247494348)     /* "HCIGRUP1" */
#define FORMAT_TABLE_MAGIC UINT64_C(0x314c425443494348)     /* "HCICTBL1", both tables; `kind` tells them apart */
#define FORMAT_RECORD_MAGIC UINT64_C(0x31444345524a4348)    /* "HCJRECD1" */

/* --- superblock: who this disk is, where things lie, where replay begins ---------------------------------------- */

/* The session that the journal last saw of a group, and its highest sequence. */
struct format_seen {
    struct id group;
    struct id session;
    uint64_t highest;
};
static_assert(sizeof(struct format_seen) == 40, "format_seen");

struct format_super {
    uint64_t magic;           /*    0 */
    uint32_t version;         /*    8 */
    uint32_t crc;             /*   12: CRC32C of the 4096 bytes with this field 0 */
    struct id pool;           /*   16 */
    struct id disk;           /*   32 */
    struct id node;           /*   48 */
    uint64_t sequence;        /*   64 */
    uint32_t disk_index;      /*   72 */
    uint32_t disk_count;      /*   76 */
    uint64_t disk_bytes;      /*   80 */
    uint64_t table_offset;    /*   88 */
    uint64_t checksum_offset; /*   96 */
    uint64_t data_offset;     /*  104 */
    uint32_t extent_count;    /*  112 */
    uint32_t reserved0;       /*  116 */
    /* disk 0 only; zeros on others */
    uint64_t journal_offset;  /*  120 */
    uint64_t journal_blocks;  /*  128 */
    uint64_t tail_lsn;        /*  136 */
    struct id journal;        /*  144: records of other ids are old */
    uint8_t reserved1[96];    /*  160 */
    struct format_seen seen[FORMAT_GROUPS_MAX]; /* 256 */
    uint64_t committed[FORMAT_GROUPS_MAX]; /* 2816: of seen[], what is known to be durable on both nodes */
    uint8_t reserved2[768];   /* 3328 */
};
static_assert(sizeof(struct format_super) == FORMAT_BLOCK, "format_super");
static_assert(offsetof(struct format_super, pool) == 16, "format_super.pool");
static_assert(offsetof(struct format_super, table_offset) == 88, "format_super.table_offset");
static_assert(offsetof(struct format_super, journal) == 144, "format_super.journal");
static_assert(offsetof(struct format_super, seen) == 256, "format_super.seen");

/* --- catalogue and group records: one write replaces the whole -------------------------------------------------- */

struct format_slot {
    uint64_t magic;       /*  0 */
    uint32_t version;     /*  8 */
    uint32_t crc;         /* 12: CRC32C of this header with the field 0 and the `size` bytes behind it */
    struct id pool;       /* 16 */
    struct id group;      /* 32: group records; zeros in the catalogue */
    uint64_t sequence;    /* 48 */
    uint32_t size;        /* 56: of what follows, at byte 64 */
    uint32_t used;        /* 60: group records: 1, or 0 when the record was deleted */
};
static_assert(sizeof(struct format_slot) == 64, "format_slot");
static_assert(offsetof(struct format_slot, sequence) == 48, "format_slot.sequence");

/* The catalogue is an array of these. */
struct format_volume {
    struct id volume;     /*  0 */
    struct id group;      /* 16 */
    uint64_t size_bytes;  /* 32 */
    uint64_t created_lsn; /* 40: older records with this volume's id are of an earlier life of it */
};
static_assert(sizeof(struct format_volume) == 48, "format_volume");
static_assert(FORMAT_VOLUMES_MAX * sizeof(struct format_volume) <= FORMAT_SLOT - sizeof(struct format_slot),
              "catalogue fits");

/* --- tables ------------------------------------------------------------------------------------------------------ */

enum format_table_kind { FORMAT_DESCRIPTORS = 1, FORMAT_CHECKSUMS = 2 };

struct format_table_header {
    uint64_t magic;         /*  0 */
    uint32_t kind;          /*  8: enum format_table_kind */
    uint32_t crc;           /* 12: CRC32C of the 4096 bytes with this field 0 */
    struct id pool;         /* 16 */
    uint64_t index;         /* 32: of the block in its table */
    uint64_t sequence;      /* 40 */
    uint32_t disk_index;    /* 48 */
    uint8_t reserved[12];   /* 52 */
};
static_assert(sizeof(struct format_table_header) == 64, "format_table_header");
static_assert(offsetof(struct format_table_header, sequence) == 40, "format_table_header.sequence");

enum format_extent_state { FORMAT_EXTENT_FREE = 0, FORMAT_EXTENT_USED = 1 };

struct format_descriptor {
    struct id volume;     /*  0 */
    uint32_t logical;     /* 16: which extent of the volume */
    uint32_t state;       /* 20: enum format_extent_state */
    uint64_t written[4];  /* 24: bit 0: the block was never written and reads zeros */
    uint64_t dirty[4];    /* 56: bit 1: the block may differ from the peer's copy */
    uint64_t reserved;    /* 88 */
};
static_assert(sizeof(struct format_descriptor) == 96, "format_descriptor");
static_assert(offsetof(struct format_descriptor, dirty) == 56, "format_descriptor.dirty");

#define FORMAT_DESCRIPTORS_PER_BLOCK 42u
#define FORMAT_CHECKSUMS_PER_BLOCK 3u /* extents */

struct format_descriptor_block {
    struct format_table_header header;
    struct format_descriptor descriptors[FORMAT_DESCRIPTORS_PER_BLOCK];
};
static_assert(sizeof(struct format_descriptor_block) == FORMAT_BLOCK, "format_descriptor_block");

struct format_checksum_block {
    struct format_table_header header;
    uint32_t checksums[FORMAT_CHECKSUMS_PER_BLOCK][FORMAT_EXTENT_BLOCKS]; /* CRC32C of volume id, block number, data */
    uint8_t reserved[960];
};
static_assert(sizeof(struct format_checksum_block) == FORMAT_BLOCK, "format_checksum_block");

/* --- journal ------------------------------------------------------------------------------------------------------ */

enum format_record_type {
    FORMAT_RECORD_PAD = 1,   /* nothing; `blocks` reaches the end of the ring */
    FORMAT_RECORD_WRITE = 2, /* `count` data blocks follow the header */
    FORMAT_RECORD_ZERO = 3,  /* `count` blocks read zeros from here on */
    FORMAT_RECORD_DIRTY = 4, /* `count` blocks may differ from the peer's copy */
};
enum format_record_flag {
    FORMAT_RECORD_IS_DIRTY = 1, /* R3: what it writes differs from the peer's copy */
    FORMAT_RECORD_IS_COPY = 2,  /* R6, R7: brings this copy up to date; the peer has no record of that number */
};

struct format_record {
    uint64_t magic;          /*   0 */
    uint32_t type;           /*   8: enum format_record_type */
    uint32_t crc;            /*  12: CRC32C of the 4096 bytes with this field 0 */
    struct id journal;       /*  16 */
    uint64_t lsn;            /*  32 */
    uint32_t blocks;         /*  40: length in the ring, the header included */
    uint32_t flags;          /*  44: enum format_record_flag */
    struct id group;         /*  48 */
    struct id session;       /*  64: zeros: no session's write */
    uint64_t sequence;       /*  80: in the session's stream */
    struct id commit_session;/*  88: the group's session when the record was made, and up to where it was committed */
    uint64_t commit_upto;    /* 104 */
    struct id volume;        /* 112 */
    uint64_t block;          /* 128 */
    uint64_t count;          /* 136 */
    uint8_t reserved0[112];  /* 144 */
    uint32_t checksums[FORMAT_RECORD_BLOCKS_MAX]; /* 256: of the data blocks, as in the checksum table */
    uint8_t reserved1[2812]; /* 1284 */
};
static_assert(sizeof(struct format_record) == FORMAT_BLOCK, "format_record");
static_assert(offsetof(struct format_record, session) == 64, "format_record.session");
static_assert(offsetof(struct format_record, volume) == 112, "format_record.volume");
static_assert(offsetof(struct format_record, checksums) == 256, "format_record.checksums");
