"""hci-storaged dies by SIGKILL under load: the guest goes on, what comes back copies only what differs."""

from hcilab.basics import boottime, wait_until

GUEST = "app"
SMALL, BIG = 4096, 65536
IN_FLIGHT_BYTES = 2 << 20  # writes under way at the kill, and the tails of both nodes


def written_bytes(log, before: dict) -> int:
    now = log.life().last_ack
    return (now["highest"] - before["highest"]) * SMALL + (now["big_highest"] - before["big_highest"]) * BIG


def kill_and_check(site, node: str) -> None:
    log = site.logs[GUEST]
    for follower in ("a", "b"):
        site.follow_events(follower)
    log.wait_writes(500, 30)
    log.reset_silence()
    before, t = log.life().last_ack, boottime()
    site.lab.host(node).kill_service("hci-storaged")
    wait_until(f"hci-storaged on {node} to run again", lambda: site.volume(GUEST, node), 20)
    site.wait_in_sync(GUEST, 60)
    written = written_bytes(log, before)
    log.wait_writes(500, 30)
    copied = site.resync_bytes(t)
    assert copied <= written + IN_FLIGHT_BYTES, f"{copied} bytes copied, {written} written meanwhile"
    assert len(log.starts) == 1, f"the guest was started again after storaged was killed on {node}"
    assert not log.lost(), "; ".join(log.lost())
    site.measured(f"storaged_killed.stall_{node}_s", log.silence())
    site.measured(f"storaged_killed.copied_{node}_bytes", copied, "bytes")


def verify_by_restart(site) -> None:
    """Everything acknowledged is there: the guest looks for itself when it starts again."""
    log = site.logs[GUEST]
    site.hcictl("a", "vm", "stop", GUEST)
    wait_until("the guest to stop", lambda: GUEST not in site.lab.host("a").guests(), 40)
    site.start_guest(GUEST, wait_until("a primary", lambda: (site.volume(GUEST, "a") or {}).get("primary_node"), 20))
    assert not log.lost(), "; ".join(log.lost())
    assert log.acknowledged_and_verified() > 1000


def test_on_the_secondary(site):
    site.bring_up()
    site.add_guest(GUEST, "a")
    kill_and_check(site, "b")
    verify_by_restart(site)


def test_on_the_primary(site):
    site.bring_up()
    site.add_guest(GUEST, "a")
    kill_and_check(site, "a")
    verify_by_restart(site)
