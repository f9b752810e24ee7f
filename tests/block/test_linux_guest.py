"""Is the LUN a correct disk to the Linux kernel's initiator? File systems made, filled, checked after crashes."""

import time

from hciblock.basics import run
from hciblock.guest import Guest

PREPARE = ("initiator",)
MIB = 1 << 20
VOLUMES = ["ext", "xfs"]
USER, SECRET, MUTUAL_USER, MUTUAL_SECRET = "guest", "a-secret-of-16-b", "target", "another-secret-16"
CHAP = f"{USER},{SECRET},{MUTUAL_USER},{MUTUAL_SECRET}"


def served(lab):
    """A daemon with two volumes that want mutual CHAP."""
    daemon = lab.daemon(file_bytes=2 << 30)
    for name in VOLUMES:
        daemon.volume(name, 400 * MIB)
        mutual = {"mutual_user": MUTUAL_USER, "mutual_secret": MUTUAL_SECRET}
        daemon.ask("target.chap", name=name, user=USER, secret=SECRET, **mutual)
    return daemon


def events(said: list[dict]) -> list[str]:
    return [entry["event"] for entry in said]


def boot(lab, daemon, do: str, **settings) -> Guest:
    return Guest(lab, do, daemon.port, VOLUMES, **{"chap": CHAP, **settings})


def test_file_systems_survive_reboots(lab):
    daemon = served(lab)
    said = boot(lab, daemon, "make").done()
    assert events(said) == ["login", "mkfs", "mount", "fill", "compare", "umount", "logout", "done"], said
    full = daemon.find("ext")["used_bytes"]
    daemon.stop()
    daemon.start()
    said = boot(lab, daemon, "check", digest="CRC32C").done()
    checked = ["fsck", "mount", "compare", "trim", "compare", "umount", "fsck"]
    assert events(said) == ["login", *checked, "logout", "done"], said
    assert full > 18 * MIB, full


def test_storaged_killed_while_the_guest_writes(lab):
    """Only a pause: nothing in the guest fails, and both file systems are clean afterwards."""
    daemon = served(lab)
    boot(lab, daemon, "make").done()
    guest = boot(lab, daemon, "write", rounds=40)
    for round_number in (5, 20):
        guest.wait("written", round=round_number)
        daemon.kill()
        time.sleep(0.5)
        daemon.start()
    guest.done(150)
    boot(lab, daemon, "recover", rounds=40).done()


def test_guest_loses_power(lab):
    """What the guest was told is on the disk (fsync) is there after its next boot; the journals recover."""
    daemon = served(lab)
    boot(lab, daemon, "make").done()
    guest = boot(lab, daemon, "write", rounds=1000)
    announced = [entry["round"] for entry in guest.wait("written", round=12) if entry["event"] == "written"][-1]
    guest.cut_power()
    daemon.kill()
    daemon.start()
    said = boot(lab, daemon, "recover", rounds=announced).done()
    assert "runs" in events(said) and events(said)[-1] == "done", said


def test_wrong_secret_is_refused(lab):
    daemon = served(lab)
    guest = boot(lab, daemon, "check", chap=f"{USER},not-the-secret-16")
    said = guest.wait("failed")
    assert said[-1]["what"] == "login", said
    for name in VOLUMES:
        assert run(["iscsi-inq", daemon.url(name)], check=False).returncode != 0, "a stranger was let in"


test_file_systems_survive_reboots.limit_s = 300
test_storaged_killed_while_the_guest_writes.limit_s = 300
test_guest_loses_power.limit_s = 300
