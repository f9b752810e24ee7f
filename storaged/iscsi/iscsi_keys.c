/* The table of operational keys, their kinds and limits, and the negotiation by it. */
#include "storaged/iscsi/iscsi_keys.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define DEFAULT_BURST 262144u
#define DEFAULT_FIRST_BURST 65536u

enum key_kind {
    KEY_DIGEST,      /* list of None, CRC32C: the initiator's first choice */
    KEY_AND, KEY_OR, /* Yes or No, RFC 7143 §6.2.2 */
    KEY_MINIMUM, KEY_MAXIMUM,
    KEY_DECLARED,    /* the initiator's own value; no answer */
    KEY_INFORMATION, /* text of no consequence; no answer */
    KEY_REPORTING,   /* list of ways to report tasks: the one of RFC 3720, which is the default */
    KEY_REJECTED,    /* obsolete, or not for this phase */
};

/* When a key may be offered, besides at login */
enum key_flags {
    KEY_NORMAL_ONLY = 1, /* means nothing in a discovery session: Irrelevant */
    KEY_ALWAYS = 2,      /* in full feature phase, too, as often as wanted */
};

struct key {
    const char *name;
    enum key_kind kind;
    uint32_t low, high, ours; /* for numbers; KEY_AND and KEY_OR use ours as a boolean */
    size_t offset;            /* of the result in struct iscsi_parameters; 0: not needed */
    unsigned flags;
};

#define AT(member) offsetof(struct iscsi_parameters, member)
static const struct key keys[] = {
    {"HeaderDigest", KEY_DIGEST, 0, 0, 0, AT(header_digest), 0},
    {"DataDigest", KEY_DIGEST, 0, 0, 0, AT(data_digest), 0},
    {"InitialR2T", KEY_OR, 0, 0, false, AT(initial_r2t), KEY_NORMAL_ONLY},
    {"ImmediateData", KEY_AND, 0, 0, true, AT(immediate_data), KEY_NORMAL_ONLY},
    {"MaxRecvDataSegmentLength", KEY_DECLARED, 512, 0xffffff, 0, AT(send_segment_max), KEY_ALWAYS},
    {"MaxBurstLength", KEY_MINIMUM, 512, 0xffffff, ISCSI_BURST_MAX, AT(burst_max), KEY_NORMAL_ONLY},
    {"FirstBurstLength", KEY_MINIMUM, 512, 0xffffff, ISCSI_FIRST_BURST_MAX, AT(first_burst_max), KEY_NORMAL_ONLY},
    {"MaxConnections", KEY_MINIMUM, 1, 65535, 1, 0, KEY_NORMAL_ONLY},
    {"MaxOutstandingR2T", KEY_MINIMUM, 1, 65535, ISCSI_R2TS_MAX, AT(r2t_max), KEY_NORMAL_ONLY},
    {"DefaultTime2Wait", KEY_MAXIMUM, 0, 3600, 2, 0, 0},
    {"DefaultTime2Retain", KEY_MINIMUM, 0, 3600, 0, 0, 0}, /* error recovery level 0: nothing is kept */
    {"ErrorRecoveryLevel", KEY_MINIMUM, 0, 2, 0, 0, 0},
    {"DataPDUInOrder", KEY_OR, 0, 0, true, 0, KEY_NORMAL_ONLY},
    {"DataSequenceInOrder", KEY_OR, 0, 0, true, 0, KEY_NORMAL_ONLY},
    {"TaskReporting", KEY_REPORTING, 0, 0, 0, 0, KEY_NORMAL_ONLY},
    {"iSCSIProtocolLevel", KEY_MINIMUM, 0, 31, 1, 0, KEY_NORMAL_ONLY}, /* 1: RFC 7143 */
    {"IFMarker", KEY_AND, 0, 0, false, 0, 0},
    {"OFMarker", KEY_AND, 0, 0, false, 0, 0},
    {"IFMarkInt", KEY_REJECTED, 0, 0, 0, 0, 0},
    {"OFMarkInt", KEY_REJECTED, 0, 0, 0, 0, 0},
    {"SendTargets", KEY_REJECTED, 0, 0, 0, 0, 0},  /* at login; in full feature phase it is taken before */
    {"AuthMethod", KEY_REJECTED, 0, 0, 0, 0, 0},   /* after its stage */
    {"TargetAlias", KEY_REJECTED, 0, 0, 0, 0, 0},  /* these are the target's to say */
    {"TargetAddress", KEY_REJECTED, 0, 0, 0, 0, 0},
    {"TargetPortalGroupTag", KEY_REJECTED, 0, 0, 0, 0, 0},
    {"InitiatorAlias", KEY_INFORMATION, 0, 0, 0, 0, KEY_ALWAYS},
    {"InitiatorName", KEY_INFORMATION, 0, 0, 0, 0, 0},
    {"TargetName", KEY_INFORMATION, 0, 0, 0, 0, 0},
    {"SessionType", KEY_INFORMATION, 0, 0, 0, 0, 0},
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))
_Static_assert(KEY_COUNT <= 64, "iscsi_parameters.seen has a bit per key");

void iscsi_parameters_init(struct iscsi_parameters *parameters)
{
    *parameters = (struct iscsi_parameters){
        .initial_r2t = true,
        .immediate_data = true,
        .send_segment_max = ISCSI_LOGIN_SEGMENT_MAX,
        .burst_max = DEFAULT_BURST,
        .first_burst_max = DEFAULT_FIRST_BURST,
        .r2t_max = 1,
    };
}

static void store_bool(struct iscsi_parameters *parameters, const struct key *key, bool value)
{
    if (key->offset)
        *(bool *)((char *)parameters + key->offset) = value;
}

static void store_number(struct iscsi_parameters *parameters, const struct key *key, uint32_t value)
{
    if (key->offset)
        *(uint32_t *)((char *)parameters + key->offset) = value;
}

static int negotiate_digest(struct iscsi_parameters *parameters, const struct key *key, const char *offer,
                            struct iscsi_text_writer *answer)
{
    static const char *const known[] = {"CRC32C", "None", NULL};
    const char *chosen = iscsi_text_list_choose(offer, known);
    /* None is the default (RFC 7143 §13.1): an offer of unknown ones only cannot be met. */
    iscsi_text_put(answer, key->name, "%s", chosen ? chosen : "Reject");
    if (!chosen)
        return -EPROTO;
    bool *enabled = (bool *)((char *)parameters + key->offset);
    *enabled = strcmp(chosen, "CRC32C") == 0;
    return 0;
}

static int negotiate_bool(struct iscsi_parameters *parameters, const struct key *key, const char *offer,
                          struct iscsi_text_writer *answer)
{
    bool yes = strcmp(offer, "Yes") == 0;
    if (!yes && strcmp(offer, "No") != 0)
        return -EPROTO;
    bool result = key->kind == KEY_AND ? yes && key->ours : yes || key->ours;
    iscsi_text_put(answer, key->name, "%s", result ? "Yes" : "No");
    store_bool(parameters, key, result);
    return 0;
}

static int negotiate_number(struct iscsi_parameters *parameters, const struct key *key, const char *offer,
                            struct iscsi_text_writer *answer)
{
    uint32_t value;
    if (iscsi_text_number(offer, &value) < 0 || value < key->low || value > key->high)
        return -EPROTO;
    if (key->kind == KEY_MINIMUM && value > key->ours)
        value = key->ours;
    if (key->kind == KEY_MAXIMUM && value < key->ours)
        value = key->ours;
    if (key->kind != KEY_DECLARED)
        iscsi_text_put(answer, key->name, "%u", value);
    store_number(parameters, key, value);
    return 0;
}

static int negotiate_key(struct iscsi_parameters *parameters, const struct key *key, const char *offer,
                         struct iscsi_text_writer *answer)
{
    if (parameters->discovery && key->flags & KEY_NORMAL_ONLY) {
        iscsi_text_put(answer, key->name, "Irrelevant"); /* RFC 7143 §6.2 */
        return 0;
    }
    switch (key->kind) {
    case KEY_DIGEST:
        return negotiate_digest(parameters, key, offer, answer);
    case KEY_AND:
    case KEY_OR:
        return negotiate_bool(parameters, key, offer, answer);
    case KEY_MINIMUM:
    case KEY_MAXIMUM:
    case KEY_DECLARED:
        return negotiate_number(parameters, key, offer, answer);
    case KEY_INFORMATION:
        return 0;
    case KEY_REPORTING:
        iscsi_text_put(answer, key->name, "%s", iscsi_text_list_has(offer, "RFC3720") ? "RFC3720" : "Reject");
        return 0;
    case KEY_REJECTED:
        iscsi_text_put(answer, key->name, "Reject");
        return 0;
    }
    return -EPROTO;
}

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    }
    return NULL;
}

int iscsi_parameters_negotiate(struct iscsi_parameters *parameters, struct iscsi_text *text, struct iscsi_text_writer *answer)
{
    for (unsigned i = 0; i < text->count; i++) {
        struct iscsi_text_pair *pair = &text->pairs[i];
        const struct key *key = pair->taken ? NULL : find_key(pair->key);
        if (!key) {
            if (!pair->taken)
                iscsi_text_put(answer, pair->key, "NotUnderstood");
            continue;
        }
        uint64_t bit = UINT64_C(1) << (key - keys);
        if (key->kind != KEY_INFORMATION && parameters->seen & bit)
            return -EPROTO;
        parameters->seen |= bit;
        int r = negotiate_key(parameters, key, pair->value, answer);
        if (r < 0)
            return r;
    }
    if (parameters->first_burst_max > parameters->burst_max) /* RFC 7143 §13.14 */
        parameters->first_burst_max = parameters->burst_max;
    return answer->full ? -EPROTO : 0;
}

int iscsi_parameters_renegotiate(struct iscsi_parameters *parameters, struct iscsi_text *text, struct iscsi_text_writer *answer)
{
    for (unsigned i = 0; i < text->count; i++) {
        struct iscsi_text_pair *pair = &text->pairs[i];
        const struct key *key = find_key(pair->key);
        if (pair->taken)
            continue;
        if (!key)
            iscsi_text_put(answer, pair->key, "NotUnderstood");
        else if (!(key->flags & KEY_ALWAYS))
            iscsi_text_put(answer, pair->key, "Reject");
        else if (negotiate_key(parameters, key, pair->value, answer) < 0)
            return -EPROTO;
    }
    return answer->full ? -EPROTO : 0;
}

void iscsi_parameters_declare(struct iscsi_parameters *parameters, struct iscsi_text_writer *answer)
{
    if (parameters->declared)
        return;
    parameters->declared = true;
    iscsi_text_put(answer, "MaxRecvDataSegmentLength", "%u", ISCSI_SEGMENT_MAX);
}
