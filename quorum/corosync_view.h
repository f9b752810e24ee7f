/* What corosync thinks, for people: membership, quorate, link states. No safety decision reads it (architecture). */
#pragma once

#include <jansson.h>

struct corosync_view;

/* Starts a thread of its own at ordinary priority: corosync's libraries block when they connect. */
int corosync_view_new(struct corosync_view **ret);
void corosync_view_free(struct corosync_view *view);
/* {"state":"not running"} or {"state":"running","quorate":…,"votes":…,"cpg_members":…,"links":{key:connected,…}} */
json_t *corosync_view_status(struct corosync_view *view);
