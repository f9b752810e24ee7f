"""Where a lab keeps its things: names of its namespaces and control groups, folders, its event log."""

import hashlib
import json
import time
from pathlib import Path

from .basics import LabError, boottime

DEFAULT_FOLDER = "/tmp/hci-lab"
HOSTS = ("a", "b", "w")
NODES = ("a", "b")
WITNESS = "w"
# Folders of a host that outlive a power cut: name in LAB/HOST/disk → place inside the host.
PERSISTENT = {
    "etc-hci": "/etc/hci",
    "var-lib-hci": "/var/lib/hci",
    "var-lib-hci-witness": "/var/lib/hci-witness",
    "pool-disks": "/var/lib/hci-disks",
    "etc-corosync": "/etc/corosync",
    "var-lib-corosync": "/var/lib/corosync",
    "var-log-corosync": "/var/log/corosync",
    "etc-libvirt": "/etc/libvirt",
    "var-lib-libvirt": "/var/lib/libvirt",
    "var-log-libvirt": "/var/log/libvirt",
    "var-cache-libvirt": "/var/cache/libvirt",
}
HIDDEN_BY_HOSTS = ("/etc", "/var", "/run", "/proc", "/sys", "/dev")


def cgroup2_mount() -> Path:
    """/sys/fs/cgroup on an ordinary Debian 12, a folder below it where control groups v1 rule."""
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    raise LabError("no cgroup2 file system is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")


class Layout:
    """Every name follows from the folder alone, so that `down` finds what a crashed run left behind."""

    def __init__(self, folder: str):
        self.folder = Path(folder).resolve()
        for hidden in HIDDEN_BY_HOSTS:
            if str(self.folder) == hidden or str(self.folder).startswith(hidden + "/"):
                raise LabError(f"lab folder {self.folder} lies in {hidden}, which hosts have of their own: "
                               "choose another with --dir")
        if len(str(self.folder)) > 60:
            raise LabError(f"lab folder {self.folder} is longer than 60 characters (socket paths are limited): "
                           "choose another with --dir")
        self.id = hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]
        self.marker = self.folder / "lab.json"
        self.cuts = self.folder / "cuts.json"
        self.events = self.folder / "events.jsonl"
        self.watchdog_log = self.folder / "watchdog.log"
        self.switch = f"hci-{self.id}-switch"
        self.cgroup = cgroup2_mount() / f"hci-lab-{self.id}"
        self.watchdog_cgroup = self.cgroup / "watchdog"

    def netns(self, host: str) -> str:
        return f"hci-{self.id}-{host}"

    def host_folder(self, host: str) -> Path:
        return self.folder / host

    def disk(self, host: str, name: str) -> Path:
        return self.folder / host / "disk" / name

    def log_folder(self, host: str) -> Path:
        return self.folder / host / "log"

    def watchdog_socket(self, host: str) -> Path:
        return self.folder / host / "watchdog" / "watchdog.sock"

    def host_cgroup(self, host: str) -> Path:
        return self.cgroup / host

    def note(self, event: str, t: float | None = None, **more) -> float:
        """Appends to the lab's event log; returns the time stamp."""
        t = boottime() if t is None else t
        line = {"t": round(t, 4), "wall": round(time.time(), 3), "event": event, **more}
        if self.folder.is_dir():
            with self.events.open("a") as log:
                log.write(json.dumps(line) + "\n")
        return t

    def read_events(self) -> list[dict]:
        if not self.events.exists():
            return []
        return [json.loads(line) for line in self.events.read_text().splitlines() if line]
