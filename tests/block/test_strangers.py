"""What can those do who only connect? Thousands of them, and who works must not notice, nor the memory grow."""

import resource
import socket
import subprocess

from hciblock.basics import BIN, memory_bytes, run
from hciblock.load import load

MANY = 10000
GROWTH_MAX = 64 << 20
LOGIN = b"\x43\x87" + bytes(46)  # the header of a login request
FLOOD = 1500


def allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))


def connect(port: int, number: int) -> socket.socket:
    """From one of 16 addresses, so that no single one runs out of ports."""
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(f"127.0.1.{number % 16 + 1}", 0))


def say(stranger: socket.socket, number: int) -> None:
    """A third is silent, a third says one byte, a third half of a login with its largest length."""
    try:
        if number % 3 == 1:
            stranger.send(b"\x43")
        elif number % 3 == 2:
            stranger.send(LOGIN[:5] + b"\x00\x20\x00" + LOGIN[8:] + b"InitiatorName=iqn.endless")
    except OSError:
        pass  # it has to go already


def test_ten_thousand_half_open_connections(lab):
    allow_descriptors(MANY)
    daemon = lab.daemon()
    url, other = daemon.volume("v", 64 << 20), daemon.volume("w", 64 << 20)
    options = {"verify": True, "blank": True, "state": lab.folder / "state"}
    load(url, write=50, depth=8, total=16 << 20, **options)
    before = memory_bytes(daemon.pid)
    worker = lab.load(url, write=50, depth=8, seconds=15, **options)
    strangers = []
    for number in range(MANY):
        strangers.append(connect(daemon.port, number))
        say(strangers[-1], number)
    run([BIN / "sessions", "4", "4", "1", other])  # new sessions get in, too
    assert worker.process.poll() is None, "the load was over before the strangers were there"
    grown = memory_bytes(daemon.pid) - before
    said = worker.wait()
    print(f"{MANY} strangers: the daemon grew by {grown >> 20} MiB, while {said['iops']:.0f} operations/s went on, "
          f"the longest stall {said['stall_max_s']:.3f} s")
    assert said["blocks_bad"] == 0 and said["errors"] == 0, said
    assert grown < GROWTH_MAX, f"the daemon grew by {grown >> 20} MiB"
    for stranger in strangers:
        stranger.close()


def refused_login(port: int, number: int) -> bytes:
    """The answer's header to a login for a volume that is not there."""
    text = b"InitiatorName=iqn.flood\0TargetName=iqn.2026-01.io.hci:none\0"
    with connect(port, number) as stranger:
        stranger.sendall(LOGIN[:7] + bytes([len(text)]) + LOGIN[8:] + text + bytes(-len(text) % 4))
        return stranger.recv(48)


def test_a_flood_of_refused_logins(lab):
    """Each is answered; the log does not fill up with them; nothing is left behind."""
    daemon = lab.daemon()
    url = daemon.volume("v", 64 << 20)
    worker = lab.load(url, write=50, depth=4, seconds=5, verify=True, blank=True, state=lab.folder / "state")
    for number in range(FLOOD):
        answer = refused_login(daemon.port, number)
        assert answer[0] == 0x23 and answer[36:38] == b"\x02\x03", answer.hex()
    assert worker.wait()["blocks_bad"] == 0
    assert daemon.log.read_text().count("refused") < FLOOD / 10
    load(url, seconds=1)


def test_many_sessions_share_fairly(lab):
    """256 sessions over four volumes: no error, and the slowest does at least half of what the median does."""
    daemon = lab.daemon()
    urls = [daemon.volume(f"v{number}", 64 << 20) for number in range(4)]
    allow_descriptors(600)
    done = subprocess.run([BIN / "sessions", "256", "8", "5", *urls], capture_output=True, text=True, timeout=90)
    print(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
