/* The command line of iscsi_load. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/load.h"

static const char help[] =
    "usage: iscsi_load [OPTION]… iscsi://[USER%SECRET@]HOST:PORT/IQN/LUN\n"
    "  --pattern rand|seq     where the next command goes (rand)\n"
    "  --write PERCENT        share of writes; the others are reads (0)\n"
    "  --depth N              commands under way at a time (1)\n"
    "  --block BYTES          size of a command, a multiple of 4096 up to 4 MiB (4096)\n"
    "  --offset BYTES, --span BYTES   part of the LUN to use (all of it)\n"
    "  --seconds S            how long to measure (10); --warmup S before it\n"
    "  --total BYTES          ends after so many bytes, too (no limit)\n"
    "  --seed N               makes the same places and contents again (1)\n"
    "  --verify               every 4 KiB carries its address, version and checksum; reads are compared\n"
    "  --state FILE           keeps what was acknowledged across runs\n"
    "  --check                only reads the span once and compares it with the state file\n"
    "  --blank                what was never written must read as zeros\n"
    "  --reconnect            makes a lost connection again; without it a loss ends the run (exit status 3)\n"
    "  --stall S              fails after so long without any answer (60)\n"
    "  --initiator IQN        the name to log in with\n"
    "Sizes may end in K, M, G. Prints one JSON object. "
    "Exit status: 0, 1 errors or wrong data, 2 usage, 3 connection lost.\n";

enum { PATTERN = 1, WRITE, DEPTH, BLOCK, OFFSET, SPAN, SECONDS, WARMUP, TOTAL, SEED, VERIFY, STATE, CHECK, BLANK,
       RECONNECT, STALL, INITIATOR, HELP };

static const struct option table[] = {
    {"pattern", 1, NULL, PATTERN},     {"write", 1, NULL, WRITE},     {"depth", 1, NULL, DEPTH},
    {"block", 1, NULL, BLOCK},         {"offset", 1, NULL, OFFSET},   {"span", 1, NULL, SPAN},
    {"seconds", 1, NULL, SECONDS},     {"warmup", 1, NULL, WARMUP},   {"total", 1, NULL, TOTAL},
    {"seed", 1, NULL, SEED},           {"verify", 0, NULL, VERIFY},   {"state", 1, NULL, STATE},
    {"check", 0, NULL, CHECK},         {"blank", 0, NULL, BLANK},     {"reconnect", 0, NULL, RECONNECT},
    {"stall", 1, NULL, STALL},         {"initiator", 1, NULL, INITIATOR}, {"help", 0, NULL, HELP},
    {0},
};

static void fail(const char *what, const char *value)
{
    fprintf(stderr, "iscsi_load: %s '%s'; --help says what is allowed\n", what, value);
    exit(2);
}

static uint64_t size_of(const char *text, uint64_t least, uint64_t most)
{
    static const char units[] = "KMG";
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (end == text || (*end && (!unit || end[1])))
        fail("no size:", text);
    if (unit)
        value <<= 10 * (unit - units + 1);
    if (value < least || value > most)
        fail("out of range:", text);
    return value;
}

static double seconds_of(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || value < 0 || value > 86400)
        fail("no number of seconds:", text);
    return value;
}

static void take_size(struct load_options *ret, int option)
{
    switch (option) {
    case WRITE: ret->write_percent = (unsigned)size_of(optarg, 0, 100); break;
    case DEPTH: ret->depth = (unsigned)size_of(optarg, 1, LOAD_DEPTH_MAX); break;
    case BLOCK: ret->block_bytes = (uint32_t)size_of(optarg, LOAD_BLOCK, LOAD_BYTES_MAX); break;
    case OFFSET: ret->offset_bytes = size_of(optarg, 0, INT64_MAX); break;
    case SPAN: ret->span_bytes = size_of(optarg, LOAD_BLOCK, INT64_MAX); break;
    case TOTAL: ret->total_bytes = size_of(optarg, 1, INT64_MAX); break;
    default: ret->seed = size_of(optarg, 0, INT64_MAX); break;
    }
}

static void take(struct load_options *ret, int option)
{
    switch (option) {
    case PATTERN:
        if (strcmp(optarg, "rand") != 0 && strcmp(optarg, "seq") != 0)
            fail("no such pattern:", optarg);
        ret->random = optarg[0] == 'r';
        break;
    case SECONDS: ret->seconds = seconds_of(optarg); break;
    case WARMUP: ret->warmup_seconds = seconds_of(optarg); break;
    case STALL: ret->stall_seconds = seconds_of(optarg); break;
    case VERIFY: ret->verify = true; break;
    case STATE: ret->state = optarg; break;
    case CHECK: ret->check = ret->verify = true; break;
    case BLANK: ret->blank = true; break;
    case RECONNECT: ret->reconnect = true; break;
    case INITIATOR: ret->initiator = optarg; break;
    case HELP: fputs(help, stdout); exit(0);
    case '?': exit(2);
    default: take_size(ret, option); break;
    }
}

void load_options_parse(struct load_options *ret, int argc, char **argv)
{
    int option;
    *ret = (struct load_options){.random = true, .depth = 1, .block_bytes = LOAD_BLOCK, .seconds = 10, .seed = 1,
                                 .stall_seconds = 60, .initiator = "iqn.2026-01.io.hci:iscsi-load"};
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1)
        take(ret, option);
    if (optind != argc - 1)
        fail("one URL is needed, not", optind < argc ? argv[optind + 1] : "");
    ret->url = argv[optind];
    if (ret->block_bytes % LOAD_BLOCK || ret->offset_bytes % LOAD_BLOCK || ret->span_bytes % LOAD_BLOCK)
        fail("no multiple of 4096:", "--block, --offset or --span");
    if (ret->check) {
        ret->random = false;
        ret->write_percent = 0;
    }
}
