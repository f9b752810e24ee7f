#!/usr/bin/env python3
"""README's "A disk in five minutes", typed as it stands. A newcomer's machine is played: systemctl starts the daemon,
the paths below /var/lib/hci and port 3260 are others, disk.qcow2 is an image that boots and says so, and iscsiadm, which
needs a kernel that can, is libiscsi."""
import os
import re
import stat
import subprocess
import time
import unittest

from cli_testing import HCICTL, STORAGED, Host, free_port, scratch

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")
SECTION = "A disk in five minutes"
BUILT_ELSEWHERE = ("apt-get ", "cmake ")  # what ./check itself does
SAYS = b"booted from the volume"

# mov si, text; mov dx, 0x3f8 (the first serial line); lodsb; out dx, al …; hlt: sixteen bits, at 0x7c00
BOOT_SECTOR = bytes.fromhex("31c08ed8be157cbaf803ac84c07403eeebf8f4ebfd") + SAYS + b"\r\n\0"

TOOLS = {
    "hcictl": 'case "$1 $2" in "cluster init") set -- "$@" --portal 127.0.0.1:{port};; esac\nexec {hcictl} {options} "$@"',
    "systemctl": 'echo "$@" >> {base}/systemctl.log\ncase "$1" in enable) {storaged} --config {config}/hci.conf >> {base}/log 2>&1 &\n'
    'echo $! > {base}/pid\nuntil [ -S {run}/storaged.sock ]; do kill -0 $! || exit 1; sleep 0.05; done;; esac',
    "iscsiadm": 'echo "$@" >> {base}/iscsiadm.log\ncase "$*" in\n'
    '"-m discovery -t sendtargets -p 127.0.0.1:{port}") exec iscsi-ls iscsi://127.0.0.1:{port};;\n'
    '"-m node -T iqn.2026-01.io.hci:web -p 127.0.0.1:{port} --login") '
    'exec iscsi-inq iscsi://127.0.0.1:{port}/iqn.2026-01.io.hci:web/0;;\n'
    '"-m node -T iqn.2026-01.io.hci:web -p 127.0.0.1:{port} --logout") ;;\n*) exit 1;; esac',
}


def commands_of(text, section):
    """The indented lines under a heading, those that end in a backslash joined with the next; comments cut off."""
    body = re.split(r"^## ", text.split(f"## {section}\n")[1], maxsplit=1, flags=re.M)[0]
    code = "\n".join(line[4:] for line in body.splitlines() if line.startswith("    ")).replace("\\\n", " ")
    return [re.sub(r"\s+# .*$", "", line).strip() for line in code.splitlines() if line.strip()]


class NewcomerTest(unittest.TestCase):
    def setUp(self):
        context = scratch()
        self.base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.host, self.port = Host(self.base, "a"), free_port()
        self.tools = os.path.join(self.base, "bin")
        os.mkdir(self.tools)
        values = {
            "port": self.port,
            "base": self.base,
            "config": self.host.config,
            "run": self.host.run,
            "storaged": STORAGED,
            "hcictl": HCICTL,
            "options": " ".join(self.host.options()),
        }
        for name, text in TOOLS.items():
            path = os.path.join(self.tools, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\n" + text.format(**values) + "\n")
            os.chmod(path, stat.S_IRWXU)
        self.addCleanup(self.stop)
        sector = BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa"
        with open(os.path.join(self.base, "disk.raw"), "wb") as file:
            file.write(sector.ljust(1 << 20, b"\0"))
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"], cwd=self.base, check=True
        )

    def stop(self):
        try:
            with open(os.path.join(self.base, "pid"), encoding="ascii") as file:
                pid = int(file.read())
            os.kill(pid, 15)
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.05)
        except (FileNotFoundError, ProcessLookupError):
            pass

    def shell(self, line):
        line = line.replace("127.0.0.1:3260", f"127.0.0.1:{self.port}").replace("/var/lib/hci/", self.base + "/")
        return ["sh", "-c", line], {
            "cwd": self.base,
            "env": {**os.environ, "PATH": self.tools + ":" + os.environ["PATH"]},
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }

    def run_to_end(self, line):
        words, keys = self.shell(line)
        done = subprocess.run(words, input=b"correct horse battery\n", timeout=120, **keys)
        self.assertEqual(done.returncode, 0, f"{line}: {done.stdout.decode()}")
        return done.stdout.decode()

    def boot(self, line):
        """A machine has no end of its own: it is ended when its guest has spoken."""
        words, keys = self.shell("exec " + line)
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, **keys) as machine:
            out = b""
            for part in iter(lambda: machine.stdout.read1(4096), b""):
                out += part
                if SAYS in out:
                    break
            machine.kill()
        self.assertIn(SAYS, out)

    def test_every_command(self):
        with open(README, encoding="utf-8") as file:
            lines = commands_of(file.read(), SECTION)
        told = {}
        for line in lines:
            if line.startswith(BUILT_ELSEWHERE) or "daemon-reload" in line:
                continue
            told[line] = self.boot(line) if line.startswith("qemu-system") else self.run_to_end(line)
        for word in (
            "cluster init",
            "systemctl enable",
            "pool create",
            "volume create",
            "qemu-img",
            "qemu-system",
            "iscsiadm",
            "target acl",
            "target chap",
            "hcictl status",
        ):
            self.assertTrue([line for line in told if word in line], f"the section does not show {word}")
        discovered = next(out for line, out in told.items() if "sendtargets" in line)
        self.assertIn("iqn.2026-01.io.hci:web", discovered)
        self.assertIn("all is well", next(out for line, out in told.items() if line == "hcictl status"))


if __name__ == "__main__":
    unittest.main()
