"""A node is cut off from everybody, or its quorumd hangs: its guest stops before it runs elsewhere."""

import signal

from hcilab import network
from hcilab.basics import boottime, wait_until

GUEST = "app"


def power_cuts(layout, since: float) -> list[dict]:
    return [event for event in layout.read_events() if event["event"] == "power-cut" and event["t"] > since]


def test_isolated_node_freezes_its_guest(site):
    """R11: frozen in time, verified, so the watchdog is fed on; killed when the node learns who has the guest now."""
    site.bring_up()
    log = site.add_guest(GUEST, "a")
    log.wait_writes(500, 30)
    layout, a = site.lab.layout, site.lab.host("a")
    t = boottime()
    network.cut(layout, "a", "b")
    network.cut(layout, "a", "w")
    wait_until("the guest on a to be frozen", lambda: guest_is_frozen(a), 15, 0.02)
    frozen_t = boottime()
    started = site.wait_guest_process(GUEST, "b", 30, t)
    assert frozen_t < started, "the guest ran on b before it was frozen on a"
    log.wait_life("b", 2, 60)
    assert guest_is_frozen(a), "the guest on a was thawed"
    assert not power_cuts(layout, t), "a was reset although its guest is verified frozen"
    network.heal(layout)
    wait_until("the forgotten copy on a to be killed", lambda: GUEST not in a.guests(), 30)
    site.wait_in_sync(GUEST, 60)
    assert len(log.starts) == 2
    assert not log.lost(), "; ".join(log.lost())


def test_hung_node_is_reset(site):
    """Nobody can freeze the guest of a node whose quorumd hangs: the watchdog cuts its power before b starts the guest."""
    site.bring_up()
    log = site.add_guest(GUEST, "a")
    log.wait_writes(500, 30)
    layout, a = site.lab.layout, site.lab.host("a")
    t = boottime()
    a.kill_service("hci-quorumd", signal.SIGSTOP)
    wait_until("the watchdog to cut the power of a", lambda: not a.is_on(), 30)
    cut = power_cuts(layout, t)
    assert cut and cut[0]["by"] == "watchdog", f"{cut}"
    started = site.wait_guest_process(GUEST, "b", 30, t)
    assert started >= cut[0]["t"], "the guest ran on b before a was dead"
    log.wait_life("b", 2, 60)
    assert not log.lost(), "; ".join(log.lost())
    a.boot()
    site.wait_in_sync(GUEST, 60)
    assert len(log.starts) == 2


def guest_is_frozen(host) -> bool:
    for events in host.cgroup.rglob("*/cgroup.events"):
        if events.parent.name == GUEST and "frozen 1" in events.read_text():
            return True
    return False
