"""The first process of a lab host: makes its private file tree, starts and watches its services.

It runs as process 1 of the host's own process namespace: killing it from outside kills the whole host at
once, which is what a power cut is. Inside it plays the part systemd plays on a real node: readiness
(NOTIFY_SOCKET), restart of what died, logs, reaping.

    keeper.py PLAN.json        with {"host", "folder", "socket", "mounts": […], "files": {path: text}, "log"}

Its socket answers one JSON line each:
    {"do": "spawn", "name", "argv", "env", "restart"}  starts a service; LOG/NAME.log collects what it prints
    {"do": "list"}                                     {"services": {name: {"pid", "state", "code", "starts"}}}
    {"do": "signal", "name", "signal"}"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RESTART_DELAY_S = 0.1
RESTART_BURST = 5          # so many deaths …
RESTART_BURST_S = 10.0     # … within so long end the attempts
NOTIFY_FOLDER = "/run/hci-lab-notify"


def mount(arguments: list[str]) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        raise SystemExit(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def build_tree(plan: dict) -> None:
    """Mounts what the plan says, in its order; a target that does not exist yet is made (in the host's own overlay)."""
    for entry in plan["mounts"]:
        Path(entry["target"]).mkdir(parents=True, exist_ok=True)
        mount([*entry["arguments"], entry["target"]])
    for path, text in plan["files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    socket.sethostname(plan["host"])


class Service:
    def __init__(self, request: dict, log_folder: str):
        self.name = request["name"]
        self.argv = request["argv"]
        self.env = request.get("env", {})
        self.restart = request.get("restart", False)
        self.log_path = f"{log_folder}/{self.name}.log"
        self.pid = 0
        self.state = "new"       # starting, ready, exited, failed (died too often)
        self.code = None
        self.starts = 0
        self.deaths: list[float] = []
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.notify.bind(f"{NOTIFY_FOLDER}/{self.name}")

    def start(self) -> None:
        environment = {**os.environ, **self.env, "NOTIFY_SOCKET": f"{NOTIFY_FOLDER}/{self.name}"}
        with open(self.log_path, "ab") as log:
            log.write(f"--- {time.strftime('%H:%M:%S')} start: {' '.join(self.argv)}\n".encode())
            log.flush()
            try:
                child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                         cwd="/", start_new_session=True)
            except OSError as error:
                log.write(f"{self.argv[0]}: {error.strerror}\n".encode())
                self.state, self.code = "failed", 127
                return
        self.pid, self.state, self.code = child.pid, "starting", None
        child.returncode = 0  # process 1 reaps for everybody; Popen must not try
        self.starts += 1

    def heard(self) -> None:
        text = self.notify.recv(4096).decode(errors="replace")
        if "READY=1" in text.split("\n") and self.state == "starting":
            self.state = "ready"

    def died(self, status: int) -> float | None:
        """Returns when to start it again, None for never."""
        now = time.monotonic()
        self.code = os.waitstatus_to_exitcode(status)
        self.deaths = [t for t in self.deaths if now - t < RESTART_BURST_S] + [now]
        with open(self.log_path, "ab") as log:
            log.write(f"--- {time.strftime('%H:%M:%S')} ended: {self.code}\n".encode())
        if not self.restart:
            self.state = "exited"
            return None
        if len(self.deaths) >= RESTART_BURST:
            self.state = "failed"
            return None
        self.state = "exited"
        return now + RESTART_DELAY_S


class Keeper:
    def __init__(self, plan: dict):
        self.log_folder = plan["log"]
        self.services: dict[str, Service] = {}
        self.due: dict[str, float] = {}
        self.selector = selectors.DefaultSelector()
        Path(NOTIFY_FOLDER).mkdir(parents=True, exist_ok=True)
        Path(plan["socket"]).unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.listener.bind(plan["socket"])
        self.listener.listen(16)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.wake_read, selectors.EVENT_READ, self.woken)

    def run(self) -> None:
        while True:
            now = time.monotonic()
            for name in [name for name, when in self.due.items() if when <= now]:
                del self.due[name]
                self.services[name].start()
            timeout = max(0.0, min(self.due.values()) - now) if self.due else None
            for key, _ in self.selector.select(timeout):
                key.data()
            self.reap()

    def woken(self) -> None:
        os.read(self.wake_read, 4096)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self.services.values():
                if service.pid == pid:
                    service.pid = 0
                    again = service.died(status)
                    if again is not None:
                        self.due[service.name] = again

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(2)
            try:
                request = json.loads(connection.makefile("r").readline())
                answer = getattr(self, "do_" + request["do"])(request)
            except (OSError, ValueError, KeyError, AttributeError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            try:
                connection.sendall((json.dumps(answer) + "\n").encode())
            except OSError:
                pass

    def do_spawn(self, request: dict) -> dict:
        old = self.services.get(request["name"])
        if old and old.pid:
            return {"error": f"{old.name} runs already"}
        if old:
            self.selector.unregister(old.notify)
            old.notify.close()
            os.unlink(f"{NOTIFY_FOLDER}/{old.name}")
            self.due.pop(old.name, None)
        service = Service(request, self.log_folder)
        self.services[service.name] = service
        self.selector.register(service.notify, selectors.EVENT_READ, service.heard)
        service.start()
        return {"pid": service.pid}

    def do_list(self, request: dict) -> dict:
        return {"services": {s.name: {"pid": s.pid, "state": s.state, "code": s.code, "starts": s.starts}
                             for s in self.services.values()}}

    def do_signal(self, request: dict) -> dict:
        service = self.services[request["name"]]
        if not service.pid:
            return {"error": f"{service.name} does not run"}
        if request.get("stay_down"):
            service.restart = False
        os.kill(service.pid, request["signal"])
        return {}


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    build_tree(plan)
    Keeper(plan).run()


if __name__ == "__main__":
    main()
