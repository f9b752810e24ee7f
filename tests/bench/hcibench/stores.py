"""Where the subjects keep their bytes: a folder on this machine's disk, or a bounded RAM disk."""

import os
import shutil
import tempfile
from pathlib import Path

from hciblock.basics import REPOSITORY, LabError, run

STORES = ("disk", "ram")


class Store:
    """A folder that is gone afterwards. The RAM disk is mounted in this process's own mount namespace (see run)."""

    def __init__(self, name: str, bytes_needed: int, disk_folder: Path | None = None):
        self.name = name
        parent = Path(disk_folder or REPOSITORY / "build") if name == "disk" else Path(tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="hci-bench-", dir=parent))
        if name == "ram":
            run(["mount", "-t", "tmpfs", "-o", f"size={bytes_needed},mode=700", "tmpfs", self.folder])
        self.check_room(bytes_needed)

    def check_room(self, bytes_needed: int) -> None:
        if self.name == "ram":
            fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
            free = int(fields["MemAvailable"].split()[0]) * 1024
        else:
            free = shutil.disk_usage(self.folder).free
        if free < bytes_needed * 5 // 4:
            self.close()
            raise LabError(f"store {self.name}: {bytes_needed >> 20} MiB are needed and {free >> 20} MiB are free: "
                           "give a smaller --span")

    def preallocate(self, name: str, size: int) -> Path:
        """A file of that size, written in full, and on the disk."""
        path = self.folder / name
        run(["fio", "--name=fill", f"--filename={path}", f"--size={size}", "--rw=write", "--bs=1M", "--direct=1",
             "--ioengine=io_uring", "--iodepth=4", "--end_fsync=1", "--refill_buffers"], timeout=300)
        return path

    def flush(self) -> None:
        """What a subject left in the page cache goes to the disk now, and is nobody else's load."""
        plain = os.open(self.folder / "plain", os.O_RDWR)
        try:
            os.fdatasync(plain)
        finally:
            os.close(plain)

    def close(self) -> None:
        if self.name == "ram":
            run(["umount", "-l", self.folder], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
