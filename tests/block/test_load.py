"""Does the judge itself notice? iscsi_load must find what is wrong, and nothing else."""

from hciblock.basics import LabError, run
from hciblock.lab import qemu_io
from hciblock.load import load

SIZE = 64 << 20


def check(url: str, lab, **more) -> dict:
    options = {"state": lab.folder / "state", "blank": True, "block": "256K", "depth": 4, **more}
    return lab.load(url, check=True, **options).wait(allowed=(0, 1))


def written(lab, daemon) -> str:
    url = daemon.volume("v", SIZE)
    load(url, write=100, depth=16, total=16 << 20, verify=True, blank=True, state=lab.folder / "state")
    return url


def test_what_was_written_is_there(lab):
    url = written(lab, lab.daemon())
    said = check(url, lab)
    assert said["status"] == 0 and said["blocks_bad"] == 0, said
    assert said["blocks_compared"] == SIZE // 4096, said
    said = load(url, write=50, depth=32, total=16 << 20, verify=True, blank=True, state=lab.folder / "state")
    assert said["blocks_bad"] == 0 and said["reads"] > 1000 and said["blocks_compared"] >= said["reads"], said


def test_one_changed_byte_is_found(lab):
    url = written(lab, lab.daemon())
    qemu_io(url, "write -P 0x5a 1048576 512")
    said = check(url, lab)
    assert said["status"] == 1 and said["blocks_bad"] == 1, said


def test_an_older_version_is_found(lab):
    """A block set back to what it was: right address, right checksum, wrong version."""
    url = written(lab, lab.daemon())
    image = lab.folder / "old"
    options = {"pattern": "seq", "write": 100, "depth": 1, "total": 8192, "seconds": 60, "verify": True, "blank": True,
               "state": lab.folder / "state"}
    load(url, **options)
    run(["qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=4096", "count=2", f"if={url}", f"of={image}"])
    load(url, **options)
    qemu_io(url, f"write -s {image} 0 8192")
    said = check(url, lab)
    assert said["status"] == 1 and said["blocks_bad"] == 2, said


def test_a_wrong_address_is_said(lab):
    daemon = lab.daemon()
    daemon.volume("v", SIZE)
    try:
        load(daemon.url("w"), seconds=1)
    except LabError as error:
        assert "log in" in str(error), error
        return
    raise AssertionError("a volume that does not exist was loaded")
