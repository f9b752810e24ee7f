"""What every module of the lab shares: its error, bounded commands, deadlines, the clock."""

import json
import os
import subprocess
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


class LabError(Exception):
    """One sentence for a person: the object, the value, what to do."""


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME: the clock every figure of the lab is measured with."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def run(argv, timeout=10, input_text=None, check=True) -> subprocess.CompletedProcess:
    """Runs a command, at most `timeout` seconds; its own words become the error."""
    argv = [str(word) for word in argv]
    try:
        done = subprocess.run(argv, input=input_text, capture_output=True, text=True, timeout=timeout)
    except FileNotFoundError:
        raise LabError(f"command '{argv[0]}' is missing: install the packages of tests/packages.txt") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"command '{' '.join(argv)}' did not end within {timeout} s") from None
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise LabError(f"command '{' '.join(argv)}' failed ({done.returncode}): {said}")
    return done


def wait_until(what: str, condition, timeout: float, every: float = 0.05):
    """Polls until `condition()` is true and returns its value; LabError naming `what` after `timeout` seconds."""
    deadline = boottime() + timeout
    while True:
        value = condition()
        if value:
            return value
        if boottime() >= deadline:
            raise LabError(f"waited {timeout:g} s in vain for: {what}")
        time.sleep(every)


def read_json(path: Path, fallback=None):
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return fallback


def write_json(path: Path, value) -> None:
    """Replaces the file in one step, so that a reader never sees half of it."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(json.dumps(value, indent=1) + "\n")
    new.rename(path)


def process_start(pid: int) -> float | None:
    """Start of a process in seconds of CLOCK_BOOTTIME (10 ms fine), None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
