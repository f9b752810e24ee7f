"""Does the bench measure, and leave nothing behind? Its figures are nobody's business here."""

import json
import os
from itertools import product

from hciblock.basics import REPOSITORY, run

PATTERNS = ("randwrite-4k-d1", "randwrite-4k-d32", "randread-4k-d1", "randread-4k-d32", "write-1m-d4", "read-1m-d4")
SUBJECTS = ("raw", "tgt-cache", "tgt-sync", "ours")
METRICS = ("iops", "mib_s", "p50_us", "p99_us")


def documented() -> list[list[str]]:
    """The words of each command that docs/performance.md gives for the bench."""
    lines = (REPOSITORY / "docs" / "performance.md").read_text().splitlines()
    return [line.split("#")[0].split() for line in lines if line.startswith("    sudo tests/bench/run")]


def leftovers() -> set[str]:
    return {entry for entry in os.listdir("/tmp") if entry.startswith("hci-bench")}


def test_every_figure_is_there(lab):
    figures = lab.folder / "figures.json"
    before = leftovers()
    words = ["--rounds", "1", "--seconds", "0.2", "--span", "64", "--store", "ram", "--json", figures]
    run([REPOSITORY / "tests" / "bench" / "run", *words], timeout=150)
    measured = json.loads(figures.read_text())
    wanted = {".".join(words) for words in product(SUBJECTS, ("ram",), PATTERNS, METRICS)}
    assert not wanted - measured.keys(), f"missing: {sorted(wanted - measured.keys())[:3]}"
    assert all(measured[key] > 0 for key in wanted), "a figure is zero"
    assert leftovers() <= before, "a folder was left behind"


def test_documented_options_exist(lab):
    said = run([REPOSITORY / "tests" / "bench" / "run", "--help"]).stdout
    options = {word for words in documented() for word in words if word.startswith("--")}
    assert len(options) > 4, options
    assert not [option for option in options if f"{option} " not in said and f"{option}]" not in said], options
