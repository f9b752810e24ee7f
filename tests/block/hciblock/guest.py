"""A guest that is a real Linux initiator (tests/guest/build-initiator), under QEMU without KVM, and what it says."""

import json
import queue
import subprocess
import threading

from .basics import IQN, REPOSITORY, LabError, boottime
from .lab import Lab

GUEST = REPOSITORY / "build" / "guest-initiator"
HOST = "10.0.2.2"  # the host's loopback, seen through QEMU's user network


class Guest:
    def __init__(self, lab: Lab, do: str, port: int, volumes: list[str], **settings):
        if not (GUEST / "initramfs.gz").exists():
            raise LabError(f"{GUEST} is missing: tests/guest/build-initiator makes it")
        targets = ",".join(IQN + name for name in volumes)
        words = {"do": do, "portal": f"{HOST}:{port}", "targets": targets, "digest": "None", "rounds": 1, **settings}
        line = "console=ttyS0 quiet panic=-1 " + " ".join(f"hci.{key}={value}" for key, value in words.items())
        self.log = lab.folder / f"guest-{do}.log"
        self.process = lab.start(
            *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "384", "-nodefaults", "-nographic"),
            "-no-reboot",
            *("-serial", "stdio", "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-kernel", GUEST / "vmlinuz", "-initrd", GUEST / "initramfs.gz", "-append", line),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.events: queue.Queue = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        with open(self.log, "wb") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                start = line.find(b'{"event"')
                if start >= 0:
                    self.events.put(json.loads(line[start:]))
        self.events.put({"event": "off"})

    def wait(self, wanted: str, timeout: float = 60, **values) -> list[dict]:
        """Everything it said until the event; LabError when it fails, goes off or is silent for so long before."""
        deadline, said = boottime() + timeout, []
        while True:
            try:
                event = self.events.get(timeout=max(0.0, deadline - boottime()))
            except queue.Empty:
                raise LabError(f"guest: waited {timeout:g} s in vain for '{wanted}': {self.last_words()}") from None
            said.append(event)
            if event["event"] == wanted and all(event.get(key) == value for key, value in values.items()):
                return said
            if event["event"] in ("failed", "off"):
                raise LabError(f"guest: {event.get('what', 'it went off')} instead of '{wanted}': {self.last_words()}")

    def last_words(self, lines: int = 8) -> str:
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def cut_power(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def done(self, timeout: float = 90) -> list[dict]:
        """Waits until it has done all of it well and is off."""
        said = self.wait("done", timeout)
        self.process.wait(20)
        return said
