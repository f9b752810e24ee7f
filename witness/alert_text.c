/* Puts alerts into words. */
#include "witness/alert_text.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"

static void stamp(time_t when, char ret[static 32])
{
    struct tm utc;
    gmtime_r(&when, &utc);
    strftime(ret, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* "45 s", "12 min", "7 h", "3 days" */
static const char *span(uint64_t seconds, char ret[static 24])
{
    if (seconds < 120)
        snprintf(ret, 24, "%llu s", (unsigned long long)seconds);
    else if (seconds < 7200)
        snprintf(ret, 24, "%llu min", (unsigned long long)seconds / 60);
    else if (seconds < 172800)
        snprintf(ret, 24, "%llu h", (unsigned long long)seconds / 3600);
    else
        snprintf(ret, 24, "%llu days", (unsigned long long)seconds / 86400);
    return ret;
}

struct words {
    const struct alert_change *change;
    const struct alert_facts *facts;
    const struct alert_names *names;
    const char *since, *lasted;
};

static void say_dark(const struct words *words, struct alert *ret)
{
    const struct alert_names *names = words->names;
    if (words->change->raised)
        snprintf(ret->sentence, sizeof ret->sentence,
                 "site '%s' is dark: neither node '%s' nor '%s' has been heard since %s (%s): the site has no power, or no "
                 "line to this witness; written data is safe on its disks, and when only the line is cut its guests run on "
                 "as long as both nodes do; look at the site's power and network, nothing has to be done here",
                 names->site, names->nodes[0], names->nodes[1], words->since, words->lasted);
    else
        snprintf(ret->sentence, sizeof ret->sentence,
                 "site '%s' is heard again, after having been dark since %s (%s); 'hcictl status' on a node says whether all "
                 "is well there", names->site, words->since, words->lasted);
}

static void say_lost(const struct words *words, struct alert *ret)
{
    const struct alert_names *names = words->names;
    unsigned node = words->change->kind == ALERT_NODE_LOST_B;
    const char *lost = names->nodes[node], *other = names->nodes[!node];
    unsigned alone = words->facts->single[!node], stuck = words->facts->single[node];
    char rest[160] = "";
    if (stuck > 0)
        snprintf(rest, sizeof rest, "; %u of them have their only current copy on the lost node and stand still until it is "
                 "back: do not replace its disks", stuck);
    if (words->change->raised)
        snprintf(ret->sentence, sizeof ret->sentence,
                 "site '%s': node '%s' has not been heard since %s (%s), node '%s' is; %u of %u groups of volumes are served "
                 "by '%s' alone%s; the data is safe there, but nothing may happen to '%s' now; look at the power and "
                 "network of '%s': when it is back it catches up by itself", names->site, lost, words->since,
                 words->lasted, other, alone, words->facts->groups, other, rest, other, lost);
    else
        snprintf(ret->sentence, sizeof ret->sentence,
                 "site '%s': node '%s' is heard again, after having been silent since %s (%s); it catches up by itself, "
                 "'hcictl status' there shows how far it is", names->site, lost, words->since, words->lasted);
}

static void say_degraded(const struct words *words, struct alert *ret)
{
    const struct alert_names *names = words->names;
    const struct alert_facts *facts = words->facts;
    if (words->change->raised)
        snprintf(ret->sentence, sizeof ret->sentence,
                 "site '%s': %u of %u groups of volumes have had a single current copy since %s (%s): %u on node '%s', %u on "
                 "node '%s'; guests run and their data is safe there, but the loss of that node stops them; 'hcictl status' "
                 "on a node says what holds the second copy back (a node, a link or a disk)", names->site,
                 facts->single[0] + facts->single[1], facts->groups, words->since, words->lasted, facts->single[0],
                 names->nodes[0], facts->single[1], names->nodes[1]);
    else
        snprintf(ret->sentence, sizeof ret->sentence,
                 "site '%s': every group of volumes has two current copies again; one or more had a single one since %s (%s)",
                 names->site, words->since, words->lasted);
}

void alert_describe(const struct alert_change *change, const struct alert_facts *facts, const struct alert_names *names,
                    time_t now, struct alert *ret)
{
    char lasted[24];
    uint64_t age_s = (facts->now_ns - change->since_ns) / NSEC_PER_SEC;
    memset(ret, 0, sizeof *ret);
    snprintf(ret->kind, sizeof ret->kind, "%s", alert_kind_name(change->kind));
    ret->raised = change->raised;
    snprintf(ret->site, sizeof ret->site, "%s", names->site);
    id_format(&names->site_id, ret->site_id);
    if (change->kind == ALERT_NODE_LOST_A || change->kind == ALERT_NODE_LOST_B)
        snprintf(ret->node, sizeof ret->node, "%s", names->nodes[change->kind == ALERT_NODE_LOST_B]);
    snprintf(ret->key, sizeof ret->key, "%s/%s%s%.20s", ret->site_id, ret->kind, ret->node[0] == '\0' ? "" : "/", ret->node);
    stamp(now - (time_t)age_s, ret->since);
    stamp(now, ret->at);
    const struct words words = {change, facts, names, ret->since, span(age_s, lasted)};
    if (change->kind == ALERT_SITE_DARK)
        say_dark(&words, ret);
    else if (change->kind == ALERT_DEGRADED)
        say_degraded(&words, ret);
    else
        say_lost(&words, ret);
}

void alert_describe_own(const char *kind, bool raised, time_t since, time_t now, const char *sentence, struct alert *ret)
{
    memset(ret, 0, sizeof *ret);
    snprintf(ret->kind, sizeof ret->kind, "%s", kind);
    snprintf(ret->key, sizeof ret->key, "%s", kind);
    ret->raised = raised;
    stamp(since, ret->since);
    stamp(now, ret->at);
    snprintf(ret->sentence, sizeof ret->sentence, "%s", sentence);
}

char *alert_to_json(const struct alert *alert)
{
    json_t *document = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "kind", alert->kind, "state",
                                 alert->raised ? "raised" : "ended", "key", alert->key, "site", alert->site, "site_id",
                                 alert->site_id, "node", alert->node, "since", alert->since, "at", alert->at, "text",
                                 alert->sentence);
    char *text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
    json_decref(document);
    return text;
}
