"""A whole site in the lab, made and asked with hcictl exactly as a person would."""

import json
import os
import select
import signal
import subprocess
import threading

from .basics import REPOSITORY, LabError, boottime, wait_until
from .guestlog import GuestLog
from .lab import Lab
from .layout import NODES
from . import network

GUEST_FOLDER = REPOSITORY / "build" / "guest"
GUEST_TEMPLATE = REPOSITORY / "tests" / "guest" / "guest.xml.in"
EXIT_UNREACHABLE = 3


class CommandRefused(LabError):
    """hcictl said no: its exit code and its sentence."""

    def __init__(self, host: str, words: list[str], code: int, sentence: str):
        super().__init__(f"hcictl {' '.join(words)} on {host}: {sentence}")
        self.code = code
        self.sentence = sentence


def end_session(child: subprocess.Popen) -> None:
    """Ends a command inside a host: nsenter and what it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait(5)


class Events:
    """`hcictl events --follow` of one node, kept in memory; connects again by itself, ends with the node."""

    def __init__(self, site: "Site", node: str):
        self.node = node
        self.lines: list[dict] = []
        self._child = subprocess.Popen(site.lab.host(node).words_inside(["hcictl", "--json", "events", "--follow"]),
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                       text=True, start_new_session=True)
        self._thread = threading.Thread(target=self._follow, name=f"events of {node}", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for text in self._child.stdout:
            try:
                self.lines.append({"t": boottime(), "node": self.node, **json.loads(text)})
            except ValueError:
                continue

    def of(self, event: str, since: float = 0.0, **fields) -> list[dict]:
        return [line for line in list(self.lines) if line.get("event") == event and line["t"] >= since
                and all(line["data"].get(key) == value for key, value in fields.items())]

    def close(self) -> None:
        end_session(self._child)


class Site:
    def __init__(self, lab: Lab, profile: str = "default"):
        self.lab = lab
        self.profile = profile
        self.logs: dict[str, GuestLog] = {}
        self.followers: list[Events] = []

    def close(self) -> None:
        for follower in [*self.logs.values(), *self.followers]:
            follower.close()

    # --- asking --------------------------------------------------------------------------------------------

    def hcictl(self, host: str, *words: str, timeout: float = 40) -> dict:
        """One command; its JSON answer. Raises CommandRefused with the sentence it said."""
        done = self.lab.host(host).exec(["hcictl", "--json", *words], timeout)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            sentence = lines[0].removeprefix("hcictl: ") if lines else f"exit {done.returncode} without a word"
            raise CommandRefused(host, list(words), done.returncode, sentence)
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def patiently(self, host: str, *words: str, timeout: float = 30) -> dict:
        """The same, asked again while a daemon is not reachable yet or says it is too early; bounded."""
        last = []

        def condition():
            try:
                return [self.hcictl(host, *words)]
            except CommandRefused as refused:
                last[:] = [refused.sentence]
                return None
        try:
            return wait_until(f"hcictl {' '.join(words)} on {host}", condition, timeout, 0.1)[0]
        except LabError as error:
            raise LabError(f"{error}; it says: {last[0] if last else 'nothing'}") from None

    def volume(self, name: str, node: str) -> dict | None:
        """What a node says about a volume; None while it does not answer or does not know it."""
        try:
            answer = self.hcictl(node, "volume", "list", timeout=10)
        except LabError:
            return None
        found = [volume for volume in answer["volumes"] if volume["name"] == name]
        return found[0] if found else None

    def guest(self, name: str, node: str) -> dict | None:
        try:
            answer = self.hcictl(node, "vm", "list", timeout=10)
        except LabError:
            return None
        found = [guest for guest in answer["guests"] if guest["name"] == name]
        return found[0] if found else None

    def in_sync(self, name: str) -> bool:
        """Both nodes say: both copies are members, one primary, one secondary."""
        views = [self.volume(name, node) for node in NODES]
        return (all(view and sorted(view["members"]) == sorted(NODES) for view in views)
                and sorted(view["role"] for view in views) == ["primary", "secondary"]
                and not any(view.get("behind_bytes") for view in views))

    def wait_in_sync(self, name: str, timeout: float = 60) -> float:
        try:
            wait_until(f"both copies of volume {name} to be current", lambda: self.in_sync(name), timeout, 0.05)
        except LabError as error:
            views = {node: self.volume(name, node) for node in NODES}
            raise LabError(f"{error}; the nodes say: {json.dumps(views)}") from None
        return boottime()

    def follow_events(self, node: str) -> Events:
        self.followers.append(Events(self, node))
        return self.followers[-1]

    # --- building ------------------------------------------------------------------------------------------

    def enrol(self) -> None:
        """From empty hosts to a configured cluster with its witness, by one-time tokens only."""
        a, b, w = (self.lab.host(name) for name in ("a", "b", "w"))
        w.boot()
        links = {node: f"{node}={network.address('link1', node)},{network.address('link2', node)}" for node in NODES}
        self.hcictl("a", "cluster", "init", "--name", "lab", "--node", links["a"], "--node", links["b"],
                    "--profile", self.profile, "--watchdog-socket", "/run/hci-lab/watchdog.sock")
        token = self.hcictl("w", "witness", "token")["token"]
        self.hcictl("a", "witness", "enroll", network.address("wit", "w"), token)
        self._join()
        for host in (a, b):
            host.boot()

    def _join(self) -> None:
        words = self.lab.host("a").words_inside(["hcictl", "--json", "cluster", "invite"])
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                              text=True, start_new_session=True) as invite:
            try:
                offer = self._read_document(invite, 15)
                self.hcictl("b", "cluster", "join", offer["address"], offer["token"])
                invite.wait(15)
            except subprocess.TimeoutExpired:
                raise LabError("hcictl cluster invite on a did not end although b has joined") from None
            finally:
                end_session(invite)

    @staticmethod
    def _read_document(child: subprocess.Popen, timeout: float) -> dict:
        """The first JSON document a running command prints."""
        text, deadline, pipe = b"", boottime() + timeout, child.stdout.fileno()
        while select.select([pipe], [], [], max(0.0, deadline - boottime()))[0]:
            data = os.read(pipe, 65536)  # not readline: what it read ahead, select would not see
            if not data:
                break
            text += data
            try:
                return json.loads(text)
            except ValueError:
                continue
        end_session(child)
        said = child.stderr.read().strip() or text.decode(errors="replace").strip() or "it said nothing"
        raise LabError(f"hcictl cluster invite printed no token within {timeout:g} s: {said}")

    def make_pools(self, size: str = "2G", disks: int = 1) -> None:
        for node in NODES:
            paths = [f"/var/lib/hci-disks/disk{number}" for number in range(1, disks + 1)]
            self.patiently(node, "pool", "create", "--size", size, *paths)

    def bring_up(self) -> None:
        """Everything up to the point where volumes can be made."""
        self.enrol()
        self.make_pools()

    def add_guest(self, name: str, node: str = "a", size: str = "64M", settings: str = "") -> GuestLog:
        """A volume and a protected guest on it, started on `node`, writing."""
        self.patiently(node, "volume", "create", name, "--size", size)
        self.wait_in_sync(name, 30)
        self.protect(name, node, settings)
        return self.start_guest(name, node)

    def protect(self, name: str, node: str, settings: str = "") -> None:
        if not (GUEST_FOLDER / "initramfs.gz").exists():
            raise LabError(f"the test guest is not built ({GUEST_FOLDER}): tests/guest/build")
        xml = GUEST_TEMPLATE.read_text()
        xml = xml[xml.index("<domain"):]
        for word, value in (("NAME", name), ("VOLUME", name), ("GUEST_FOLDER", str(GUEST_FOLDER)), ("SETTINGS", settings)):
            xml = xml.replace(word, value)
        path = self.lab.layout.log_folder(node) / f"{name}.xml"
        path.write_text(xml)
        self.hcictl(node, "vm", "add", name, "--xml", f"/var/log/hci-lab/{name}.xml")

    def start_guest(self, name: str, node: str) -> GuestLog:
        if name not in self.logs:
            self.logs[name] = GuestLog(self.lab.layout, name)
        count = len(self.logs[name].starts) + 1
        self.patiently(node, "vm", "start", name)
        self.logs[name].wait_life(node, count, 60)
        return self.logs[name]

    def wait_guest_process(self, name: str, node: str, timeout: float, after: float = 0.0) -> float:
        """Waits for the guest's QEMU on a node; returns when the process was started (CLOCK_BOOTTIME)."""
        def condition():
            found = self.lab.host(node).guests().get(name)
            return found["start"] if found and found["start"] >= after - 0.02 else None
        return wait_until(f"guest {name} to be started on node {node}", condition, timeout, 0.02)

    def measured(self, name: str, value: float, unit: str = "s") -> None:
        """A figure for the reader. Stories assert outcomes, never seconds: a busy machine is not a broken one."""
        print(json.dumps({"name": f"lab.{name}", "value": round(value, 3), "unit": unit}), flush=True)

    def resync_bytes(self, since: float, timeout: float = 10) -> int:
        """Bytes copied by the resyncs that ended since then, as told by the events of the followed nodes."""
        def ended():
            return [sum(line["data"]["bytes_copied"] for line in lines) for lines in
                    (follower.of("resync", since, state="done") for follower in self.followers) if lines]
        return max(wait_until("the event that says how much the resync has copied", ended, timeout))
