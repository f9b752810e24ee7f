"""The command line of tests/bench/run."""

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

from hciblock.basics import BIN, LabError, boottime

from . import extras
from .figures import Figures, print_store, print_targets
from .measure import Bench, names_of_all, patterns_of
from .patterns import PATTERNS, Plan
from .stores import STORES
from .subjects import SUBJECTS

QUICK = Plan(rounds=3, seconds=0.8, warmup=0.2, span=512 << 20)
WHOLE = Plan(rounds=5, seconds=2.0, warmup=0.3, span=1 << 30)
NEEDED = ("fio", "tgtd", "tgtadm", "mount")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Raw disk, tgt and hci-storaged, measured in turn on the same store: a table with ratios, and the "
        "targets of docs/performance.md.",
    )
    parser.add_argument("--quick", action="store_true", help="less than five minutes in all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the medians, keys SUBJECT.STORE.PATTERN.METRIC")
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="this subject (several times: these)")
    parser.add_argument("--store", action="append", choices=STORES, help="this store")
    parser.add_argument("--pattern", action="append", metavar="WORD", help="patterns whose name has this word: "
                        + ", ".join(pattern.name for pattern in PATTERNS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--span", type=int, metavar="MIB", help="what is read and written (quick 512, else 1024)")
    parser.add_argument("--disk-folder", type=Path, help="where the disk store is made (build/)")
    parser.add_argument("--extras", action="store_true", help="idle cost, 256 sessions, opening 1 TiB, too")
    parser.add_argument("--verbose", action="store_true", help="each measurement as it is made")
    return parser.parse_args()


def plan_of(options: argparse.Namespace) -> Plan:
    base = QUICK if options.quick else WHOLE
    return Plan(options.rounds or base.rounds, options.seconds or base.seconds, base.warmup,
                options.span << 20 if options.span else base.span)


def check_machine() -> None:
    if os.geteuid() != 0:
        raise LabError("the bench mounts a RAM disk: run it as root")
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        raise LabError(f"{', '.join(missing)}: not installed; ./check installs the packages of tests/packages.txt")
    for name in ("hci-storaged", "iscsi_load"):
        if not (BIN / name).exists():
            raise LabError(f"{BIN / name} is not built: cmake --preset release && cmake --build --preset release")


def stop(*_) -> None:
    raise KeyboardInterrupt


def measure(options: argparse.Namespace) -> Figures:
    figures = Figures()
    patterns, stores = patterns_of(options.pattern), options.store or STORES
    names, plan = names_of_all(options.only), plan_of(options)
    bench = Bench(plan, figures, names, patterns, options.disk_folder, options.verbose)
    what = f"{plan.rounds} rounds, {plan.seconds:g} s each, span {plan.span >> 20} MiB, {os.cpu_count()} cores"
    print(what, flush=True)
    for store in stores:
        bench.run_store(store)
    for store in stores:
        print_store(figures, store, patterns, [name for name in names if name != "raw-fdatasync"])
    print_targets(figures, stores)
    if options.extras:
        extras.run_all(figures, options.quick)
    return figures


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, stop)
    start = boottime()
    try:
        check_machine()
        figures = measure(options)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    if options.json:
        figures.save(options.json)
    for failure in figures.failures:
        print(f"failed: {failure}", file=sys.stderr)
    print(f"\n{boottime() - start:.0f} s")
    return 1 if figures.failures else 0
