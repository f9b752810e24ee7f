"""Runs iscsi-test-cu, a process per suite on volumes of their own, and judges what it says."""

import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from .basics import IQN, REPOSITORY, LabError, boottime, free_port
from .standalone import CONFIG, Standalone, run_folder

ALLOWED = Path(__file__).resolve().parents[1] / "conformance-skips"
LOGS = REPOSITORY / "build" / "block-logs" / "conformance"
SUITE_LIMIT_S = 400
VOLUME_BYTES = 1 << 30
# Lanes and the sizes of their volumes. SANITIZE overwrites again and again, so its volume is small; but Sanitize.Reset
# wants what it began to be at work still four seconds later.
LANES = {"any-1": VOLUME_BYTES, "any-2": VOLUME_BYTES, "sanitize": 256 << 20, "reset-all": 2 << 30, "reset-scsi": 2 << 30}


def lane_of(selector: str) -> str:
    """"any": whoever has time."""
    if selector.endswith(".Sanitize.Reset"):
        return f"reset-{selector.split('.')[0].lower()}"
    return "sanitize" if ".Sanitize." in selector else "any"


@dataclass
class Result:
    name: str  # FAMILY.SUITE.TEST
    passed: bool = False
    failures: list[str] = field(default_factory=list)  # "test_x.c:56"
    notices: list[str] = field(default_factory=list)
    why: str = "it did not run"


@dataclass
class Allowed:
    """A line of conformance-skips: `PATTERN: reason`, or `PATTERN FILE:LINE…: reason` for assertions that may fail."""
    pattern: str
    places: list[str]
    reason: str
    used: bool = False


def read_allowed(path: Path) -> list[Allowed]:
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        head, colon, reason = line.partition(": ")
        if not colon or not head.split():
            raise LabError(f"{path.name}:{number}: not 'PATTERN: reason'")
        pattern, *places = head.split()
        entries.append(Allowed(pattern, places, reason.strip()))
    return entries


def list_tests(patterns: list[str]) -> dict[str, list[str]]:
    """What one process runs (FAMILY.SUITE, of Sanitize FAMILY.SUITE.TEST) → its tests, as the tool lists them."""
    selected: dict[str, list[str]] = {}
    said = subprocess.run(["iscsi-test-cu", "--list"], capture_output=True, text=True, timeout=30).stdout
    for name in said.split():
        suite = name.rpartition(".")[0]
        if name.count(".") == 2 and (not patterns or any(fnmatchcase(suite, pattern) for pattern in patterns)):
            selected.setdefault(name if suite.endswith(".Sanitize") else suite, []).append(name)
    if not selected:
        raise LabError("iscsi-test-cu lists no such test")
    return selected


def judge(tests: list[str], said: str, ended: str) -> list[Result]:
    """What the tool said of each test that it listed."""
    blocks = re.split(r"^  Test: (\S+) \.\.\.", said, flags=re.MULTILINE)
    heard = dict(zip(blocks[1::2], (re.split(r"^Run Summary", text, flags=re.MULTILINE)[0] for text in blocks[2::2])))
    return [judge_one(name, heard.get(name.rpartition(".")[2]), ended) for name in tests]


def judge_one(name: str, said: str | None, ended: str) -> Result:
    result = Result(name)
    if said is None:
        result.why = ended or result.why
        return result
    result.failures = [f"{place}:{line}" for place, line in re.findall(r"^ +\d+\. (\S+\.[ch]):(\d+) ", said, re.MULTILINE)]
    result.notices = re.findall(r"\[SKIPPED\] ?([^\n]*)", said)
    result.passed = re.search(r"^passed", said, re.MULTILINE) is not None and not result.failures
    told = re.findall(r"\[FAILED\][^\n]*", said)
    result.why = "; ".join([*dict.fromkeys(result.failures)][:3] + told[:1]) or ended or "it said neither passed nor failed"
    return result


def is_multipath(suite: str) -> bool:
    return suite.endswith(".MultipathIO")


def own_volume(suite: str) -> str:
    """MultipathIO.CompareAndWrite takes for granted that a block it never wrote is zero: nobody was there before."""
    return suite.lower().replace(".", "-")


class Lane(threading.Thread):
    """One volume, and the suites that run on it one after the other."""

    def __init__(self, name: str, portals: list[str], suites: queue.SimpleQueue, tests: dict, logs: Path):
        super().__init__(name=name, daemon=True)
        self.portals, self.suites, self.tests, self.logs = portals, suites, tests, logs
        self.results: list[Result] = []

    def run(self) -> None:
        while True:
            try:
                suite = self.suites.get_nowait()
            except queue.Empty:
                return
            self.results += self.run_suite(suite)

    def urls(self, suite: str) -> list[str]:
        """Two for MultipathIO only: other tests, given two, leave reservations with the second."""
        if is_multipath(suite):
            return [f"iscsi://{portal}/{IQN}{own_volume(suite)}/0" for portal in self.portals]
        return [f"iscsi://{self.portals[0]}/{IQN}{self.name}/0"]

    def run_suite(self, suite: str) -> list[Result]:
        start, ended = boottime(), ""
        log = self.logs / f"{suite}.log"
        with open(log, "wb") as out:
            try:
                code = subprocess.run(["iscsi-test-cu", "--dataloss", "--allow-sanitize", "--Verbose-scsi", "-t", suite,
                                       *self.urls(suite)],
                                      stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=SUITE_LIMIT_S).returncode
                if code not in (0, 1):
                    ended = f"iscsi-test-cu ended with {code}"
            except subprocess.TimeoutExpired:
                ended = f"not done within {SUITE_LIMIT_S} s"
        results = judge(self.tests[suite], log.read_text(errors="replace"), ended)
        print(f"    {suite}: {len(results)} in {boottime() - start:.1f} s\n", end="", flush=True)
        return results


def new_daemon(folder: Path) -> tuple[Standalone, list[str]]:
    """With two portals: MultipathIO wants two ways to the same logical unit. Not started yet."""
    ports = [free_port(), free_port()]
    (folder / "node").mkdir()
    text = CONFIG.format(cluster="7f0d2c1e-8a43-4a5e-9a43-0c7b1f0e9d11", node="3a5e9a43-0c7b-4f0e-9d11-7f0d2c1e8a43",
                         port=ports[0], folder=folder / "node", run=run_folder(folder / "node"))
    text = text.replace(f'"127.0.0.1:{ports[0]}"', f'"127.0.0.1:{ports[0]}", "127.0.0.2:{ports[1]}"')
    (folder / "node" / "hci.conf").write_text(text)
    return Standalone(folder / "node", port=ports[0]), [f"127.0.0.1:{ports[0]}", f"127.0.0.2:{ports[1]}"]


def run_lanes(daemon: Standalone, portals: list[str], tests: dict[str, list[str]], logs: Path) -> list[Result]:
    queues: dict[str, queue.SimpleQueue] = {}
    for selector in tests:
        queues.setdefault(lane_of(selector), queue.SimpleQueue()).put(selector)
        if is_multipath(selector):
            daemon.volume(own_volume(selector), VOLUME_BYTES)
    lanes = []
    for name, size_bytes in LANES.items():
        mine = queues.get("any" if name.startswith("any") else name)
        if mine:
            daemon.volume(name, size_bytes)
            lanes.append(Lane(name, portals, mine, tests, logs))
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    heard = {result.name: result for lane in lanes for result in lane.results}
    return [heard.get(name) or Result(name) for names in tests.values() for name in names]


def excuse(result: Result, allowed: list[Allowed]) -> Allowed | None:
    """The line that allows this skip, or these failed assertions: all of them, by their places in the tool's sources."""
    for entry in allowed:
        if not fnmatchcase(result.name, entry.pattern) or bool(entry.places) == result.passed:
            continue
        if result.passed or result.failures and set(result.failures) <= set(entry.places):
            entry.used = True
            return entry
    return None


def report(results: list[Result], allowed: list[Allowed], complete: bool) -> int:
    failed = skipped = unlisted = 0
    for result in sorted(results, key=lambda result: result.name):
        if result.passed and not result.notices:
            continue
        entry = excuse(result, allowed)
        if not result.passed and not entry:
            failed += 1
            print(f"FAILED  {result.name}: {result.why}")
            continue
        skipped += 1
        unlisted += entry is None
        print(f"skipped {result.name}: {entry.reason if entry else 'NOT LISTED: ' + result.notices[0]}")
    stale = [entry.pattern for entry in allowed if complete and not entry.used]
    for pattern in stale:
        print(f"{ALLOWED.name}: nothing needs '{pattern}' any more; take it out")
    print(f"{len(results)} run, {failed} failed, {skipped} skipped")
    return 1 if failed or unlisted or stale else 0


def main(arguments: list[str]) -> int:
    if "--help" in arguments:
        print("usage: tests/block/iscsi-conformance [FAMILY.SUITE …]   with * and ?; without one: all of them")
        return 0
    parent = REPOSITORY / "build" / "block"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="conformance-", dir=parent))
    logs = folder / "logs"
    logs.mkdir()
    daemon = None
    try:
        tests, allowed = list_tests(arguments), read_allowed(ALLOWED)
        daemon, portals = new_daemon(folder)
        daemon.start()
        daemon.pool(folder / "disk0", folder / "disk1", file_bytes=5 << 30)
        results = run_lanes(daemon, portals, tests, logs)
        daemon.stop()
        return report(results, allowed, complete=not arguments)
    except LabError as error:
        print(f"iscsi-conformance: {error}", file=sys.stderr)
        return 1
    finally:
        if daemon:
            daemon.close()
            if daemon.log.exists():
                shutil.copy(daemon.log, logs)
        shutil.rmtree(LOGS, ignore_errors=True)
        shutil.copytree(logs, LOGS)
        shutil.rmtree(folder, ignore_errors=True)
