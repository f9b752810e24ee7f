"""Runs the block tests: every test_*.py holds functions test_*(lab) that get a folder and daemons of their own.

A test raises to fail; its logs are kept in build/block-logs."""

import signal
import subprocess
import sys
from pathlib import Path

from .basics import REPOSITORY, LabError, boottime
from .lab import Lab

from hcilab.runner import find_tests, where

TESTS = Path(__file__).resolve().parents[1]
TEST_LIMIT_S = 180


class Overdue(Exception):
    pass


def overdue(*_) -> None:
    raise Overdue


def call(function, lab: Lab) -> str | None:
    limit = getattr(function, "limit_s", TEST_LIMIT_S)
    signal.signal(signal.SIGALRM, overdue)
    signal.alarm(limit)
    try:
        function(lab)
        return None
    except Overdue:
        return f"not done within {limit} s"
    except (LabError, AssertionError) as error:
        return f"{error or 'assertion failed'} ({where(error)})"
    except Exception as error:  # noqa: BLE001: whatever a test does wrong is that test's failure
        return f"{type(error).__name__}: {error} ({where(error)})"
    finally:
        signal.alarm(0)


def died(lab: Lab) -> str | None:
    """A daemon that is gone although nobody ended it is a failure whatever the test thinks."""
    daemon = lab.daemon_here
    if daemon and daemon.process and daemon.process.poll() not in (None, 0, -signal.SIGKILL):
        return f"hci-storaged ended with {daemon.process.returncode}: {daemon.last_words()}"
    return None


def run_one(name: str, function) -> str | None:
    lab = Lab(name)
    failure = call(function, lab) or died(lab)
    logs = lab.close(failure is not None)
    return f"{failure}\n      logs: {logs}" if failure else None


def prepare(module, done: set) -> str | None:
    """What a file of tests needs made first: its PREPARE names steps of tests/prepare."""
    for step in getattr(module, "PREPARE", ()):
        words = [REPOSITORY / "tests" / "prepare", step]
        if step not in done and subprocess.run(words, stdout=sys.stderr).returncode != 0:
            return f"tests/prepare {step} failed"
        done.add(step)
    return None


def run_all(tell, wanted: list[str] | None = None) -> None:
    """Runs the tests; tell(name, seconds, failure or None) after each."""
    prepared: set[str] = set()
    for name, function, module in find_tests(TESTS, wanted or []):
        unprepared = prepare(module, prepared)
        start = boottime()
        failure = unprepared or run_one(name, function)
        tell(name, boottime() - start, failure)


def main(arguments: list[str]) -> int:
    if "--help" in arguments:
        print("usage: tests/block/run [NAME …]   names are parts of FILE.TEST")
        return 0
    count = {True: 0, False: 0}

    def tell(name: str, seconds: float, failure: str | None) -> None:
        count[failure is None] += 1
        result = "ok" if failure is None else "not ok"
        print(f"{result} block {name} ({seconds:.1f} s){': ' + failure if failure else ''}", flush=True)

    try:
        run_all(tell, arguments)
    except LabError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    print(f"{count[True]} passed, {count[False]} failed")
    return 1 if count[False] or not count[True] else 0
