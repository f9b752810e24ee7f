"""One host of the lab: power on, power cut, freeze, commands inside it, its services."""

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from . import network, services
from .basics import LabError, boottime, process_start, wait_until, write_json
from .layout import PERSISTENT, Layout

KEEPER = Path(__file__).with_name("keeper.py")


def remove_cgroup(cgroup: Path) -> bool:
    """Removes an empty control group with those below it; False while something is still in it."""
    try:
        for folder in sorted(cgroup.rglob("*/"), key=lambda p: -len(p.parts)):
            folder.rmdir()
        cgroup.rmdir()
    except OSError:
        return not cgroup.exists()
    return True


class Host:
    def __init__(self, layout: Layout, name: str, bin_folder: Path):
        self.layout = layout
        self.name = name
        self.bin_folder = bin_folder
        self.folder = layout.host_folder(name)
        self.cgroup = layout.host_cgroup(name)
        self.socket = self.folder / "keeper.sock"

    # --- power ---------------------------------------------------------------------------------------------

    def init_pid(self) -> int | None:
        """The keeper as seen from outside: the process of our control group that is number 1 inside."""
        for pid in self.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            numbers = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
            if numbers and len(numbers[0]) > 1 and numbers[0][-1] == "1":
                return pid
        return None

    def is_on(self) -> bool:
        return self.init_pid() is not None

    def power_on(self) -> None:
        """Cables, control group, private file tree, keeper. No service yet."""
        if self.is_on():
            return
        self._sweep()
        self.cgroup.mkdir(parents=True, exist_ok=True)
        network.plug(self.layout, self.name)
        plan = self.folder / "plan.json"
        write_json(plan, self._plan())
        self.socket.unlink(missing_ok=True)
        words = ["nsenter", f"--net=/run/netns/{self.layout.netns(self.name)}", "unshare", "--mount", "--uts", "--ipc",
                 "--pid", "--cgroup", "--fork", "--mount-proc", "--propagation", "private",
                 "/usr/bin/python3", str(KEEPER), str(plan)]
        log = (self.layout.log_folder(self.name) / "keeper.log").open("ab")
        with log:
            # The control group is entered first: `unshare --cgroup` makes it the root the host sees.
            subprocess.Popen(["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.cgroup / "cgroup.procs"), *words],
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
        try:
            wait_until(f"keeper of host {self.name} (see {log.name})", self._keeper_answers, 15)
        except LabError:
            self._sweep()
            raise
        self.layout.note("power-on", host=self.name)

    def _keeper_answers(self) -> bool:
        try:
            return self.is_on() and "services" in self.ask({"do": "list"})
        except LabError:
            return False

    def _plan(self) -> dict:
        mounts = []
        for place in ("etc", "var"):
            upper, work = (self.folder / "overlay" / f"{place}-{kind}" for kind in ("upper", "work"))
            upper.mkdir(parents=True, exist_ok=True)
            work.mkdir(parents=True, exist_ok=True)
            mounts.append({"arguments": ["-t", "overlay", "overlay", "-o",
                                         f"lowerdir=/{place},upperdir={upper},workdir={work}"], "target": f"/{place}"})
        mounts += [{"arguments": ["-t", "tmpfs", "-o", "mode=755", "tmpfs"], "target": "/run"},
                   {"arguments": ["-t", "tmpfs", "tmpfs"], "target": "/dev/shm"},
                   {"arguments": ["-t", "sysfs", "sysfs"], "target": "/sys"},
                   {"arguments": ["-t", "cgroup2", "cgroup2"], "target": "/sys/fs/cgroup"}]
        binds = {self.layout.disk(self.name, name): inside for name, inside in PERSISTENT.items()}
        binds[self.layout.log_folder(self.name)] = "/var/log/hci-lab"
        binds[self.folder / "watchdog"] = "/run/hci-lab"
        for outside, inside in binds.items():
            outside.mkdir(parents=True, exist_ok=True)
            mounts.append({"arguments": ["--bind", str(outside)], "target": inside})
        names = "".join(f"{network.address(net, h)} {h}.{net}{' ' + h if net == 'wit' else ''}\n"
                        for net, (_, members) in network.NETWORKS.items() for h in members)
        machine_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.layout.folder}/{self.name}").hex
        files = {"/etc/hostname": self.name + "\n", "/etc/machine-id": machine_id + "\n",
                 "/etc/hosts": "127.0.0.1 localhost\n" + names, "/run/hci/.made-by-lab": ""}
        files.update(services.config_files(self.name, str(uuid.UUID(machine_id))))
        return {"host": self.name, "socket": str(self.socket), "log": str(self.layout.log_folder(self.name)),
                "mounts": mounts, "files": files}

    def power_cut(self, by: str = "lab") -> float:
        """Everything of the host stops at one instant and never runs again; returns that instant.

        Frozen first, unplugged second, killed last: the kernel must not say goodbye to the peers for them."""
        was_on = bool(self.pids())
        t = boottime()
        if was_on:
            self._write("cgroup.freeze", "1")
            deadline = boottime() + 0.2
            while "frozen 1" not in self._read("cgroup.events") and boottime() < deadline:
                time.sleep(0.001)
            self.layout.note("power-cut", t, host=self.name, by=by)
        self._sweep()
        return t

    def _sweep(self) -> None:
        """Takes away whatever is left of the host but its disks."""
        network.unplug(self.layout, self.name)
        if self.cgroup.exists():
            self._write("cgroup.kill", "1")
            wait_until(f"all processes of host {self.name} to be gone", lambda: not self.pids(), 15, 0.005)
            # A process that has left the list may still be on its way out: the kernel says EBUSY until then.
            wait_until(f"control group {self.cgroup} to be empty", lambda: remove_cgroup(self.cgroup), 15, 0.005)
        network.remove(self.layout, self.layout.netns(self.name))

    def freeze(self) -> float:
        self._must_be_on()
        self._write("cgroup.freeze", "1")
        wait_until(f"host {self.name} to be frozen", lambda: "frozen 1" in self._read("cgroup.events"), 5, 0.002)
        return self.layout.note("freeze", host=self.name)

    def thaw(self) -> float:
        self._must_be_on()
        self._write("cgroup.freeze", "0")
        return self.layout.note("thaw", host=self.name)

    def is_frozen(self) -> bool:
        return self._read("cgroup.freeze").strip() == "1"

    def _must_be_on(self) -> None:
        if not self.is_on():
            raise LabError(f"host {self.name} is off: lab boot {self.name}")

    def _write(self, name: str, text: str) -> None:
        try:
            (self.cgroup / name).write_text(text)
        except FileNotFoundError:
            pass

    def _read(self, name: str) -> str:
        try:
            return (self.cgroup / name).read_text()
        except (FileNotFoundError, OSError):
            return ""

    def pids(self) -> list[int]:
        """Every process of the host, as numbered outside."""
        found = []
        for procs in [self.cgroup / "cgroup.procs", *self.cgroup.rglob("*/cgroup.procs")]:
            try:
                found += [int(line) for line in procs.read_text().split()]
            except (FileNotFoundError, OSError):
                continue
        return [pid for pid in found if pid]

    # --- commands inside -----------------------------------------------------------------------------------

    def words_inside(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` inside the host, as part of it (frozen and cut with it)."""
        pid = self.init_pid()
        if pid is None:
            raise LabError(f"host {self.name} is off: lab boot {self.name}")
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.cgroup / "cgroup.procs"),
                "nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wd=/",
                "env", f"PATH={self.path_variable()}", *argv]

    def path_variable(self) -> str:
        return f"{self.bin_folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    def exec(self, argv: list[str], timeout: float = 30, input_text: str | None = None) -> subprocess.CompletedProcess:
        """Runs a command inside and returns what it said; LabError when it does not end in time."""
        words = self.words_inside([str(word) for word in argv])
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as child:
            try:
                out, errors = child.communicate(input_text, timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                raise LabError(f"'{' '.join(argv)}' on host {self.name} did not end within {timeout:g} s") from None
        return subprocess.CompletedProcess(argv, child.returncode, out, errors)

    # --- services ------------------------------------------------------------------------------------------

    def ask(self, request: dict) -> dict:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(5)
                connection.connect(str(self.socket))
                connection.sendall((json.dumps(request) + "\n").encode())
                answer = json.loads(connection.makefile("r").readline() or "{}")
        except (OSError, ValueError) as error:
            raise LabError(f"keeper of host {self.name} does not answer ({error}): lab status") from None
        if "error" in answer:
            raise LabError(f"host {self.name}: {answer['error']}")
        return answer

    def services(self) -> dict:
        return self.ask({"do": "list"})["services"]

    def boot(self) -> None:
        """Powers on and starts what is configured here and does not run yet, each until it says it is ready."""
        self.power_on()
        for service in services.configured(self.name, self.layout, self.bin_folder):
            self.start_service(service)

    def start_service(self, service: "services.Service") -> None:
        known = self.services().get(service.name)
        if not known or known["state"] in ("exited", "failed"):
            self.ask({"do": "spawn", "name": service.name, "argv": service.argv, "restart": service.restart,
                      "env": {"PATH": self.path_variable(), **service.env}})
        log = self.layout.log_folder(self.name) / f"{service.name}.log"
        deadline = boottime() + service.ready_s
        while True:
            state = self.services()[service.name]
            if state["state"] == "ready":
                break
            if state["state"] in ("exited", "failed") and not (service.restart and state["state"] == "exited"):
                raise LabError(f"{service.name} on host {self.name} ended with {state['code']}: {self._last_words(log)} "
                               f"(whole log: {log})")
            if boottime() > deadline:
                raise LabError(f"{service.name} on host {self.name} was not ready within {service.ready_s:g} s: "
                               f"{self._last_words(log)} (whole log: {log})")
            time.sleep(0.02)
        if service.probe:
            wait_until(f"{service.name} on host {self.name} to answer '{' '.join(service.probe)}' (log: {log})",
                       lambda: self.exec(service.probe, 10).returncode == 0, service.ready_s)

    @staticmethod
    def _last_words(log: Path) -> str:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line and not line.startswith("---")]
        return lines[-1] if lines else "it said nothing"

    def kill_service(self, name: str, number: int = signal.SIGKILL, stay_down: bool = False) -> float:
        """Signals a service; the keeper starts it again as systemd would, unless stay_down."""
        if name not in self.services():
            raise LabError(f"host {self.name} has no service '{name}': it has {', '.join(self.services()) or 'none'}")
        self.ask({"do": "signal", "name": name, "signal": int(number), "stay_down": stay_down})
        return self.layout.note("signal", host=self.name, service=name, signal=int(number))

    def guests(self) -> dict[str, dict]:
        """Running QEMU processes: guest name → pid and start in seconds of CLOCK_BOOTTIME."""
        found = {}
        for pid in self.pids():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if not words[0].rpartition(b"/")[2].startswith(b"qemu-system"):
                continue
            started = process_start(pid)
            for flag, value in zip(words, words[1:]):
                if flag == b"-name" and value.startswith(b"guest=") and started is not None:
                    found[value[6:].split(b",")[0].decode()] = {"pid": pid, "start": started}
        return found
