"""Runs subjects in turn: each round measures every pattern with every subject, so that none has a better hour."""

from pathlib import Path

from hciblock.basics import LabError, boottime, cpu_seconds

from . import subjects
from .figures import Figures
from .patterns import PATTERNS, Plan
from .stores import Store


class Bench:
    def __init__(self, plan: Plan, figures: Figures, names, patterns, disk_folder: Path | None,
                 verbose: bool):
        self.verbose = verbose
        self.plan, self.figures, self.names, self.patterns = plan, figures, names, patterns
        self.disk_folder = disk_folder

    def run_store(self, name: str) -> None:
        try:
            store = Store(name, subjects.store_bytes(self.plan.span), self.disk_folder)
        except LabError as error:
            self.figures.fail(name, error)
            return
        opened = []
        try:
            store.preallocate("plain", self.plan.span)
            opened = self.open_all(store)
            for number in range(self.plan.rounds):
                print(f"store {name}, round {number + 1} of {self.plan.rounds} …", flush=True)
                self.run_round(store, opened, number)
        finally:
            for subject in opened:
                subject.close()
            store.close()

    def open_all(self, store: Store) -> list:
        opened = []
        for name in self.names:
            subject = subjects.make(name, store, self.plan.span)
            try:
                subject.open()
                opened.append(subject)
            except LabError as error:
                self.figures.fail(f"{name}.{store.name}", error)
                subject.close()
        return opened

    def run_round(self, store: Store, opened: list, number: int) -> None:
        for pattern in self.patterns:
            turn = opened[number % len(opened):] + opened[:number % len(opened)]
            for subject in turn:
                if subject.name == "raw-fdatasync" and pattern.name != "randwrite-4k-d1":
                    continue
                self.run_one(store, subject, pattern)

    def run_one(self, store: Store, subject, pattern) -> None:
        start = boottime()
        try:
            measured = subject.run(pattern, self.plan.seconds, self.plan.warmup)
            self.figures.add(subject.name, store.name, pattern.name, measured)
            if pattern.write:
                store.flush()
            if hasattr(subject, "settle"):
                subject.settle()
            if self.verbose:
                times = f"p50 {measured['p50_us']:.0f} µs, p99 {measured['p99_us']:.0f} µs"
                took = f"took {boottime() - start:.1f} s in all"
                print(f"  {subject.name} {pattern.name}: {measured['iops']:.0f} a second, {times}; {took}", flush=True)
        except (LabError, KeyError, ValueError) as error:
            self.figures.fail(f"{subject.name}.{store.name}.{pattern.name}", error)


def names_of_all(wanted) -> list[str]:
    """The subjects, and with raw the one figure that depth 1 is compared with."""
    return [name for name in ("raw", "raw-fdatasync", "tgt-cache", "tgt-sync", "ours")
            if not wanted or name in wanted or (name == "raw-fdatasync" and {"raw", "ours"} & set(wanted))]


def patterns_of(wanted) -> list:
    return [pattern for pattern in PATTERNS if not wanted or any(word in pattern.name for word in wanted)]


def share_of_a_core(pid: int, seconds: float, wait) -> float:
    before = cpu_seconds(pid)
    wait(seconds)
    return (cpu_seconds(pid) - before) / seconds
