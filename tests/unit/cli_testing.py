"""What the tests of hcictl's process share: running it in folders of its own, and standing in for a daemon."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading

HCICTL = os.environ.get("HCICTL", "hcictl")
STORAGED = os.environ.get("HCI_STORAGED", "hci-storaged")


class Host:
    """The folders of one host; every command gets them as options."""

    def __init__(self, base, name):
        self.base = os.path.join(base, name)
        self.config = os.path.join(self.base, "etc-hci")
        self.corosync = os.path.join(self.base, "etc-corosync")
        self.state = os.path.join(self.base, "state")
        self.run = os.path.join(self.base, "run")
        os.makedirs(self.run)

    def options(self):
        return ["--config-folder", self.config, "--corosync-folder", self.corosync, "--state-folder", self.state,
                "--run-folder", self.run]

    def command(self, *arguments):
        return [HCICTL, *self.options(), *arguments]

    def ctl(self, *arguments, timeout=30):
        """Runs one command; gives its exit code, stdout and stderr."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout)
        return done.returncode, done.stdout, done.stderr

    def json(self, *arguments):
        code, out, error = self.ctl("--json", *arguments)
        assert code == 0, f"{arguments}: exit {code}: {error}"
        return json.loads(out)

    def init(self, name="shop17", *more):
        return self.ctl("cluster", "init", "--name", name, "--node", "a=127.0.0.1,127.0.1.1", "--node",
                        "b=127.0.0.2,127.0.1.2", "--watchdog-socket", "/run/lab/watchdog.sock", *more)

    def read(self, path):
        with open(os.path.join(self.base, path), encoding="utf-8") as file:
            return file.read()

    def mode(self, path):
        return os.stat(os.path.join(self.base, path)).st_mode & 0o777

    def exists(self, path):
        return os.path.exists(os.path.join(self.base, path))


@contextlib.contextmanager
def scratch():
    base = tempfile.mkdtemp(prefix="hcictl-test-")
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Invite:
    """`hcictl cluster invite` running; its token and address are read from its one JSON document."""

    def __init__(self, host):
        self.port = free_port()
        self.process = subprocess.Popen(
            host.command("--json", "cluster", "invite", "--listen", f"127.0.0.1:{self.port}"), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        text = ""
        for line in self.process.stdout:
            text += line
            if line.startswith("}"):
                break
        assert text, self.process.stderr.read()
        document = json.loads(text)
        self.token, self.address = document["token"], document["address"]

    def finish(self, timeout=20):
        """Waits for its end; gives exit code and stderr."""
        _, error = self.process.communicate(timeout=timeout)
        return self.process.returncode, error

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Storaged:
    """hci-storaged running for a host that `cluster init` has made; ready when the constructor returns."""

    def __init__(self, host):
        self.log = open(os.path.join(host.base, "storaged.log"), "ab")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            address = os.path.join(host.base, "notify")
            ready.bind(address)
            ready.settimeout(60)
            try:
                self.process = subprocess.Popen([STORAGED, "--config", os.path.join(host.config, "hci.conf")], stderr=self.log,
                                                env={**os.environ, "NOTIFY_SOCKET": address})
                assert b"READY=1" in ready.recv(4096)
            finally:
                os.unlink(address)

    def end(self, kill=False):
        if self.process.poll() is None:
            self.process.kill() if kill else self.process.terminate()
        code = self.process.wait(timeout=30)
        self.log.close()
        return code


class FakeDaemon(threading.Thread):
    """Answers control socket requests from a table: method -> result, {"error": …}, or what makes one of the parameters;
    remembers what was asked."""

    def __init__(self, path, answers):
        super().__init__(daemon=True)
        self.answers, self.asked = answers, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.path = path
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rw", encoding="utf-8") as stream:
                for line in stream:
                    request = json.loads(line)
                    self.asked.append((request["method"], request.get("params")))
                    answer = self.answers.get(request["method"], {"error": {"code": "unknown",
                                                                            "message": "no such method"}})
                    if callable(answer):
                        answer = answer(request.get("params"))
                    reply = {"id": request["id"]}
                    reply.update(answer if "error" in answer else {"result": answer})
                    stream.write(json.dumps(reply) + "\n")
                    stream.flush()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        os.unlink(self.path)
        self.join()
