"""Runs the fuzz targets of the preset `fuzz`: kept inputs, then fresh ones, and the proof that a target finds bugs."""

import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
BIN = TOP / "build" / "fuzz" / "bin"
FOUND = TOP / "build" / "fuzz-found"
SYMBOLIZER = "/usr/lib/llvm-14/bin/llvm-symbolizer"  # of package llvm-14
PLANTED = "the planted bug"
LIMITS = ["-rss_limit_mb=2048", "-malloc_limit_mb=1024", "-timeout=20", "-max_len=8192"]
FRESH_SECONDS = 10
PLANTED_SECONDS = 20
DICTIONARIES = {
    "iscsi": ("iscsi_login", "iscsi_session", "iscsi_text", "iscsi_chap"), "site": ("site",), "domain_xml": ("domain_xml",),
    "json": ("record", "site_json", "control_server", "storaged_methods", "quorumd_methods", "guest", "reservation_text")}


def targets() -> list[str]:
    return sorted(source.stem.removeprefix("fuzz_") for source in HERE.glob("fuzz_*.c"))


def kept(target: str) -> list[Path]:
    """Corpus and regressions of a target, those that there are."""
    folders = [HERE / "corpus" / target, HERE / "regressions" / target]
    return [folder for folder in folders if folder.is_dir()]


def options(target: str) -> list[str]:
    return LIMITS + [f"-dict={HERE}/dict/{name}.dict" for name, users in DICTIONARIES.items() if target in users]


def call(command: list[str], seconds: float) -> tuple[int, str]:
    """Its result and what it said. It ends itself; `seconds` is for the case that it does not."""
    with tempfile.TemporaryDirectory(prefix="hci-fuzz-", dir="/dev/shm") as folder:
        environment = os.environ | {"HCI_FUZZ_FOLDER": folder, "ASAN_SYMBOLIZER_PATH": SYMBOLIZER}
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=seconds, errors="replace", cwd=TOP)
            return done.returncode, done.stdout
        except subprocess.TimeoutExpired as late:
            return -1, (late.stdout or b"").decode(errors="replace") + f"\nit did not end within {seconds:.0f} s"


def tell(target: str, said: str) -> str:
    """The reason of a failure: what was wrong, where, and how to see it again."""
    lines = said.splitlines()
    words = ("SUMMARY", "check failed", "ERROR: libFuzzer", "did not end", "runtime error")
    telling = [line.strip() for line in lines if any(word in line for word in words)][:3]
    places = [line.split()[-1] for line in lines if "Test unit written to" in line]
    again = f"; again: build/fuzz/bin/fuzz_{target} {places[-1]}" if places else ""
    return "; ".join(telling or lines[-2:]) + again


def fuzz(target: str, seconds: float) -> str | None:
    """None, or why it failed. What was kept is run first, whatever `seconds` says."""
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hci-fuzz-") as fresh:
        started = time.monotonic()
        common = [str(BIN / f"fuzz_{target}"), *options(target), f"-artifact_prefix={FOUND}/{target}-"]
        files = [str(file) for folder in kept(target) for file in sorted(folder.iterdir())]
        result, said = call([*common, *files], 120) if files else (0, "")
        left = seconds - (time.monotonic() - started)
        if result == 0 and left >= 1:
            folders = [str(folder) for folder in kept(target)]
            result, said = call([*common, f"-max_total_time={left:.0f}", fresh, *folders], left + 90)
    return None if result == 0 else tell(target, said)


def planted(target: str) -> str | None:
    """The same target with a bug in its own code: if that is not found, nothing would be."""
    with tempfile.TemporaryDirectory(prefix="hci-fuzz-") as fresh:
        command = [str(BIN / f"fuzz_{target}_planted"), *options(target), f"-artifact_prefix={fresh}/",
                   f"-max_total_time={PLANTED_SECONDS}", fresh, *[str(folder) for folder in kept(target)]]
        result, said = call(command, PLANTED_SECONDS + 60)
    if result != 0 and PLANTED in said:
        return None
    return "the planted bug was not found" if result == 0 else tell(f"{target}_planted", said)


def run_one(target: str, seconds: float, report) -> None:
    for name, run in ((target, lambda: fuzz(target, seconds)), (f"{target} planted bug", lambda: planted(target))):
        started = time.monotonic()
        failure = run()
        report(name, time.monotonic() - started, failure)


def run_all(report, wanted=None, seconds: float = FRESH_SECONDS) -> None:
    """Calls report(name, seconds, failure or None) for every target; two at a time, as many as CI has cores."""
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run_one, target, seconds, report) for target in wanted or targets()]:
            future.result()
