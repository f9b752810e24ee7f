"""Is everything that was acknowledged still there after SIGKILL of the daemon, at any moment?"""

import random
import time

from hciblock.load import load

MIB = 1 << 20
SPAN = 96 * MIB
ROUNDS = 6


def options(lab, number: int) -> dict:
    return {"verify": True, "blank": True, "state": lab.folder / "state", "seed": 40 + number}


def check(lab, url: str, number: int) -> dict:
    """Reads all of it; what was in doubt is settled by what is there, and must stay so from then on."""
    said = load(url, check=True, block="256K", depth=4, **options(lab, number))
    assert said["blocks_compared"] == SPAN // 4096, said
    return said


def kill_rounds(lab, journal_bytes: int | None, **pattern) -> None:
    """The moment is left to chance: a test of timing would only find the same bug again."""
    dice = random.Random()
    daemon = lab.daemon(**({"journal_bytes": journal_bytes} if journal_bytes else {}))
    url = daemon.volume("v", SPAN)
    answered = 0
    for number in range(ROUNDS):
        writer = lab.load(url, write=100, seconds=60, **pattern, **options(lab, number))
        time.sleep(dice.uniform(0.1, 1.5))
        daemon.kill()
        said = writer.wait(allowed=(3,))
        answered += said["answered"]
        daemon.start()
        check(lab, url, number)
        check(lab, url, number)
    assert answered > ROUNDS * 100, answered


def test_killed_during_small_writes(lab):
    kill_rounds(lab, None, depth=32)


def test_killed_during_mixed_sizes(lab):
    kill_rounds(lab, None, depth=8, block="64K")


def test_killed_during_large_sequential_writes(lab):
    kill_rounds(lab, None, depth=4, block="1M", pattern="seq")


def test_killed_with_a_small_journal(lab):
    """The journal goes round several times a second, so that a kill meets checkpoints, too."""
    kill_rounds(lab, 16 * MIB, depth=64)


def test_killed_while_it_starts(lab):
    """A crash during the replay after a crash."""
    dice = random.Random()
    daemon = lab.daemon()
    url = daemon.volume("v", SPAN)
    writer = lab.load(url, write=100, depth=32, seconds=60, **options(lab, 0))
    time.sleep(1)
    daemon.kill()
    writer.wait(allowed=(3,))
    for _ in range(5):
        daemon.launch()
        time.sleep(dice.uniform(0.001, 0.06))
        daemon.kill()
    daemon.start()
    check(lab, url, 0)


def test_initiator_goes_on(lab):
    """The initiator makes its connection again and sends again what was not answered: its user only sees a pause."""
    daemon = lab.daemon()
    url = daemon.volume("v", SPAN)
    writer = lab.load(url, write=70, depth=16, seconds=8, reconnect=True, **options(lab, 0))
    for _ in range(2):
        time.sleep(1.5)
        daemon.kill()
        daemon.start()
    said = writer.wait()
    assert said["errors"] == 0 and said["blocks_bad"] == 0 and said["blocks_in_doubt"] == 0, said
    check(lab, url, 0)


def test_stopped_in_order(lab):
    """SIGTERM under load: nothing acknowledged is lost either, and the daemon ends well."""
    daemon = lab.daemon()
    url = daemon.volume("v", SPAN)
    writer = lab.load(url, write=100, depth=32, seconds=60, **options(lab, 0))
    time.sleep(1)
    daemon.stop()
    writer.wait(allowed=(3,))
    daemon.start()
    check(lab, url, 0)
