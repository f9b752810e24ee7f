"""Runs the lab's stories: each test_*.py holds functions test_*(site) that get a lab of their own.

A test raises to fail; its logs are kept. Prints a line per test; the last line says how many."""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from .basics import REPOSITORY, LabError, boottime
from .lab import Lab
from .site import Site

TEST_LIMIT_S = 300
TESTS = Path(__file__).resolve().parents[1]
LOGS = REPOSITORY / "build" / "lab-logs"
# One per tree, so that the checks of two trees may run side by side.
FOLDER = os.environ.get("HCI_LAB", f"/tmp/hci-check-{hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:6]}")


class Overdue(Exception):
    pass


def find_tests(folder: Path, wanted: list[str]):
    """(name, function, module) of every story, in the order of their files."""
    for path in sorted(folder.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in list(vars(module).items()):
            full = f"{path.stem.removeprefix('test_')}.{name.removeprefix('test_')}"
            if name.startswith("test_") and callable(function) and (not wanted or any(w in full for w in wanted)):
                yield full, function, module


def overdue(*_) -> None:
    raise Overdue


def run_one(name: str, function, profile: str, folder: str, keep: bool) -> str | None:
    """Returns why it failed, or None."""
    lab = Lab(folder)
    site = Site(lab, getattr(function, "profile", profile))
    failure = None
    signal.signal(signal.SIGALRM, overdue)
    signal.alarm(getattr(function, "limit_s", TEST_LIMIT_S))
    try:
        lab.down()
        lab.up()
        function(site)
    except Overdue:
        failure = f"not done within {getattr(function, 'limit_s', TEST_LIMIT_S)} s"
    except (LabError, AssertionError) as error:
        failure = f"{error}" or "assertion failed"
        if isinstance(error, AssertionError):
            failure += f" ({where(error)})"
    except Exception as error:  # noqa: BLE001: whatever a story does wrong is that story's failure
        failure = f"{type(error).__name__}: {error} ({where(error)})"
    finally:
        signal.alarm(0)
        site.close()
        if failure:
            target = LOGS / name
            shutil.rmtree(target, ignore_errors=True)
            lab.save_logs(target)
            failure += f"\n      logs: {target}"
        if not (failure and keep):
            lab.down()
    return failure


def where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    for entry in traceback.extract_tb(error.__traceback__):
        if Path(entry.filename).name.startswith("test_"):
            frame = entry
    return f"{Path(frame.filename).name}:{frame.lineno}"


@contextlib.contextmanager
def only_one(folder: str):
    """Two runs in one lab folder would take each other's hosts away."""
    with open(folder.rstrip("/") + ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another run uses the lab folder {folder}: wait for its end, or choose another") from None
        yield


def run_all(tell, wanted: list[str] | None = None, keep: bool = False) -> None:
    """Runs the stories; tell(name, seconds, failure or None) after each. With keep it stops at a failed one."""
    with only_one(FOLDER):
        for name, function, _ in find_tests(TESTS, wanted or []):
            start = boottime()
            failure = run_one(name, function, "default", FOLDER, keep)
            tell(name, boottime() - start, failure)
            if failure and keep:
                return


def main(arguments: list[str]) -> int:
    keep = "--keep" in arguments
    if "--help" in arguments:
        print("usage: tests/lab/run [--keep] [NAME …]   names are parts of FILE.TEST; --keep leaves a failed lab up")
        return 0
    count = {True: 0, False: 0}

    def tell(name: str, seconds: float, failure: str | None) -> None:
        count[failure is None] += 1
        print(f"{'ok' if failure is None else 'not ok'} lab {name} ({seconds:.1f} s){': ' + failure if failure else ''}",
              flush=True)
    try:
        run_all(tell, [word for word in arguments if not word.startswith("--")], keep)
    except LabError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    if keep and count[False]:
        print(f"the failed lab is still up: tests/lab/lab --dir {FOLDER} status")
    print(f"{count[True]} passed, {count[False]} failed")
    return 1 if count[False] or not count[True] else 0
