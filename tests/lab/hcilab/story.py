"""The story the project exists for, told once for ./demo and for the tests: a node dies, its guest goes on."""

from dataclasses import dataclass, field

from .basics import LabError, boottime
from .site import Site

GUEST = "app"
VOLUME_SIZE = "64M"
WRITES_BEFORE = 2000      # small writes before a power cut
WRITES_WHILE_ALONE = 1000
STARTED_WITHIN_S = 60     # when to give up waiting; what is promised is checked by who asked for the figures


@dataclass
class Figures:
    """What was measured; names and units are those of the JSON lines."""
    acknowledged_writes: int = 0
    lost_writes: int = 0
    power_cut_to_guest_started_s: float = 0.0
    power_cut_to_first_write_s: float = 0.0
    resync_bytes: int = 0
    back_in_sync_s: float = 0.0
    second_cut_to_guest_started_s: float = 0.0
    second_cut_to_first_write_s: float = 0.0
    losses: list = field(default_factory=list)

    def lines(self) -> list[dict]:
        named = [("acknowledged_writes", "writes"), ("lost_writes", "writes"), ("power_cut_to_guest_started_s", "s"),
                 ("power_cut_to_first_write_s", "s"), ("resync_bytes", "bytes"), ("back_in_sync_s", "s"),
                 ("second_cut_to_guest_started_s", "s"), ("second_cut_to_first_write_s", "s")]
        values = [(name, getattr(self, name), unit) for name, unit in named]
        return [{"name": name, "value": round(value, 3) if isinstance(value, float) else value, "unit": unit}
                for name, value, unit in values]


class Silent:
    """A timeline that tells nobody."""

    def chapter(self, text: str) -> None: ...
    def tell(self, text: str, t: float | None = None) -> None: ...
    def measure(self, text: str, seconds: float) -> None: ...


def fail_over(site: Site, timeline, dying: str, survivor: str, life: int) -> tuple[float, float, float]:
    """Cuts the power of `dying`; returns (t, seconds to the guest's process, seconds to its first write)."""
    log = site.logs[GUEST]
    told = log.highest()
    t = site.lab.host(dying).power_cut()
    timeline.tell(f"power cut of node {dying}; the guest had {told} writes acknowledged", t)
    started = site.wait_guest_process(GUEST, survivor, STARTED_WITHIN_S, t) - t
    timeline.measure(f"guest started on node {survivor}", started)
    found = log.wait_life(survivor, life, STARTED_WITHIN_S)
    timeline.measure(f"journal verified: {found.verified['highest']} numbers found, "
                     f"{found.verified['lost'] + found.verified['big_lost']} lost", found.verified_t - t)
    timeline.measure("first new write acknowledged", found.first_ack_t - t)
    return t, started, found.first_ack_t - t


def bring_back(site: Site, timeline, node: str, figures: Figures) -> None:
    """Powers the node on again and waits until both copies are current."""
    t = boottime()
    site.lab.host(node).boot()
    timeline.tell(f"node {node} has power again", t)
    timeline.measure(f"node {node}: its services are ready", boottime() - t)
    figures.back_in_sync_s = site.wait_in_sync(GUEST, 120) - t
    figures.resync_bytes = site.resync_bytes(t)
    timeline.measure(f"both copies are current again, {figures.resync_bytes / 2**20:.1f} MiB copied",
                     figures.back_in_sync_s)


def play(site: Site, timeline) -> Figures:
    """The whole story on a lab that is up and empty."""
    figures = Figures()
    timeline.chapter("A site from nothing")
    site.enrol()
    timeline.tell("cluster, witness and second node enrolled, daemons ready")
    site.make_pools()
    log = site.add_guest(GUEST, "a", VOLUME_SIZE)
    timeline.tell("pools made, mirrored volume made, guest writes on node a")
    log.wait_writes(WRITES_BEFORE, 60)

    timeline.chapter("Node a loses power")
    _, figures.power_cut_to_guest_started_s, figures.power_cut_to_first_write_s = fail_over(site, timeline, "a", "b", 2)
    log.wait_writes(WRITES_WHILE_ALONE, 60)

    timeline.chapter("Node a comes back")
    site.follow_events("b")
    bring_back(site, timeline, "a", figures)
    log.wait_writes(WRITES_BEFORE, 60)

    timeline.chapter("Node b loses power: is the copy that came back good?")
    _, figures.second_cut_to_guest_started_s, figures.second_cut_to_first_write_s = fail_over(
        site, timeline, "b", "a", 3)

    figures.acknowledged_writes = log.acknowledged_and_verified()
    figures.losses = log.lost()
    figures.lost_writes = log.lost_count()
    if figures.acknowledged_writes < 2 * WRITES_BEFORE:
        raise LabError(f"only {figures.acknowledged_writes} writes were acknowledged and looked for: the story proves nothing")
    return figures
