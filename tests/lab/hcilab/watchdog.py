"""The watchdog devices of the lab: one process outside the hosts, one socket per host.

A host's quorumd connects to /run/hci-lab/watchdog.sock and writes lines: "arm PERIOD_MS", "feed", "disarm".
When an armed watchdog is not fed for its period, the host loses power at once and stays off until it is
booted. A closed connection does not disarm, just as a closed /dev/watchdog does not.

    python3 -m hcilab.watchdog FOLDER BIN_FOLDER        (started by `lab up`)"""

import os
import selectors
import socket
import sys
import time

from .basics import LabError, boottime
from .host import Host
from .layout import NODES, Layout

PERIOD_MAX_MS = 600_000


class Watchdog:
    """One host's: who is armed, until when."""

    def __init__(self, host: Host):
        self.host = host
        self.period = None
        self.deadline = None
        self.init_pid = None

    def line(self, text: str) -> str | None:
        words = text.split()
        if len(words) == 2 and words[0] == "arm" and words[1].isdigit() and 0 < int(words[1]) <= PERIOD_MAX_MS:
            self.period = int(words[1]) / 1000
            self.init_pid = self.host.init_pid()
            self.deadline = boottime() + self.period
            return f"armed, {words[1]} ms"
        if words == ["feed"]:
            if self.period is not None:
                self.deadline = boottime() + self.period
            return None
        if words == ["disarm"]:
            self.period = self.deadline = None
            return "disarmed"
        return f"unknown line '{text}'"

    def expire(self) -> str:
        period, self.period, self.deadline = self.period, None, None
        if self.host.init_pid() != self.init_pid:
            return "armed by an earlier boot: forgotten"
        self.host.power_cut(by="watchdog")
        return f"not fed for {period:g} s: power cut"


class Keeper:
    def __init__(self, layout: Layout, bin_folder):
        self.selector = selectors.DefaultSelector()
        self.dogs = {}
        for name in NODES:
            path = layout.watchdog_socket(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            listener.bind(str(path))
            listener.listen(8)
            self.dogs[name] = Watchdog(Host(layout, name, bin_folder))
            self.selector.register(listener, selectors.EVENT_READ, (self.accept, self.dogs[name]))

    def say(self, dog: Watchdog, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {boottime():.3f} watchdog of {dog.host.name}: {text}", flush=True)

    def accept(self, listener, dog: Watchdog) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        self.selector.register(connection, selectors.EVENT_READ, (self.read, dog))

    def read(self, connection, dog: Watchdog) -> None:
        try:
            data = connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(connection)
            connection.close()
            return
        for text in data.decode(errors="replace").splitlines():
            said = dog.line(text)
            if said:
                self.say(dog, said)

    def run(self) -> None:
        while True:
            deadlines = [dog.deadline for dog in self.dogs.values() if dog.deadline is not None]
            timeout = max(0.0, min(deadlines) - boottime()) if deadlines else None
            for key, _ in self.selector.select(timeout):
                handle, dog = key.data
                handle(key.fileobj, dog)
            # What was fed while we slept counts: it has been read just now.
            for dog in self.dogs.values():
                if dog.deadline is not None and boottime() >= dog.deadline:
                    try:
                        self.say(dog, dog.expire())
                    except LabError as error:
                        self.say(dog, str(error))


def main() -> None:
    layout = Layout(sys.argv[1])
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        pass  # less exact, still right
    Keeper(layout, sys.argv[2]).run()


if __name__ == "__main__":
    main()
