/* hci-quorumd's clean stop: what must not wait for a library that hangs is done before. The parts are stand-ins. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "quorum/control.h"
#include "quorum/daemon.h"

static struct stop_order {
    unsigned calls, disarmed, freed, corosync;
} order;
static char watchdog_place, corosync_place;

void watchdog_disarm(struct watchdog *watchdog)
{
    assert_ptr_equal(watchdog, &watchdog_place);
    order.disarmed = ++order.calls;
}

void watchdog_free(struct watchdog *watchdog)
{
    order.freed = ++order.calls;
}

void corosync_view_free(struct corosync_view *view)
{
    assert_ptr_equal(view, &corosync_place);
    order.calls++;
    order.corosync = order.corosync == 0 ? order.calls : order.corosync;
}

/* Not part of a stop. */
int corosync_view_new(struct corosync_view **ret) { return -ENOTSUP; }
int watchdog_new(const struct site *site, struct watchdog **ret) { return -ENOTSUP; }
uint32_t watchdog_t_kill_ms(const struct watchdog *watchdog) { return 5300; }
int witness_client_new(struct daemon *daemon, struct witness_client **ret, struct err *err) { return -ENOTSUP; }
void witness_client_free(struct witness_client *client) {}
int heartbeat_start(struct heartbeat *heartbeat, struct daemon *daemon, struct err *err) { return -ENOTSUP; }
void heartbeat_stop(struct heartbeat *heartbeat) {}
void heartbeat_send(struct heartbeat *heartbeat, uint64_t now_ns) {}
void guests_start(struct guests *guests, struct daemon *daemon) {}
struct freeze_actions guests_step(struct guests *guests, struct freeze_event *event) { return (struct freeze_actions){0}; }
void peer_notes_load(struct peer_notes *notes, const char *folder) {}
int quorum_control_new(struct daemon *daemon, struct err *err) { return -ENOTSUP; }

static void stop(struct daemon *daemon)
{
    memset(&order, 0, sizeof order);
    daemon->watchdog = (struct watchdog *)&watchdog_place;
    daemon->corosync = (struct corosync_view *)&corosync_place;
    daemon_stop(daemon);
}

static void the_watchdog_does_not_wait_for_corosync(void **state)
{
    static struct daemon daemon;
    stop(&daemon);
    assert_true(order.disarmed > 0 && order.disarmed < order.corosync);
    assert_true(order.freed > 0 && order.freed < order.corosync);
}

static void it_stays_armed_while_a_guest_runs(void **state)
{
    static struct daemon daemon;
    daemon.guests.freeze.guest_count = 1;
    daemon.guests.freeze.lease_valid = daemon.guests.freeze.peer_valid = true;
    stop(&daemon);
    assert_int_equal(order.disarmed, 0);
    assert_true(order.freed > 0 && order.freed < order.corosync);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_watchdog_does_not_wait_for_corosync),
        cmocka_unit_test(it_stays_armed_while_a_guest_runs),
    };
    return cmocka_run_group_tests_name("daemon_stop", tests, NULL, NULL);
}
