"""What was measured: rounds in, medians, ratios, the targets and a table out."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import median

METRICS = ("iops", "mib_s", "p50_us", "p99_us", "ops_per_cpu_s")


class Figures:
    """Keys are SUBJECT.STORE.PATTERN.METRIC."""

    def __init__(self):
        self.rounds: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    def add(self, subject: str, store: str, pattern: str, measured: dict) -> None:
        for metric, value in measured.items():
            self.rounds[f"{subject}.{store}.{pattern}.{metric}"].append(value)

    def set(self, key: str, value: float) -> None:
        self.rounds[key].append(value)

    def get(self, subject: str, store: str, pattern: str, metric: str) -> float | None:
        return self.value(f"{subject}.{store}.{pattern}.{metric}")

    def value(self, key: str) -> float | None:
        values = self.rounds.get(key)
        return median(values) if values else None

    def fail(self, what: str, error: Exception) -> None:
        self.failures.append(f"{what}: {error}")
        print(f"failed: {what}: {error}", flush=True)

    def spread(self, key: str) -> float:
        """How far the rounds lie apart: (highest - lowest) / median."""
        values = self.rounds.get(key) or [0]
        return (max(values) - min(values)) / median(values) if median(values) else 0

    def save(self, path: Path) -> None:
        medians = {key: round(median(values), 2) for key, values in sorted(self.rounds.items())}
        path.write_text(json.dumps(medians, indent=1) + "\n")


def ratio(one: float | None, other: float | None) -> str:
    return f"{one / other:.2f}" if one and other else "–"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.2f}"


def print_store(figures: Figures, store: str, patterns, subjects) -> None:
    """One table per store: each pattern's speed for each subject, ours beside the others."""
    print(f"\n## Store {store}: operations per second, in brackets the rounds' spread; latency in µs\n")
    heads = ["pattern", *subjects, "ours/raw", "ours/tgt-cache", "ours/tgt-sync", "p50 ours (tgt-cache, tgt-sync, raw)"]
    heads += ["p99 ours", "ops per CPU s ours (tgt-cache, tgt-sync)"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for pattern in patterns:

        def of(subject: str, metric: str = "iops") -> float | None:
            return figures.get(subject, store, pattern.name, metric)

        def speed(subject: str) -> str:
            return f"{number(of(subject))} ({figures.spread(f'{subject}.{store}.{pattern.name}.iops') * 100:.0f} %)"

        cells = [speed(name) for name in subjects]
        cells += [ratio(of("ours"), of(name)) for name in ("raw", "tgt-cache", "tgt-sync")]
        others = ", ".join(number(of(name, "p50_us")) for name in ("tgt-cache", "tgt-sync", "raw"))
        cells += [f"{number(of('ours', 'p50_us'))} ({others})", number(of("ours", "p99_us"))]
        work = ", ".join(number(of(name, "ops_per_cpu_s")) for name in ("tgt-cache", "tgt-sync"))
        cells.append(f"{number(of('ours', 'ops_per_cpu_s'))} ({work})")
        print(f"| {pattern.name} | " + " | ".join(cells) + " |")
    synced = figures.get("raw-fdatasync", store, "randwrite-4k-d1", "p50_us")
    if synced:
        print(f"\nlocal write + fdatasync, depth 1: p50 {synced:.0f} µs, {number(1e6 / synced)} a second")


# (stores, pattern, ours against whom, at least so many times as fast). On the RAM disk raw is the speed of memory and
# being durable costs tgt nothing: there only tgt in the page cache is a measure.
TARGETS = (
    (("disk",), "randwrite-4k-d32", "tgt-sync", 4.0),
    (("disk",), "randwrite-4k-d32", "tgt-cache", 0.6),
    (("ram",), "randwrite-4k-d32", "tgt-cache", 1.2),
    (("disk", "ram"), "randread-4k-d32", "tgt-cache", 1.5),
    (("disk",), "read-1m-d4", "raw", 0.8),
    (("disk",), "write-1m-d4", "raw", 0.45),
)
DEPTH_ONE_EXTRA_US = 120


def judge(what: str, store: str, wanted: str, measured: str, met: bool) -> str:
    return f"| {what} | {store} | {wanted} | {measured} | {'met' if met else 'MISSED'} |"


def judge_ratios(figures: Figures, store: str):
    for where, pattern, other, wanted in TARGETS:
        ours, theirs = (figures.get(name, store, pattern, "iops") for name in ("ours", other))
        if store in where and ours and theirs:
            times = ours / theirs
            yield judge(f"{pattern} ours / {other}", store, f"≥ {wanted}", f"{times:.2f}", times >= wanted)


def judge_depth_one(figures: Figures, store: str):
    ours = figures.get("ours", store, "randwrite-4k-d1", "p50_us")
    synced = figures.get("raw-fdatasync", store, "randwrite-4k-d1", "p50_us")
    if ours and synced and store == "disk":
        limit = synced + DEPTH_ONE_EXTRA_US
        wanted = f"≤ {limit:.0f} (local write + fdatasync + {DEPTH_ONE_EXTRA_US})"
        yield judge("randwrite-4k-d1 p50 µs, ours", store, wanted, f"{ours:.0f}", ours <= limit)


def print_targets(figures: Figures, stores) -> None:
    lines = [line for store in stores for line in (*judge_ratios(figures, store), *judge_depth_one(figures, store))]
    if lines:
        print("\n## Targets\n\n| figure | store | wanted | measured | |\n|---|---|---|---|---|")
        print("\n".join(lines))
