/* quorumd's control socket: what storaged, vmhad and people ask, each method checked for form here. */
#pragma once

#include "common/err.h"

struct daemon;

/* Sets daemon->control. */
int quorum_control_new(struct daemon *daemon, struct err *err);
