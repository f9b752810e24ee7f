/* Posts alerts to an address on the web; the only file pair that knows libcurl. */
#pragma once

#include "witness/courier.h"

#define WEBHOOK_CONNECT_S 5
#define WEBHOOK_TIMEOUT_S 15

struct webhook {
    char url[512];
    char ca[256];     /* PEM file to trust instead of the system's; "" for the system's */
    char header[512]; /* one more header, such as "Authorization: Bearer …"; "" for none */
};

/* Once, before any thread. */
int webhook_init(void);
/* A courier_deliver; userdata: struct webhook. Any answer of 200 to 299 is a delivery; redirects are not followed. */
int webhook_deliver(const struct alert *alert, const atomic_bool *stopping, void *userdata, struct err *err);
