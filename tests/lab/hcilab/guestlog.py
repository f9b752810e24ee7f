"""Reads what the guests say on their serial consoles, on both nodes, stamping each line with its time of arrival.

The reader is the judge of a story: it knows every write the guest was told is safe, and compares with what
the guest finds again after each start."""

import json
import threading
import time
from dataclasses import dataclass, field

from .basics import boottime, wait_until
from .layout import NODES, Layout

POLL_S = 0.005
PARTIAL_MAX = 65536


@dataclass
class Line:
    t: float       # CLOCK_BOOTTIME at arrival
    host: str
    event: dict


@dataclass
class Start:
    """One life of the guest: where, what it found, what it was told is safe since."""
    t: float
    host: str
    verified: dict | None = None
    verified_t: float = 0.0
    first_ack_t: float | None = None
    last_ack: dict | None = None
    last_ack_t: float = 0.0
    longest_silence_s: float = 0.0
    errors: list = field(default_factory=list)

    def acknowledged(self) -> int:
        """Writes of this life that the guest was told are safe, both streams."""
        if not self.verified or not self.last_ack:
            return 0
        return sum(self.last_ack[key] - self.verified[key] for key in ("highest", "big_highest"))


class GuestLog:
    """Follows one guest until close()."""

    def __init__(self, layout: Layout, guest: str):
        self.guest = guest
        self.starts: list[Start] = []
        self.lost_reports: list[Line] = []
        self._files = {host: layout.log_folder(host) / f"{guest}.serial" for host in NODES}
        self._offset = {host: 0 for host in NODES}
        self._partial = {host: b"" for host in NODES}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"serial of {guest}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _follow(self) -> None:
        while not self._stop.is_set():
            for host in NODES:
                self._read(host)
            time.sleep(POLL_S)

    def _read(self, host: str) -> None:
        try:
            with self._files[host].open("rb") as serial:
                serial.seek(self._offset[host])
                data = serial.read()
        except FileNotFoundError:
            return
        if not data:
            return
        t = boottime()
        self._offset[host] += len(data)
        *lines, rest = (self._partial[host] + data).split(b"\n")
        self._partial[host] = rest[-PARTIAL_MAX:]
        with self._lock:
            for text in lines:
                self._take(t, host, text)

    def _take(self, t: float, host: str, text: bytes) -> None:
        start = text.find(b'{"event"')  # a kernel message or the torn end of an earlier life may stand before it
        if start < 0:
            return
        try:
            event = json.loads(text[start:])
        except ValueError:
            return
        kind = event["event"]
        if kind == "started":
            self.starts.append(Start(t, host))
        elif not self.starts or self.starts[-1].host != host:
            return  # the last words of an earlier life
        elif kind == "verified":
            self.starts[-1].verified, self.starts[-1].verified_t = event, t
            self.starts[-1].last_ack_t = t
        elif kind == "lost":
            self.lost_reports.append(Line(t, host, event))
        elif kind == "error":
            self.starts[-1].errors.append(event)
        elif kind in ("ack", "stopped"):
            life = self.starts[-1]
            life.first_ack_t = life.first_ack_t or t
            life.longest_silence_s = max(life.longest_silence_s, t - life.last_ack_t)
            life.last_ack, life.last_ack_t = event, t

    # --- questions -----------------------------------------------------------------------------------------

    def life(self) -> Start | None:
        with self._lock:
            return self.starts[-1] if self.starts else None

    def highest(self) -> int:
        life = self.life()
        return life.last_ack["highest"] if life and life.last_ack else 0

    def wait_life(self, host: str, count: int, timeout: float) -> Start:
        """Waits until life number `count` (1: the first) has verified its journal on `host` and had a new write acknowledged."""
        def condition():
            with self._lock:
                if len(self.starts) < count or self.starts[count - 1].host != host:
                    return None
                life = self.starts[count - 1]
                return life if life.first_ack_t else None
        return wait_until(f"guest {self.guest} to write on node {host} (start number {count})", condition, timeout, 0.01)

    def wait_writes(self, more: int, timeout: float) -> None:
        """Waits until so many further numbers are acknowledged."""
        goal = self.highest() + more
        wait_until(f"guest {self.guest} to have {more} more writes acknowledged", lambda: self.highest() >= goal, timeout)

    def acknowledged_and_verified(self) -> int:
        """Acknowledged writes of all lives but the last: a later life has looked for them."""
        with self._lock:
            return sum(life.acknowledged() for life in self.starts[:-1])

    def lost(self) -> list[str]:
        """A sentence for each loss: what a life did not find although an earlier one was told it is safe."""
        found = []
        with self._lock:
            told = {"highest": 0, "big_highest": 0}
            for number, life in enumerate(self.starts, 1):
                if life.verified:
                    for key, lost_key in (("highest", "lost"), ("big_highest", "big_lost")):
                        stream = "64 KiB" if key.startswith("big") else "4 KiB"
                        gone = told[key] - life.verified[key]
                        if gone > 0:
                            found.append(f"start {number} on {life.host}: the last {gone} acknowledged {stream} writes are gone")
                        if life.verified[lost_key] > 0:
                            found.append(f"start {number} on {life.host}: {life.verified[lost_key]} {stream} slots do not hold "
                                         "their last write")
                        told[key] = max(told[key], life.verified[key])
                for error in life.errors:
                    found.append(f"start {number} on {life.host}: the guest saw an error: {error}")
                if life.last_ack:
                    told = {key: max(told[key], life.last_ack[key]) for key in told}
        return found

    def lost_count(self) -> int:
        """How many writes lost() speaks of."""
        count = 0
        with self._lock:
            told = {"highest": 0, "big_highest": 0}
            for life in self.starts:
                if life.verified:
                    for key, lost_key in (("highest", "lost"), ("big_highest", "big_lost")):
                        count += max(0, told[key] - life.verified[key]) + life.verified[lost_key]
                        told[key] = max(told[key], life.verified[key])
                if life.last_ack:
                    told = {key: max(told[key], life.last_ack[key]) for key in told}
        return count

    def silence(self) -> float:
        """Longest time without an acknowledgement in the present life, the time since the last one included."""
        life = self.life()
        return max(life.longest_silence_s, boottime() - life.last_ack_t) if life else 0.0

    def reset_silence(self) -> None:
        with self._lock:
            if self.starts:
                self.starts[-1].longest_silence_s = 0.0
                self.starts[-1].last_ack_t = max(self.starts[-1].last_ack_t, boottime() - 0.2)
