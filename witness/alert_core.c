/* When people must be told about a site: raised once, ended once, never in a flutter. */
#include "witness/alert_core.h"

#include "common/check.h"
#include "common/clock.h"

static uint64_t ns(uint32_t seconds)
{
    return seconds * NSEC_PER_SEC;
}

static uint64_t silent_since(const struct alert_facts *facts, unsigned node)
{
    return facts->heard_ns[node] > facts->start_ns ? facts->heard_ns[node] : facts->start_ns;
}

static uint64_t silence(const struct alert_facts *facts, unsigned node)
{
    uint64_t since_ns = silent_since(facts, node);
    return facts->now_ns > since_ns ? facts->now_ns - since_ns : 0;
}

/* Clearly there: heard, and within half of what makes it lost. */
static bool present(const struct alert_config *config, const struct alert_facts *facts, unsigned node)
{
    return facts->heard_ns[node] != 0 && silence(facts, node) < ns(config->lost_s) / 2;
}

struct condition {
    bool holds;    /* long enough to be told */
    bool gone;     /* does not hold at all; between the two nothing changes */
    uint64_t since_ns;
    uint64_t seen_ns; /* the latest sign that it is gone */
};

static uint64_t later(uint64_t left, uint64_t right)
{
    return left > right ? left : right;
}

static struct condition dark(const struct alert_config *config, const struct alert_facts *facts)
{
    uint64_t first = silent_since(facts, 0), second = silent_since(facts, 1);
    return (struct condition){
        .holds = silence(facts, 0) >= ns(config->dark_s) && silence(facts, 1) >= ns(config->dark_s),
        .gone = present(config, facts, 0) || present(config, facts, 1),
        .since_ns = later(first, second), .seen_ns = later(facts->heard_ns[0], facts->heard_ns[1]),
    };
}

/* Only while the other is clearly there: when both fall silent together, that is one alert and not three. */
static struct condition lost(const struct alert_config *config, const struct alert_facts *facts, unsigned node)
{
    return (struct condition){
        .holds = silence(facts, node) >= ns(config->lost_s) && present(config, facts, !node),
        .gone = present(config, facts, node),
        .since_ns = silent_since(facts, node), .seen_ns = facts->heard_ns[node],
    };
}

static struct condition degraded(struct alert_site *site, const struct alert_config *config,
                                 const struct alert_facts *facts)
{
    bool is = facts->single[0] + facts->single[1] > 0;
    if (!is)
        site->degraded_since_ns = 0;
    else if (site->degraded_since_ns == 0)
        site->degraded_since_ns = facts->now_ns;
    return (struct condition){
        .holds = is && facts->now_ns - site->degraded_since_ns >= ns(config->degraded_s),
        .gone = !is,
        .since_ns = site->degraded_since_ns, .seen_ns = facts->now_ns,
    };
}

static bool raise_now(const struct alert_site *site, const struct alert_config *config, const struct alert_facts *facts,
                      enum alert_kind kind, const struct condition *condition)
{
    return condition->holds &&
           (site->told_ns[kind] == 0 || facts->now_ns - site->told_ns[kind] >= ns(config->repeat_s));
}

/* True when an active alert has ended: signs of that have come for long enough. */
static bool end_now(struct alert_site *site, const struct alert_config *config, const struct alert_facts *facts,
                    enum alert_kind kind, const struct condition *condition)
{
    if (!condition->gone)
        site->gone_since_ns[kind] = 0;
    else if (site->gone_since_ns[kind] == 0)
        site->gone_since_ns[kind] = facts->now_ns;
    return condition->gone && condition->seen_ns >= site->gone_since_ns[kind] + ns(config->settle_s);
}

static bool change(struct alert_site *site, const struct alert_config *config, const struct alert_facts *facts,
                   enum alert_kind kind, const struct condition *condition, struct alert_change *ret)
{
    uint8_t bit = (uint8_t)(1u << kind);
    if (!(site->active & bit)) {
        if (!raise_now(site, config, facts, kind, condition))
            return false;
        site->active |= bit;
        site->told_ns[kind] = facts->now_ns;
        site->since_ns[kind] = condition->since_ns;
        site->gone_since_ns[kind] = 0;
        *ret = (struct alert_change){.kind = kind, .raised = true, .since_ns = condition->since_ns};
        return true;
    }
    if (!end_now(site, config, facts, kind, condition))
        return false;
    site->active &= (uint8_t)~bit;
    *ret = (struct alert_change){.kind = kind, .raised = false, .since_ns = site->since_ns[kind]};
    return true;
}

unsigned alert_step(struct alert_site *site, const struct alert_config *config, const struct alert_facts *facts,
                    struct alert_change ret[static ALERT_KINDS])
{
    check(config->dark_s > 0 && config->lost_s > 0 && config->degraded_s > 0);
    check(facts->now_ns > 0 && facts->single[0] + facts->single[1] <= facts->groups);
    const struct condition conditions[ALERT_KINDS] = {
        [ALERT_SITE_DARK] = dark(config, facts),
        [ALERT_NODE_LOST_A] = lost(config, facts, 0),
        [ALERT_NODE_LOST_B] = lost(config, facts, 1),
        [ALERT_DEGRADED] = degraded(site, config, facts),
    };
    unsigned count = 0;
    for (unsigned kind = 0; kind < ALERT_KINDS; kind++)
        count += change(site, config, facts, (enum alert_kind)kind, &conditions[kind], &ret[count]) ? 1 : 0;
    return count;
}

const char *alert_kind_name(enum alert_kind kind)
{
    static const char *const names[ALERT_KINDS] = {
        [ALERT_SITE_DARK] = "site_dark", [ALERT_NODE_LOST_A] = "node_lost", [ALERT_NODE_LOST_B] = "node_lost",
        [ALERT_DEGRADED] = "degraded",
    };
    check((unsigned)kind < ALERT_KINDS);
    return names[kind];
}
