"""Faults in random order and company: nothing acknowledged is lost, and the guest never runs on both nodes.

HCI_SEED and HCI_ROUNDS choose another run; a failure names its seed, and the events of the lab tell the story."""

import os
import random
import signal
import threading
import time

from hcilab import network
from hcilab.basics import LabError, boottime, wait_until

GUEST = "app"
NODES = ("a", "b")
SEED = int(os.environ.get("HCI_SEED", "7"))
ROUNDS = int(os.environ.get("HCI_ROUNDS", "4"))


class TwiceMonitor:
    """Looks at both hosts all the time: two copies that both can run at once are the one thing that may never be."""

    def __init__(self, site):
        self.site = site
        self.seen = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _runs(self, node: str) -> bool:
        host = self.site.lab.host(node)
        try:
            if not host.is_on() or host.is_frozen() or GUEST not in host.guests():
                return False
            freeze = [path for path in host.cgroup.rglob("cgroup.freeze") if path.parent.name == GUEST]
            return not any(path.read_text().strip() == "1" for path in freeze)
        except (OSError, LabError):
            return False

    def _watch(self) -> None:
        # Paused before its start counts as a copy, too; a second look tells a copy from a process that just ends.
        while not self._stop.wait(0.05):
            if all(self._runs(node) for node in NODES) and not self._stop.wait(0.1) and all(self._runs(node) for node in NODES):
                self.seen.append(boottime())

    def close(self) -> list[float]:
        self._stop.set()
        self._thread.join(5)
        return self.seen


def cut_power(site, choice):
    node = choice(NODES)
    site.lab.host(node).power_cut()
    return f"power cut of {node}"


def kill_daemon(site, choice):
    node, daemon = choice(NODES), choice(("hci-storaged", "hci-quorumd", "hci-vmhad", "libvirtd", "corosync"))
    if site.lab.host(node).is_on():
        site.lab.host(node).kill_service(daemon, signal.SIGKILL)
    return f"{daemon} killed on {node}"


def freeze_host(site, choice):
    node = choice(NODES)
    if site.lab.host(node).is_on():
        site.lab.host(node).freeze()
    return f"{node} frozen"


def cut_cable(site, choice):
    pair, one_way, only = choice((("a", "b"), ("b", "a"), ("a", "w"), ("b", "w"))), choice((True, False)), choice((None, None, "link1"))
    if "w" in pair:
        only = None
    network.cut(site.lab.layout, *pair, one_way=one_way, only=only)
    return f"{pair[0]} cut from {pair[1]}{' one way' if one_way else ''}{' on ' + only if only else ''}"


def cut_witness(site, choice):
    site.lab.host("w").power_cut()
    return "power cut of w"


FAULTS = (cut_power, cut_power, kill_daemon, kill_daemon, kill_daemon, freeze_host, cut_cable, cut_cable, cut_witness)


def repair(site) -> None:
    network.heal(site.lab.layout)
    for name in ("w", *NODES):
        host = site.lab.host(name)
        if not host.is_on():
            host.boot()
        elif host.is_frozen():
            host.thaw()


def test_random_faults(site):
    dice = random.Random(SEED)
    site.bring_up()
    log = site.add_guest(GUEST, "a")
    log.wait_writes(300, 30)
    monitor = TwiceMonitor(site)
    story = []
    try:
        for _ in range(ROUNDS):
            for _ in range(dice.choice((1, 1, 2, 2, 3))):
                story.append(dice.choice(FAULTS)(site, dice.choice))
                print(f"  chaos seed {SEED}: {story[-1]}", flush=True)
                time.sleep(dice.uniform(0.05, 4.0))  # how long the fault lasts is part of the dice, not of a wait for something
            repair(site)
            story.append("repaired")
            site.wait_in_sync(GUEST, 120)
            wait_until("the guest to run on one node", lambda: sum(GUEST in site.lab.host(node).guests() for node in NODES) == 1, 60)
            log.wait_writes(300, 90)
            assert not log.lost(), f"seed {SEED}: {'; '.join(log.lost())}"
    except (LabError, AssertionError) as error:
        raise LabError(f"seed {SEED}, after {', '.join(story)}: {error}") from None
    finally:
        twice = monitor.close()
    assert not twice, f"seed {SEED}: the guest ran on both nodes at {twice[:3]} after {', '.join(story)}"


test_random_faults.limit_s = 900
