/* Everything a pool writes to its disks: the one home of on-disk structs. docs/format.md shows it on one page.
 *
 * All numbers are little-endian. All places and sizes are multiples of 4096 bytes. Every disk stands alone:
 *
 *       0              superblock, slot 0                                  4096
 *       65536          superblock, slot 1                                  4096
 *       131072         catalogue of volumes, slot 0                        65536
 *       196608         catalogue of volumes, slot 1                        65536
 *       1048576        group records: 64 x {slot 0, slot 1}                64 x 2 x 65536
 *       9437184        journal                                             superblock.journal_blocks x 4096
 *   and at the places its superblock names:
 *       table_offset      extent descriptors: 31 per block, {slot 0, slot 1} per block
 *       checksum_offset   checksums: 3 extents per block, {slot 0, slot 1} per block
 *       data_offset       extents, 1 MiB each, aligned to 1 MiB
 *
 * The catalogue and the group records are the same on all disks: of all valid copies that with the highest sequence
 * counts, so the loss of a disk costs only the extents on it. So it is with the superblocks' table of disks
 * (table_sequence). The journal of a disk holds what concerns the extents of that disk, and nothing else.
 *
 * What has two slots is replaced by overwriting the older one; of the catalogue and the group records sequence n goes
 * to slot n mod 2. A slot is valid when
 *   1. its magic is right, 2. its pool id is that of the pool, 3. its checksum is right;
 * of two valid ones that with the higher sequence counts. A write that is torn by a crash leaves the other slot.
 * An extent descriptor block whose slots are both invalid counts as empty if one of them is all zeros (never written),
 * otherwise the pool is damaged and is not opened. A checksum block without a valid slot counts as zeros: what is read
 * under it then fails its check.
 *
 * A superblock slot that is not valid was either torn, or it was whole once and rotted. To go on from the older slot is
 * right in the first case, and in the second as long as no record was written since: all records from the older tail on
 * are then still in the ring, and no extent that one of them names has changed hands (extents are given back only when
 * no record from the tail on names them). A record tells the sequence of the superblock it was written under: if one
 * tells a higher one than the older slot's, the newer one was whole, and the ring may have been overwritten behind the
 * older tail: the pool is then not opened.
 *
 * The journal is a ring. A log sequence number (LSN) counts its 4 KiB blocks from the disk's making; the block with
 * number n lies at journal_offset + (n mod journal_blocks) * 4096. Replay begins at superblock.tail_lsn. A record is
 * header blocks full of entries, then the data blocks of those entries. It is valid when
 *   1. its magic, 2. its journal id (new at each opening of the pool), 3. its own LSN, 4. its header's checksum (over
 *   all header blocks), 5. the checksum of each of its data blocks are right.
 * Replay ends at the first record that is not valid, unless a valid record further on says (settled_lsn) that it had
 * been acknowledged: then it is not torn but rotten. With a whole header its rotten data blocks become lost blocks and
 * replay goes on behind it; without one the pool is not opened, for acknowledged writes would be gone.
 * A record does not cross the end of the ring: a PAD record covers what is left there.
 *
 * An extent's `birth` is a number that grows with every handing out in the pool. Of several extents that claim the same
 * place of a volume, or of several owners of an extent, that with the highest birth counts. */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "common/id.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "on-disk numbers are little-endian");

#define FORMAT_VERSION 2u
#define FORMAT_BLOCK 4096u
#define FORMAT_SLOT 65536u
#define FORMAT_EXTENT (1u << 20)
#define FORMAT_EXTENT_BLOCKS (FORMAT_EXTENT / FORMAT_BLOCK)
#define FORMAT_DISKS_MAX 16
#define FORMAT_GROUPS_MAX 64
#define FORMAT_VOLUMES_MAX 256

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

/* The session that the journals last saw of a group, and its highest sequence. Of those that several disks tell the
 * one with the highest order counts. */
struct format_seen {
    struct id group;
    struct id session;
    uint64_t highest;
    uint64_t order;     /* grows with every session that is new to the pool */
    uint64_t committed; /* what is known to be durable on both nodes */
};
static_assert(sizeof(struct format_seen) == 56, "format_seen");

/* LOST: what it held may not be known to be lost yet: until it is GONE, holes of all volumes count as lost at opening. */
enum format_disk_state { FORMAT_DISK_NONE = 0, FORMAT_DISK_OK = 1, FORMAT_DISK_DRAINING = 2, FORMAT_DISK_LOST = 3, FORMAT_DISK_GONE = 4 };
enum format_super_flag { FORMAT_SUPER_CLEAN = 1 /* nothing was journaled since: there is nothing to replay */ };

struct format_super {
    uint64_t magic;           /*    0 */
    uint32_t version;         /*    8 */
    uint32_t crc;             /*   12: CRC32C of the 4096 bytes with this field 0 */
    struct id pool;           /*   16 */
    struct id disk;           /*   32 */
    struct id node;           /*   48 */
    uint64_t sequence;        /*   64 */
    uint16_t disk_index;      /*   72 */
    uint16_t flags;           /*   74: enum format_super_flag */
    uint32_t extent_count;    /*   76 */
    uint64_t disk_bytes;      /*   80 */
    uint64_t table_offset;    /*   88 */
    uint64_t checksum_offset; /*   96 */
    uint64_t data_offset;     /*  104 */
    uint64_t journal_offset;  /*  112 */
    uint64_t journal_blocks;  /*  120 */
    uint64_t tail_lsn;        /*  128 */
    struct id journal;        /*  136: records of other ids are old */
    uint64_t birth;           /*  152: no extent was handed out with a higher number when this was written */
    uint64_t table_sequence;  /*  160: of the table of disks that follows */
    uint64_t reserved0;       /*  168 */
    struct id disks[FORMAT_DISKS_MAX];         /*  176: by disk index */
    uint8_t disk_states[FORMAT_DISKS_MAX];     /*  432: enum format_disk_state */
    uint8_t reserved1[64];                     /*  448 */
    struct format_seen seen[FORMAT_GROUPS_MAX];/*  512 */
};
static_assert(sizeof(struct format_super) == FORMAT_BLOCK, "format_super");
static_assert(offsetof(struct format_super, pool) == 16, "format_super.pool");
static_assert(offsetof(struct format_super, table_offset) == 88, "format_super.table_offset");
static_assert(offsetof(struct format_super, journal) == 136, "format_super.journal");
static_assert(offsetof(struct format_super, disks) == 176, "format_super.disks");
static_assert(offsetof(struct format_super, seen) == 512, "format_super.seen");

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
    uint32_t life;        /* 40: descriptors and entries of other lives are of an earlier volume of this id */
    uint32_t flags;       /* 44: enum format_volume_flag */
};
/* HOLES_LOST: an extent that the volume does not have may be one that a lost disk took along: its blocks are lost. */
enum format_volume_flag { FORMAT_VOLUME_HOLES_LOST = 1 };
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

struct format_descriptor {
    struct id volume;     /*   0 */
    uint32_t logical;     /*  16: which extent of the volume */
    uint32_t life;        /*  20: of the volume */
    uint64_t written[4];  /*  24: bit 0: the block was never written and reads zeros */
    uint64_t dirty[4];    /*  56: bit 1: the block may differ from the peer's copy */
    uint64_t lost[4];     /*  88: bit 1: the block's content is lost; reads fail until it is written */
    uint64_t birth;       /* 120: 0: the extent is free */
};
static_assert(sizeof(struct format_descriptor) == 128, "format_descriptor");
static_assert(offsetof(struct format_descriptor, dirty) == 56, "format_descriptor.dirty");
static_assert(offsetof(struct format_descriptor, birth) == 120, "format_descriptor.birth");

#define FORMAT_DESCRIPTORS_PER_BLOCK 31u
#define FORMAT_CHECKSUMS_PER_BLOCK 3u /* extents */

struct format_descriptor_block {
    struct format_table_header header;
    struct format_descriptor descriptors[FORMAT_DESCRIPTORS_PER_BLOCK];
    uint8_t reserved[64];
};
static_assert(sizeof(struct format_descriptor_block) == FORMAT_BLOCK, "format_descriptor_block");

struct format_checksum_block {
    struct format_table_header header;
    uint32_t checksums[FORMAT_CHECKSUMS_PER_BLOCK][FORMAT_EXTENT_BLOCKS]; /* CRC32C of volume id, block number, data */
    uint8_t reserved[960];
};
static_assert(sizeof(struct format_checksum_block) == FORMAT_BLOCK, "format_checksum_block");

/* --- journal ------------------------------------------------------------------------------------------------------ */

#define FORMAT_RECORD_HEADER_MAX 8u /* blocks */
#define FORMAT_RECORD_DATA_MAX 256u /* blocks */

enum format_record_type {
    FORMAT_RECORD_PAD = 1,     /* nothing; `blocks` reaches the end of the ring */
    FORMAT_RECORD_ENTRIES = 2,
};

struct format_record {
    uint64_t magic;          /*  0 */
    uint32_t type;           /*  8: enum format_record_type */
    uint32_t crc;            /* 12: CRC32C of all header blocks with this field 0 */
    struct id journal;       /* 16 */
    uint64_t lsn;            /* 32 */
    uint64_t settled_lsn;    /* 40: everything below had been acknowledged, what goes to its place included */
    uint64_t super_sequence; /* 48: of the disk's superblock at that time */
    uint32_t blocks;         /* 56: length in the ring, the header included */
    uint32_t header_blocks;  /* 60 */
    uint32_t entry_count;    /* 64 */
    uint32_t entries_bytes;  /* 68: of the entries behind this */
    uint8_t reserved[24];    /* 72 */
};
static_assert(sizeof(struct format_record) == 96, "format_record");
static_assert(offsetof(struct format_record, settled_lsn) == 40, "format_record.settled_lsn");

enum format_entry_kind {
    FORMAT_ENTRY_WRITE = 1,  /* `count` data blocks, in the record from its data block `data` on, and their checksums */
    FORMAT_ENTRY_ZERO = 2,   /* `count` blocks read zeros from here on */
    FORMAT_ENTRY_DIRTY = 3,  /* `count` blocks may differ from the peer's copy */
    FORMAT_ENTRY_INTENT = 4, /* `count` blocks with these checksums are about to be written to their place */
    FORMAT_ENTRY_MOVE = 5,   /* the volume's extent is this one now: FORMAT_MOVE_WORDS behind the entry tell all of it */
};
enum format_entry_flag {
    FORMAT_ENTRY_IS_DIRTY = 1,      /* R3: what it writes differs from the peer's copy */
    FORMAT_ENTRY_IS_COPY = 2,       /* R6, R7: brings this copy up to date; the peer has no record of that number */
    FORMAT_ENTRY_IS_UNMIRRORED = 4, /* there is no other copy it could differ from */
};

#define FORMAT_NO_EXTENT UINT32_MAX

/* All of an entry lies in one extent. WRITE and INTENT: `count` checksums follow it; the next entry begins at a
 * multiple of 8 bytes. */
struct format_entry {
    uint16_t kind;            /*   0: enum format_entry_kind */
    uint16_t flags;           /*   2: enum format_entry_flag */
    uint32_t count;           /*   4 */
    uint64_t block;           /*   8: in the volume */
    struct id volume;         /*  16 */
    uint32_t life;            /*  32: of the volume */
    uint32_t extent;          /*  36: on this disk; FORMAT_NO_EXTENT: ZERO where there was none */
    uint64_t birth;           /*  40: of the extent */
    struct id group;          /*  48 */
    struct id session;        /*  64: zeros: no session's write */
    uint64_t sequence;        /*  80: in the session's stream */
    uint64_t order;           /*  88: of the session, as in format_seen */
    uint64_t commit_upto;     /*  96: the group's session when the record was made, and up to where it was committed */
    struct id commit_session; /* 104 */
    uint32_t data;            /* 120 */
    uint32_t reserved;        /* 124 */
};
static_assert(sizeof(struct format_entry) == 128, "format_entry");
static_assert(offsetof(struct format_entry, session) == 64, "format_entry.session");
static_assert(offsetof(struct format_entry, data) == 120, "format_entry.data");

/* MOVE: the checksums of all blocks of the extent, then its bits: written, dirty, lost (4 x 8 bytes each). */
#define FORMAT_MOVE_WORDS (FORMAT_EXTENT_BLOCKS + 24u)

/* Of an entry with so many checksums. */
#define FORMAT_ENTRY_BYTES(checksums) (sizeof(struct format_entry) + ((checksums) + 1ull) / 2 * 8)
