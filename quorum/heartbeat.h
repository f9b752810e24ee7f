/* The conversation with the peer: a heartbeat on every link, which carries the lease request, T_kill and the guests that
 * are gone; and the answers to the peer's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/site.h"
#include "quorum/links.h"
#include "quorum/wire.h"

struct daemon;

#define HEARTBEAT_SENT_MAX 64u  /* remembered per link, for the round trip and to know an authentic answer */
#define HEARTBEAT_GONE_MAX 16u
#define HEARTBEAT_GONE_NS (15ull * 1000000000ull) /* brief absence of the peer included: repeated ≥ 10 s */

struct heartbeat_link {
    struct {
        struct id id;
        uint64_t sent_ns;
    } sent[HEARTBEAT_SENT_MAX];
    unsigned next_sent;
    uint64_t heard_ns;     /* last authentic datagram on this link, 0: none */
    uint64_t round_trip_ns; /* of the last answer, 0: none */
};
struct heartbeat_gone {
    struct wire_gone gone;
    uint64_t until_ns;
};
struct heartbeat {
    struct daemon *daemon;
    struct links *links;
    unsigned link_count;
    struct wire_guard guard; /* of the peer's requests */
    struct id answer;        /* the peer's last challenge */
    uint64_t sequence;
    struct heartbeat_link state[SITE_LINKS_MAX];
    struct heartbeat_gone gone[HEARTBEAT_GONE_MAX];
    unsigned gone_count, next_gone;
};

int heartbeat_start(struct heartbeat *heartbeat, struct daemon *daemon, struct err *err);
void heartbeat_stop(struct heartbeat *heartbeat);
/* Once each heartbeat_ms. */
void heartbeat_send(struct heartbeat *heartbeat, uint64_t now_ns);
/* R11 (ii): sign "guest gone" in the next heartbeats. -ENOSPC beyond HEARTBEAT_GONE_MAX at once. */
int heartbeat_sign_gone(struct heartbeat *heartbeat, const struct wire_gone *gone, uint64_t now_ns);
