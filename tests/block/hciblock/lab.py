"""What one block test gets: a folder, a daemon with a pool on two files, and everything ended when it is over."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from .basics import REPOSITORY, LabError, run
from .load import Load
from .standalone import Standalone

LOGS = REPOSITORY / "build" / "block-logs"


class Lab:
    def __init__(self, name: str):
        self.name = name
        parent = REPOSITORY / "build" / "block"
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        self.closers: list = []
        self.daemon_here: Standalone | None = None

    def daemon(self, file_bytes: int = 512 << 20, disks: int = 2, **pool) -> Standalone:
        """A daemon that serves, with a pool on so many files."""
        daemon = Standalone(self.folder / "node")
        self.closers.append(daemon)
        self.daemon_here = daemon
        daemon.start()
        daemon.pool(*(self.folder / f"disk{number}" for number in range(disks)), file_bytes=file_bytes, **pool)
        return daemon

    def load(self, url: str, **options) -> Load:
        """iscsi_load at the same time as the test."""
        load = Load(url, **options)
        self.closers.append(load)
        return load

    def start(self, *argv, **more) -> subprocess.Popen:
        process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, **more)
        self.closers.append(Ended(process))
        return process

    def close(self, failed: bool) -> Path | None:
        """Returns where the logs are when the test failed."""
        for closer in reversed(self.closers):
            closer.close()
        kept = self.keep_logs() if failed else None
        shutil.rmtree(self.folder, ignore_errors=True)
        return kept

    def keep_logs(self) -> Path:
        target = LOGS / self.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for log in self.folder.rglob("*.log"):
            shutil.copy(log, target / log.name)
        return target


class Ended:
    """Ends a process of the test when the test is over."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def qemu_io(url: str, *commands: str, timeout: float = 120, image: str = "raw") -> str:
    """Runs qemu-io's commands on the LUN; LabError when one fails, also where qemu-io only says so."""
    words = [word for command in commands for word in ("-c", command)]
    said = run(["qemu-io", "-f", image, "-t", "none", *words, url], timeout=timeout).stdout
    for line in said.splitlines():
        if any(word in line for word in ("failed", "rror", "Pattern verification")):
            raise LabError(f"qemu-io {'; '.join(commands)}: {line}")
    return said


