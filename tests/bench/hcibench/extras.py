"""The figures that are no pattern: what an idle daemon costs, many sessions, the opening of a large pool."""

import re
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from hciblock.basics import BIN, REPOSITORY, LabError, memory_bytes, run
from hciblock.load import load
from hciblock.standalone import Standalone

from .figures import Figures
from .measure import share_of_a_core

IDLE_SECONDS = 30
MIB = 1 << 20


@contextmanager
def folder():
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hci-bench-", dir=REPOSITORY / "build") as name:
        yield Path(name)


@contextmanager
def daemon():
    """One that has served, on the disk."""
    with folder() as place:
        made = Standalone(place / "node")
        try:
            made.start()
            made.pool(place / "pool", file_bytes=2 << 30)
            yield made
        finally:
            made.close()


def idle(figures: Figures, quick: bool) -> None:
    with daemon() as ours:
        load(ours.volume("idle", 256 * MIB), write=50, depth=32, seconds=2)
        time.sleep(2)  # what the load left to do is not idleness
        seconds = IDLE_SECONDS // 3 if quick else IDLE_SECONDS
        figures.set("ours.disk.idle.core_percent", 100 * share_of_a_core(ours.pid, seconds, time.sleep))
        figures.set("ours.disk.idle.memory_mib", memory_bytes(ours.pid) / MIB)
    print(
        f"idle: {figures.value('ours.disk.idle.core_percent'):.2f} % of a core (wanted < 0.5), "
        f"{figures.value('ours.disk.idle.memory_mib'):.0f} MiB resident"
    )


def sessions(figures: Figures, quick: bool) -> None:
    """256 sessions of depth 8 on four volumes: no error, and the slowest at least half as fast as the median."""
    with daemon() as ours:
        urls = [ours.volume(f"v{number}", 256 * MIB) for number in range(4)]
        done = run([BIN / "sessions", "256", "8", "10" if quick else "60", *urls], timeout=180)
    print(f"sessions (no error, the least wanted at least half the median): {done.stdout.strip()}")
    numbers = re.search(r"depth 8: (\d+) .* least (\d+), median (\d+)", done.stdout)
    if not numbers:
        raise LabError(f"sessions said something else: {done.stdout.strip()}")
    figures.set("ours.disk.sessions-256.iops", float(numbers[1]))
    figures.set("ours.disk.sessions-256.least_of_median", int(numbers[2]) / max(int(numbers[3]), 1))


def pool_open(figures: Figures, quick: bool) -> None:
    """Its own process, so that its memory is that of one pool."""
    for name, words in (("mapped", ()), ("thin", ("-m", "10"))):
        with folder() as place:
            said = run([BIN / "pool_open", *words, place / "pool"], timeout=300).stdout.strip()
        print(f"pool of 1 TiB, {name}: {said}")
        numbers = re.search(r"opened in ([0-9.]+) s, .* touched: ([0-9.]+) MiB", said)
        if not numbers:
            raise LabError(f"pool_open said something else: {said}")
        figures.set(f"ours.disk.open-1t-{name}.seconds", float(numbers[1]))
        figures.set(f"ours.disk.open-1t-{name}.memory_mib", float(numbers[2]))


def run_all(figures: Figures, quick: bool) -> None:
    print("\n## Extras\n", flush=True)
    for measure in (idle, sessions, pool_open):
        try:
            measure(figures, quick)
        except (LabError, OSError, subprocess.SubprocessError) as error:
            figures.fail(measure.__name__, error)
