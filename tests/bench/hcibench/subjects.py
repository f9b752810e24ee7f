"""What is measured: the raw file, tgt with and without the page cache, and hci-storaged.

Each has open(), run(pattern, seconds, warmup) → figures, and close(); all of a store use the same span."""

import json
import os
import subprocess

from hciblock.basics import LabError, cpu_seconds, free_port, run, wait_until
from hciblock.load import load
from hciblock.standalone import Standalone

from .patterns import Pattern
from .stores import Store

LIMIT_S = 300


class Raw:
    """fio on the file that tgt serves: what the disk itself gives."""
    name = "raw"
    sync = False

    def __init__(self, store: Store, span: int):
        self.path, self.span = store.folder / "plain", span

    def open(self) -> None:
        pass

    def run(self, pattern: Pattern, seconds: float, warmup: float) -> dict:
        kind = ("rand" if pattern.random else "") + ("write" if pattern.write else "read")
        words = [
            *("fio", "--name=raw", f"--filename={self.path}", f"--size={self.span}", f"--rw={kind}"),
            *(f"--bs={pattern.block}", f"--iodepth={pattern.depth}", f"--runtime={seconds * 1e3:.0f}ms"),
            f"--ramp_time={warmup * 1e3:.0f}ms",
            *("--time_based", "--direct=1", "--ioengine=io_uring", "--norandommap", "--randrepeat=0"),
            *("--lat_percentiles=1", "--output-format=json"),
        ]
        if self.sync:
            words.append("--fdatasync=1")
        said = json.loads(run(words, timeout=LIMIT_S).stdout)["jobs"][0]
        side = said["write" if pattern.write else "read"]
        points = side["lat_ns"]["percentile"]
        extra = said["sync"]["lat_ns"]["percentile"] if self.sync else {}
        return {"iops": side["iops"], "mib_s": side["bw_bytes"] / (1 << 20),
                "p50_us": (points["50.000000"] + extra.get("50.000000", 0)) / 1e3,
                "p99_us": (points["99.000000"] + extra.get("99.000000", 0)) / 1e3}

    def close(self) -> None:
        pass


class RawSync(Raw):
    """Each write followed by fdatasync: what a durable write costs on this disk without any network."""
    name = "raw-fdatasync"
    sync = True


class Served:
    """What the two iSCSI targets share: iscsi_load, and the time their process used."""
    url = ""
    pid = 0

    def fill(self, span: int) -> None:
        load(self.url, LIMIT_S, pattern="seq", write=100, block="1M", depth=4, total=span, seconds=LIMIT_S)

    def run(self, pattern: Pattern, seconds: float, warmup: float) -> dict:
        before = cpu_seconds(self.pid)
        kind, write = "rand" if pattern.random else "seq", 100 if pattern.write else 0
        options = {"block": pattern.block, "depth": pattern.depth, "seconds": seconds, "warmup": warmup}
        said = load(self.url, LIMIT_S, pattern=kind, write=write, seed=os.getrandom(1)[0] + 1, **options)
        used = cpu_seconds(self.pid) - before
        latency = said["write" if pattern.write else "read"]
        figures = {"iops": said["iops"], "mib_s": said["mib_s"], "ops_per_cpu_s": said["answered"] / max(used, 0.01)}
        return {**figures, "p50_us": latency["p50_us"], "p99_us": latency["p99_us"]}

    def settle(self) -> None:
        """Until the process has nothing to do any more, so that it is no load for the next subject."""
        last = [cpu_seconds(self.pid)]

        def idle() -> bool:
            now = cpu_seconds(self.pid)
            done, last[0] = now - last[0] < 0.02, now
            return done
        wait_until(f"{self.name} is idle", idle, 30, 0.15)


class Tgt(Served):
    def __init__(self, store: Store, span: int, sync: bool):
        self.name = "tgt-sync" if sync else "tgt-cache"
        self.sync, self.span, self.store = sync, span, store
        self.process: subprocess.Popen | None = None
        self.environment = {**os.environ, "TGT_IPC_SOCKET": str(store.folder / f"{self.name}.sock")}

    def call(self, *words) -> subprocess.CompletedProcess:
        words = ["tgtadm", "-C", "0", "--lld", "iscsi", *words]
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=20)

    def admin(self, *words) -> None:
        said = self.call(*words)
        if said.returncode != 0:
            raise LabError(f"tgtadm {' '.join(words)}: {(said.stderr or said.stdout).strip()}")

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise LabError(f"tgtd ended at once ({self.process.returncode})")
        return self.call("--op", "show", "--mode", "sys").returncode == 0

    def open(self) -> None:
        port, iqn = free_port(), f"iqn.2026-01.io.hci:{self.name}"
        words = ["tgtd", "-f", "-C", "0", "--iscsi", f"portal=127.0.0.1:{port}"]
        with open(self.store.folder / f"{self.name}.log", "wb") as log:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(words, env=self.environment, **pipes)
        wait_until("tgtd answers", self.answers, 10)
        self.pid = self.process.pid
        flags = ("--bsoflags", "sync") if self.sync else ()
        backing = ("-b", str(self.store.folder / "plain"), *flags)
        self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T", iqn)
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", *backing)
        self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        self.url = f"iscsi://127.0.0.1:{port}/{iqn}/1"

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


class Ours(Served):
    name = "ours"

    def __init__(self, store: Store, span: int):
        self.store, self.span = store, span
        self.daemon = Standalone(store.folder / "node")
        self.journal_bytes = 0

    def open(self) -> None:
        self.daemon.start()
        self.pid = self.daemon.pid
        self.daemon.pool(self.store.folder / "pool", file_bytes=pool_bytes(self.span))
        self.url = self.daemon.volume("bench", self.span)
        self.journal_bytes = self.daemon.ask("pool.show").get("journal_bytes") or JOURNAL_BYTES
        self.fill(self.span)
        self.settle()

    def run(self, pattern: Pattern, seconds: float, warmup: float) -> dict:
        if pattern.write and pattern.random:
            # An empty journal would flatter: what is measured must be what lasts.
            load(self.url, LIMIT_S, write=100, depth=32, total=2 * self.journal_bytes, seconds=LIMIT_S)
        return super().run(pattern, seconds, warmup)

    def close(self) -> None:
        self.daemon.close()


JOURNAL_BYTES = 64 << 20  # what a pool gets when nobody says otherwise


def pool_bytes(span: int) -> int:
    """Room for the volume, the journal and the tables."""
    return span + span // 16 + 4 * JOURNAL_BYTES


def store_bytes(span: int) -> int:
    return span + pool_bytes(span) + (64 << 20)


SUBJECTS = ("raw", "tgt-cache", "tgt-sync", "ours")


def make(name: str, store: Store, span: int):
    if name in ("tgt-cache", "tgt-sync"):
        return Tgt(store, span, name == "tgt-sync")
    return {"raw": Raw, "raw-fdatasync": RawSync, "ours": Ours}[name](store, span)
