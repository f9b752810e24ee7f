/* The whole site on one screen: what is gathered, how it is judged, how it is shown. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

/* The document that `hcictl status --json` prints:
 *   "cluster": hci.conf's content as `cluster show` prints it
 *   "quorumd", "storaged", "vmhad" (their status), "guests" (vmhad's vm.list), "volumes" (storaged's volume.list): what
 *       the daemon answered, or {"error": {"code", "message"}} when it did not
 *   "time": seconds since 1970 at which it was asked
 *   "problems": [{"what": sentence, "remedy": sentence, "urgent": bool}…], "well": bool, "summary": sentence
 * A node that stands alone (cluster.standalone) has no quorumd, vmhad and guests, and is not judged for it. */

/* Adds "problems", "well" and "summary" from what the document holds. Pure: no clock, no socket, no file. */
void status_judge(json_t *document);
/* Prints the screen of a judged document. */
void status_print(const json_t *document);

/* --- reading a document: the same view for the judge and for the screen --- */

/* The daemon's answer, or NULL when it did not answer. */
json_t *status_answer(const json_t *document, const char *daemon);
/* The other node in cluster.nodes; NULL when there is none. */
const char *status_peer_name(const json_t *document);
/* One node without a peer? */
bool status_stands_alone(const json_t *document);
/* 1 heard, 0 not heard on any link, -1 not known. */
int status_peer_alive(const json_t *document);
