"""Runs iscsi_load (tests/bench), the client that knows what it was promised."""

import json
import subprocess

from .basics import BIN, LabError


class Load:
    """One run of it. Keywords are its options: Load(url, write=100, depth=32, verify=True)."""

    def __init__(self, url: str, **options):
        words = []
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)] if value is not None else []
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([BIN / "iscsi_load", *words, url], text=True, **pipes)

    def wait(self, timeout: float = 120, allowed=(0,)) -> dict:
        """What it measured; LabError when it ended in another way than allowed."""
        try:
            out, said = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.close()
            raise LabError(f"iscsi_load did not end within {timeout:g} s") from None
        if self.process.returncode not in allowed:
            raise LabError(f"iscsi_load ended with {self.process.returncode}: {' | '.join(said.splitlines()[:4])}")
        return {**json.loads(out), "status": self.process.returncode}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def load(url: str, timeout: float = 120, **options) -> dict:
    return Load(url, **options).wait(timeout)
