"""A hci-storaged that stands alone, in a folder of its own, with its pool on files or disks given by path."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

from . import control
from .basics import BIN, IQN, LabError, free_port, wait_until

CONFIG = """cluster {{ name = "block" uuid = "{cluster}" profile = "default" }}
self = "a"
node "a" {{ uuid = "{node}" links = {{"127.0.0.1"}} }}
storage {{ portals = {{"127.0.0.1:{port}"}} }}
pki_folder = "{folder}/pki"
state_folder = "{folder}/state"
run_folder = "{run}"
"""


def run_folder(folder: Path) -> Path:
    """Elsewhere, since a socket's path has at most 107 bytes; a link in the folder says where."""
    link = folder / "run"
    if not link.is_symlink():
        link.symlink_to(tempfile.mkdtemp(prefix="hci-run."))
    return Path(os.readlink(link))


class Standalone:
    def __init__(self, folder: Path, port: int | None = None, bin_folder: Path | None = None):
        self.folder = Path(folder)
        self.port = port or free_port()
        self.bin = Path(bin_folder or BIN)
        self.process: subprocess.Popen | None = None
        for name in ("pki", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.run = run_folder(self.folder)
        self.socket = f"{self.run}/storaged.sock"
        self.config = self.folder / "hci.conf"
        self.log = self.folder / "storaged.log"
        if not self.config.exists():
            ids = {"cluster": uuid.uuid4(), "node": uuid.uuid4()}
            self.config.write_text(CONFIG.format(port=self.port, folder=self.folder, run=self.run, **ids))

    def launch(self, environment: dict | None = None) -> None:
        """Starts the process and waits for nothing."""
        with open(self.log, "ab") as log:
            words, more = [self.bin / "hci-storaged", "--config", self.config], environment or {}
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(words, env={**os.environ, **more}, **pipes)

    def start(self, timeout: float = 30) -> None:
        """Returns when it says READY."""
        path = f"{self.run}/notify"
        Path(path).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(path)
            ready.settimeout(0.1)
            self.launch({"NOTIFY_SOCKET": path})
            wait_until("hci-storaged is ready", lambda: self.heard(ready), timeout, 0)

    def heard(self, ready: socket.socket) -> bool:
        if self.process.poll() is not None:
            raise LabError(f"hci-storaged ended at once ({self.process.returncode}): {self.last_words()}")
        try:
            return b"READY=1" in ready.recv(4096).split(b"\n")
        except TimeoutError:
            return False

    def last_words(self, lines: int = 5) -> str:
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """SIGKILL: what a crash is to everybody else."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        """As systemd stops it. LabError when it does not end well."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise LabError(f"hci-storaged did not end within 30 s of SIGTERM: {self.last_words()}") from None
        if code != 0:
            raise LabError(f"hci-storaged ended with {code}: {self.last_words()}")

    def close(self) -> None:
        """Ends it whatever state it is in; for the end of a test."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        shutil.rmtree(self.run, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, method: str, timeout: float = 60, **params):
        return control.ask(self.socket, method, params, timeout)

    def pool(self, *paths: Path, file_bytes: int, **more) -> None:
        self.ask("pool.create", paths=[str(path) for path in paths], file_bytes=file_bytes, **more)

    def volume(self, name: str, size_bytes: int) -> str:
        """Makes a volume and returns its URL once it serves."""
        self.ask("volume.create", name=name, size_bytes=size_bytes)
        wait_until(f"volume {name} serves", lambda: self.find(name).get("serving"), 10)
        return self.url(name)

    def find(self, name: str) -> dict:
        return next((volume for volume in self.ask("volume.list")["volumes"] if volume["name"] == name), {})

    def url(self, name: str, user: str = "", secret: str = "") -> str:
        who = f"{user}%{secret}@" if user else ""
        return f"iscsi://{who}127.0.0.1:{self.port}/{IQN}{name}/0"
