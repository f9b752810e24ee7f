"""Both nodes lose power at the same instant; they come back in any order, with or without a witness."""

import re

from hcilab.basics import wait_until

GUEST = "app"


def black_out(site):
    site.bring_up()
    log = site.add_guest(GUEST, "a")
    log.wait_writes(1000, 30)
    for node in ("a", "b"):
        site.lab.host(node).power_cut()
    return log


def check_nothing_is_lost(site, log, life: int):
    site.wait_in_sync(GUEST, 90)
    wait_until("the guest to write again", lambda: len(log.starts) >= life, 60)
    log.wait_writes(500, 60)
    assert not log.lost(), "; ".join(log.lost())
    running = [node for node in ("a", "b") if GUEST in site.lab.host(node).guests()]
    assert len(running) == 1, f"the guest runs on {running}"
    assert len(log.starts) == life, f"the guest was started {len(log.starts)} times"


def test_second_node_first(site):
    log = black_out(site)
    site.lab.host("b").boot()
    log.wait_life("b", 2, 90)
    site.lab.host("a").boot()
    check_nothing_is_lost(site, log, 2)


def test_without_witness(site):
    """Equal epochs: both tails are reconciled and the witness is not needed (R6)."""
    log = black_out(site)
    site.lab.host("w").power_cut()
    site.lab.host("b").boot()
    site.lab.host("a").boot()
    check_nothing_is_lost(site, log, 2)
    told = [line for node in ("a", "b") for line in
            (site.lab.layout.log_folder(node) / "hci-storaged.log").read_text().splitlines()
            if "reconciling of both tails finished" in line]
    copied = int(re.search(r"(\d+) KiB copied", told[-1]).group(1)) << 10
    site.measured("blackout.copied_bytes", copied, "bytes")
    assert copied <= 4 << 20, f"{copied} bytes copied although only what was in flight can differ"
