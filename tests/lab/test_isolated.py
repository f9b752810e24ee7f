"""A node is cut off from everybody: it freezes its guest, is reset by its watchdog, and the guest goes on elsewhere."""

from hcilab import network
from hcilab.basics import boottime, wait_until

GUEST = "app"


def test_isolated_node_is_reset(site):
    site.bring_up()
    log = site.add_guest(GUEST, "a")
    log.wait_writes(500, 30)
    layout, a = site.lab.layout, site.lab.host("a")
    t = boottime()
    network.cut(layout, "a", "b")
    network.cut(layout, "a", "w")
    frozen = wait_until("the guest on a to be frozen", lambda: guest_is_frozen(a) or not a.is_on(), 15, 0.02)
    wait_until("the watchdog to cut the power of a", lambda: not a.is_on(), 30)
    cut = [event for event in layout.read_events() if event["event"] == "power-cut" and event["t"] > t]
    assert cut and cut[0]["by"] == "watchdog", f"{cut}"
    started = site.wait_guest_process(GUEST, "b", 30, t)
    assert started >= cut[0]["t"], "the guest ran on b before a was surely dead"
    assert frozen and started - t <= 12, f"guest started {started - t:.1f} s after the cut"
    log.wait_life("b", 2, 60)
    assert not log.lost(), "; ".join(log.lost())
    network.heal(layout)
    a.boot()
    site.wait_in_sync(GUEST, 60)
    assert len(log.starts) == 2


def guest_is_frozen(host) -> bool:
    for events in host.cgroup.rglob("*/cgroup.events"):
        if events.parent.name == GUEST and "frozen 1" in events.read_text():
            return True
    return False
