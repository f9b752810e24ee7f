/* A listening socket and its address. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "common/err.h"
#include "storaged/ring.h"

#define ISCSI_ADDRESS_SIZE 64u /* "[V6]:PORT" */

struct iscsi_portal {
    struct ring *ring;
    int fd;
    struct ring_watch watch;
    struct ring_timer pause; /* after accept failed for want of descriptors */
    struct sockaddr_storage address;
    void (*accepted)(struct iscsi_portal *portal, int fd); /* takes the non-blocking socket */
    void *userdata;
};

/* "ADDR:PORT" or "[V6]:PORT", numbers only. */
int iscsi_address_parse(const char *text, struct sockaddr_storage *ret, socklen_t *ret_size, struct err *err);
const char *iscsi_address_format(const struct sockaddr_storage *address, char ret[static ISCSI_ADDRESS_SIZE]);
bool iscsi_address_is_loopback(const struct sockaddr_storage *address);
bool iscsi_address_is_any(const struct sockaddr_storage *address);

int iscsi_portal_open(struct iscsi_portal *portal, struct ring *ring, const char *address, struct err *err);
void iscsi_portal_close(struct iscsi_portal *portal); /* harmless when closed */
