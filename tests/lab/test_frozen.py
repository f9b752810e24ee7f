"""A host stops for a while and wakes up: what it believed is over, and it knows."""

from hcilab.basics import boottime, wait_until

GUEST = "app"


def test_wakes_before_its_watchdog(site):
    """Longer than its lease, shorter than its watchdog: it wakes up in the middle of everything."""
    site.bring_up()
    log = site.add_guest(GUEST, "a")
    log.wait_writes(500, 30)
    a = site.lab.host("a")
    a.freeze()
    t = boottime()
    wait_until("node b to serve the volume", lambda: (site.volume(GUEST, "b") or {}).get("role") == "sole", 4.5, 0.05)
    a.thaw()
    site.measured("frozen.seconds", boottime() - t)
    # Whoever the record names when the nodes agree again has the guest: thawed by its proof, or started anew on b.
    site.wait_in_sync(GUEST, 60)
    log.wait_writes(500, 60)
    running = [node for node in ("a", "b") if GUEST in site.lab.host(node).guests()]
    assert len(running) == 1, f"the guest runs on {running}"
    assert not log.lost(), "; ".join(log.lost())
