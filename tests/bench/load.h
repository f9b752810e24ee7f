/* iscsi_load: an initiator that keeps a number of commands under way and says how fast, how late and how true the
 * answers are. Its parts: options, the loop over libiscsi, the table of what was promised, the latencies. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define LOAD_BLOCK 4096u /* what the table and the stamps count in */
#define LOAD_DEPTH_MAX 1024u
#define LOAD_BYTES_MAX (4u << 20)

struct load_options {
    const char *url;
    const char *initiator;
    bool random;
    unsigned write_percent; /* the others are reads */
    unsigned depth;
    uint32_t block_bytes;
    uint64_t offset_bytes, span_bytes; /* span 0: to the end */
    double seconds, warmup_seconds;
    uint64_t total_bytes; /* ends after so much, too; 0: only the time counts */
    uint64_t seed;
    bool verify;       /* blocks carry stamps; reads are compared with the table */
    bool check;        /* read the whole span once and compare; no load */
    bool blank;        /* what was never written must read as zeros */
    bool reconnect;    /* a lost connection is made again, and what was under way sent again */
    double stall_seconds; /* so long without one answer is a failure */
    const char *state; /* file with the table, read at the start when it is there and written at the end */
};

/* Prints what is wrong and ends the program (exit status 2). */
void load_options_parse(struct load_options *ret, int argc, char **argv);

/* Latencies in nanoseconds, counted in 128 steps per power of two: no answer is off by more than 0.8 %. */
#define LOAD_STEPS 128u
struct load_histogram {
    uint64_t counts[58 * LOAD_STEPS];
    uint64_t count, max_ns;
};
void load_histogram_add(struct load_histogram *histogram, uint64_t ns);
/* The latency that `share` (0…1) of all stayed below; 0 when nothing was counted. */
uint64_t load_histogram_at(const struct load_histogram *histogram, double share);

/* What every block of the span was promised to hold. At most one write of a block is under way at a time, so a block
 * holds its acknowledged version, or the one version whose write was never answered. */
struct load_table;
enum load_verdict { LOAD_RIGHT, LOAD_NOT_ZERO, LOAD_NO_STAMP, LOAD_TORN, LOAD_FOREIGN, LOAD_STALE };
/* Reads `options->state` when it exists. NULL, and says why, on failure. */
struct load_table *load_table_new(const struct load_options *options, uint64_t blocks);
int load_table_save(const struct load_table *table, const char *path);
void load_table_free(struct load_table *table);
/* Takes the blocks for one command; false when another has one of them, or when a former write of one is in doubt. */
bool load_table_take(struct load_table *table, uint64_t block, unsigned count);
void load_table_give_back(struct load_table *table, uint64_t block, unsigned count);
/* Fills `data` with the next version of each block; they must be taken. */
void load_table_stamp(struct load_table *table, uint64_t block, unsigned count, void *data);
/* The write was acknowledged; gives the blocks back. What is never acknowledged stays taken and in doubt. */
void load_table_acknowledge(struct load_table *table, uint64_t block, unsigned count);
/* Says on stderr what is wrong with the first few bad blocks. In a check, what was in doubt is settled by what is
 * there. Returns how many are bad. */
unsigned load_table_compare(struct load_table *table, uint64_t block, unsigned count, const void *data);
uint64_t load_table_written(const struct load_table *table);  /* blocks with an acknowledged version */
uint64_t load_table_in_doubt(const struct load_table *table);

struct load_result {
    uint64_t reads, writes; /* answered well, after the warm-up */
    uint64_t answered;      /* all, with those of the warm-up */
    uint64_t blocks_compared, blocks_bad;
    uint64_t errors;
    uint64_t in_doubt; /* blocks whose write was never answered */
    bool lost;         /* the connection broke and was not to be made again */
    double seconds;    /* measured, without the warm-up */
    double cpu_seconds;
    double stall_max_s; /* the longest time without an answer */
    struct load_histogram read_latency, write_latency;
};

/* Logs in, runs, logs out. Returns a process exit status: 0, 1 (errors or wrong data, said on stderr), 3 (lost). */
int load_run(const struct load_options *options, struct load_result *ret);
