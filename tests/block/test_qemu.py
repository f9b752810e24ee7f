"""Is the LUN a correct disk to QEMU's own initiator (libiscsi), through qemu-io and qemu-img?"""

import hashlib
import os
import random

from hciblock.basics import run
from hciblock.lab import qemu_io

MIB = 1 << 20
SIZE = 256 * MIB


def test_patterns(lab):
    """Aligned and not, small and larger than a request may be, the first and the last byte."""
    url = lab.daemon().volume("v", SIZE)
    places = [(0, 4096, 0x11), (4096 * 7, 65536, 0x22), (MIB, 3 * MIB, 0x33), (8 * MIB + 512, 512, 0x44),
              (9 * MIB + 3584, 1024, 0x55), (10 * MIB + 1536, 1 * MIB + 512, 0x66), (SIZE - 512, 512, 0x77)]
    qemu_io(url, *(f"write -P {value} {start} {size}" for start, size, value in places), "flush")
    qemu_io(url, *(f"read -P {value} {start} {size}" for start, size, value in places))
    around = [(start - 512, 512) for start, _, _ in places if start]
    around += [(start + size, 512) for start, size, _ in places[:-1]]
    qemu_io(url, *(f"read -P 0 {start} {size}" for start, size in around))


def test_zero_and_discard(lab):
    url = lab.daemon().volume("v", SIZE)
    qemu_io(url, f"write -P 0xaa 0 {32 * MIB}", f"write -z {4 * MIB} {4 * MIB}", f"write -z {12 * MIB + 512} 3072",
            f"discard {16 * MIB} {8 * MIB}", "flush")
    qemu_io(url, f"read -P 0xaa 0 {4 * MIB}", f"read -P 0 {4 * MIB} {4 * MIB}", f"read -P 0xaa {8 * MIB} {4 * MIB}",
            f"read -P 0xaa {12 * MIB} 512", f"read -P 0 {12 * MIB + 512} 3072", f"read -P 0xaa {12 * MIB + 3584} 512",
            f"read -P 0 {16 * MIB} {8 * MIB}", f"read -P 0xaa {24 * MIB} {8 * MIB}")


def test_discard_gives_space_back(lab):
    """At the next checkpoint; a daemon that ends makes one."""
    daemon = lab.daemon()
    url = daemon.volume("v", SIZE)
    qemu_io(url, f"write -P 1 0 {64 * MIB}", "flush")
    full = daemon.find("v")["used_bytes"]
    assert full >= 64 * MIB, full
    qemu_io(url, f"discard 0 {64 * MIB}", "flush")
    daemon.stop()
    daemon.start()
    assert daemon.find("v")["used_bytes"] < full // 4, daemon.find("v")


def test_beyond_the_end_is_refused(lab):
    url = lab.daemon().volume("v", 64 * MIB)
    said = run(["qemu-io", "-f", "raw", "-c", f"write {64 * MIB} 4096", url], check=False)
    assert "wrote" not in said.stdout, said.stdout


def test_random_extents(lab):
    """A few hundred writes of any size and place, beside a model in memory."""
    url = lab.daemon().volume("v", 32 * MIB)
    dice, model, words = random.Random(11), bytearray(32 * MIB), []
    for _ in range(300):
        size = 512 * dice.choice([1, 2, 7, 8, 9, 16, 63, 128, 1000])
        start, value = 512 * dice.randrange((32 * MIB - size) // 512), dice.randrange(1, 256)
        kind = dice.choice(["write", "write", "write", "zero"])
        words.append(f"write -P {value} {start} {size}" if kind == "write" else f"write -z {start} {size}")
        model[start:start + size] = bytes([value if kind == "write" else 0]) * size
    qemu_io(url, *words)
    copy = lab.folder / "copy"
    run(["qemu-img", "convert", "-f", "raw", "-O", "raw", url, copy], timeout=120)
    assert copy.read_bytes() == model, "the LUN is not what was written"


def make_image(path, dice: random.Random) -> None:
    """Data, holes and zeros, and a size that is no multiple of 1 MiB."""
    with open(path, "wb") as image:
        for number in range(40):
            image.seek(number * 5 * MIB + 4096 * dice.randrange(64))
            image.write(os.urandom(dice.choice([4096, 65536, MIB + 4096])))
        image.truncate(SIZE - 4096)


def test_convert_and_compare(lab):
    """Both ways through qemu-img convert, compared by qemu-img and by checksum; also after a restart of the daemon."""
    daemon = lab.daemon()
    url = daemon.volume("v", SIZE - 4096)
    source, back = lab.folder / "source", lab.folder / "back"
    make_image(source, random.Random(5))
    run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-m", "8", "-W", source, url], timeout=120)
    run(["qemu-img", "compare", "-f", "raw", "-F", "raw", source, url], timeout=120)
    daemon.stop()
    daemon.start()
    run(["qemu-img", "compare", "-f", "raw", "-F", "raw", source, url], timeout=120)
    run(["qemu-img", "convert", "-f", "raw", "-O", "raw", url, back], timeout=120)
    digests = [hashlib.file_digest(open(path, "rb"), "sha256").hexdigest() for path in (source, back)]
    assert digests[0] == digests[1], digests


def test_image_formats_on_the_lun(lab):
    """A qcow2 image inside the LUN: QEMU writes its tables in small pieces and flushes between."""
    url = lab.daemon().volume("v", SIZE)
    source = lab.folder / "source"
    make_image(source, random.Random(6))
    run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, url], timeout=120, check=False)
    run(["qemu-img", "create", "-f", "qcow2", url, "128M"], timeout=60)
    qemu_io(url, "write -P 9 0 64M", "write -P 8 10M 512", "read -P 8 10M 512", "read -P 9 11M 1M", image="qcow2")
    run(["qemu-img", "check", "-f", "qcow2", url], timeout=60)


def test_bench(lab):
    """QEMU's own load generator: many at once, each answered."""
    url = lab.daemon().volume("v", SIZE)
    for words in ("-w -d 32 -c 8000 -s 4096", "-w -d 4 -c 200 -s 1048576", "-w -d 8 -c 2000 -s 512 --flush-interval 16",
                  "-d 32 -c 8000 -s 4096"):
        run(["qemu-img", "bench", "-f", "raw", "-t", "none", *words.split(), url], timeout=120)


def test_many_initiators(lab):
    """Eight volumes, each with its own initiator, at once; each finds its own data."""
    daemon = lab.daemon(file_bytes=2 << 30)
    urls = [daemon.volume(f"v{number}", 64 * MIB) for number in range(8)]
    loads = [lab.load(url, write=70, depth=8, total=24 * MIB, verify=True, blank=True, seed=number + 1, block="16K",
                      state=lab.folder / f"state{number}", initiator=f"iqn.2026-01.io.hci:i{number}")
             for number, url in enumerate(urls)]
    for load in loads:
        said = load.wait()
        assert said["blocks_bad"] == 0 and said["errors"] == 0, said
    for number, url in enumerate(urls):
        lab.load(url, check=True, blank=True, state=lab.folder / f"state{number}", block="256K", depth=4).wait()
