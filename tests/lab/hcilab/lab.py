"""A lab as a whole: up, down, status."""

import os
import shutil
import subprocess
from pathlib import Path

from . import network
from .basics import REPOSITORY, LabError, read_json, wait_until, write_json
from .host import Host, remove_cgroup
from .layout import DEFAULT_FOLDER, HOSTS, Layout

DEFAULT_BIN = REPOSITORY / "build" / "release" / "bin"


class Lab:
    def __init__(self, folder: str = DEFAULT_FOLDER, bin_folder: str | os.PathLike | None = None):
        if os.geteuid() != 0:
            raise LabError("the lab makes namespaces and mounts: run it as root")
        self.layout = Layout(folder)
        known = (read_json(self.layout.marker) or {}).get("bin")
        self.bin_folder = Path(bin_folder or os.environ.get("HCI_BIN") or known or DEFAULT_BIN).resolve()
        self.hosts = {name: Host(self.layout, name, self.bin_folder) for name in HOSTS}

    def host(self, name: str) -> Host:
        if name not in self.hosts:
            raise LabError(f"no host '{name}': hosts are {', '.join(HOSTS)}")
        return self.hosts[name]

    def is_up(self) -> bool:
        return self.layout.marker.exists() and self.layout.switch in network.namespaces()

    def must_be_up(self) -> None:
        if not self.is_up():
            raise LabError(f"no lab is up in {self.layout.folder}: lab up")

    def up(self) -> None:
        """A fresh lab: empty disks, all hosts powered on, the witness and libvirt running."""
        if self.is_up() and any(host.is_on() for host in self.hosts.values()):
            raise LabError(f"a lab is up in {self.layout.folder}: lab down first, or choose another --dir")
        self.down()
        if self.layout.folder.exists() and any(self.layout.folder.iterdir()):
            raise LabError(f"folder {self.layout.folder} is not empty and not a lab: choose another with --dir")
        try:
            self._build()
        except BaseException:
            self.down(keep_files=True)
            raise

    def _build(self) -> None:
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.layout.marker, {"id": self.layout.id, "bin": str(self.bin_folder)})
        for name in HOSTS:
            self.layout.log_folder(name).mkdir(parents=True)
        self.layout.cgroup.mkdir(exist_ok=True)
        network.switch_up(self.layout)
        self._start_watchdog()
        self.layout.note("up")
        for host in self.hosts.values():
            host.power_on()

    def _start_watchdog(self) -> None:
        # In a control group of its own, so that it is found again without any file of ours.
        self.layout.watchdog_cgroup.mkdir(exist_ok=True)
        with self.layout.watchdog_log.open("ab") as log:
            subprocess.Popen(["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"',
                              str(self.layout.watchdog_cgroup / "cgroup.procs"), "/usr/bin/python3", "-m",
                              "hcilab.watchdog", str(self.layout.folder), str(self.bin_folder)],
                             cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                             start_new_session=True)
        wait_until(f"the lab's watchdog (see {self.layout.watchdog_log})",
                   lambda: all(self.layout.watchdog_socket(name).exists() for name in ("a", "b")), 10)

    def watchdog_alive(self) -> bool:
        procs = self.layout.watchdog_cgroup / "cgroup.procs"
        return procs.exists() and bool(procs.read_text())

    def _stop_watchdog(self) -> None:
        if self.layout.watchdog_cgroup.exists():
            (self.layout.watchdog_cgroup / "cgroup.kill").write_text("1")
            wait_until("the lab's watchdog to be gone", lambda: remove_cgroup(self.layout.watchdog_cgroup), 10, 0.005)

    def down(self, keep_files: bool = False) -> None:
        """Takes everything away, whatever state it is in; also what a crashed run has left."""
        self._stop_watchdog()
        for host in self.hosts.values():
            host.power_cut(by="down")
        if self.layout.cgroup.exists():
            self.layout.cgroup.rmdir()  # its hosts' are gone, so it is empty
        network.remove(self.layout, self.layout.switch)
        if not self.layout.marker.exists():
            return
        if keep_files:
            self.layout.note("down")
        else:
            shutil.rmtree(self.layout.folder)

    def save_logs(self, target: Path) -> Path:
        """Copies every log (not the disks) to a folder that outlives the lab."""
        target.mkdir(parents=True, exist_ok=True)
        for name in HOSTS:
            if self.layout.log_folder(name).exists():
                shutil.copytree(self.layout.log_folder(name), target / name, dirs_exist_ok=True)
        for path in (self.layout.events, self.layout.watchdog_log, self.layout.cuts):
            if path.exists():
                shutil.copy(path, target)
        for name in ("a", "b"):
            for kind in ("qemu", ""):
                folder = self.layout.disk(name, "var-log-libvirt") / kind
                for path in folder.glob("*.log") if folder.is_dir() else []:
                    shutil.copy(path, target / name / f"libvirt-{path.name}")
        return target

    def status(self) -> dict:
        hosts = {}
        for name, host in self.hosts.items():
            if not host.is_on():
                hosts[name] = {"power": "off"}
                continue
            hosts[name] = {"power": "frozen" if host.is_frozen() else "on"}
            if not host.is_frozen():
                hosts[name]["services"] = host.services()
                hosts[name]["guests"] = sorted(host.guests())
        return {"folder": str(self.layout.folder), "up": self.is_up(), "bin": str(self.bin_folder), "hosts": hosts,
                "cuts": network.cuts(self.layout), "watchdog": "running" if self.watchdog_alive() else "off"}
