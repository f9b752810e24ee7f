"""Access lists and CHAP, set while the volume serves, as real initiators meet them."""

import subprocess

from hciblock.basics import run, wait_until
from hciblock.load import load

US, THEM = "iqn.2026-01.org.example:us", "iqn.2026-01.org.example:them"
SECRET, OTHER = "a secret of ours", "another secret"


def may(url: str, name: str = US, mutual: str = "") -> bool:
    """Does a login with a command behind it work?"""
    return subprocess.run(["iscsi-inq", "-i", name, url + mutual], capture_output=True, timeout=30).returncode == 0


def discovered(daemon, name: str = US, credentials: str = "") -> set[str]:
    said = run(["iscsi-ls", "-i", name, f"iscsi://{credentials}127.0.0.1:{daemon.port}"]).stdout
    return {line.split()[0].removeprefix("Target:").rpartition(":")[2] for line in said.splitlines() if line.startswith("Target:")}


def test_access_list(lab):
    daemon = lab.daemon()
    url = daemon.volume("v", 64 << 20)
    daemon.volume("w", 64 << 20)
    assert may(url) and discovered(daemon) == {"v", "w"}
    daemon.ask("target.set", name="v", initiators=[US])
    assert may(url) and not may(url, THEM)
    assert discovered(daemon) == {"v", "w"} and discovered(daemon, THEM) == {"w"}
    daemon.ask("target.set", name="v", initiators=[])
    assert not may(url) and not may(url, THEM)
    assert "access list is empty" in daemon.log.read_text()
    daemon.ask("target.set", name="v", initiators=None)
    assert may(url) and may(url, THEM)


def test_who_is_taken_off_the_list_is_hung_up_on(lab):
    daemon = lab.daemon()
    url = daemon.volume("v", 64 << 20)
    worker = lab.load(url, seconds=60)
    wait_until("the load is logged in", lambda: daemon.ask("target.show", name="v")["sessions"], 10)
    daemon.ask("target.set", name="v", initiators=[THEM])
    wait_until("the load is gone", lambda: not daemon.ask("target.show", name="v")["sessions"], 10)
    worker.wait(allowed=(1, 3))


def test_chap(lab):
    daemon = lab.daemon()
    url = daemon.volume("v", 64 << 20)
    daemon.ask("target.chap", name="v", user="us", secret=SECRET)
    right, wrong = (daemon.url("v", "us", secret) for secret in (SECRET, OTHER))
    assert may(right) and not may(wrong) and not may(url)
    assert discovered(daemon) == set(), "a volume with a secret was shown to somebody without"
    assert discovered(daemon, credentials=f"us%{SECRET}@") == {"v"}
    daemon.ask("target.chap", name="v", user="us", secret=SECRET, mutual_user="target", mutual_secret=OTHER)
    assert may(right), "one-way is enough when the initiator does not ask"
    assert may(right, mutual=f"?target_user=target&target_password={OTHER}")
    assert not may(right, mutual=f"?target_user=target&target_password={SECRET}")
    daemon.ask("target.chap", name="v", off=True)
    assert may(url)
    load(url, seconds=1)
    assert SECRET not in daemon.log.read_text() and OTHER not in daemon.log.read_text()


def test_settings_outlive_the_daemon(lab):
    daemon = lab.daemon()
    url = daemon.volume("v", 64 << 20)
    daemon.ask("target.set", name="v", initiators=[US])
    daemon.ask("target.chap", name="v", user="us", secret=SECRET)
    daemon.kill()
    daemon.start()
    with_secret = daemon.url("v", "us", SECRET)
    wait_until("the volume serves", lambda: daemon.find("v").get("serving"), 10)
    assert may(with_secret) and not may(with_secret, THEM) and not may(url)
