"""A volume of a pair grows while it is written from both nodes, and a pool's disk is exchanged under it."""

from hcilab.basics import LabError
from test_block import qemu_io


def refused(site, node: str, *words: str) -> str:
    done = site.lab.host(node).exec(["hcictl", *words], 40)
    if done.returncode != 1:
        raise LabError(f"hcictl {' '.join(words)} on {node} was not refused: {done.stdout}")
    return done.stderr


def test_a_volume_grows_on_both_nodes(site):
    site.bring_up()
    site.patiently("a", "volume", "create", "disk", "--size", "64M")
    site.wait_in_sync("disk", 30)
    qemu_io(site, "a", "write -P 0x11 63M 1M")
    primary = site.volume("disk", "a")["primary_node"]
    other = "b" if primary == "a" else "a"
    assert "ask the node" in refused(site, other, "volume", "grow", "disk", "--size", "128M")
    site.hcictl(primary, "volume", "grow", "disk", "--size", "128M")
    for node in ("a", "b"):
        assert site.volume("disk", node)["size_bytes"] == 128 << 20
    qemu_io(site, "a", "write -P 0x22 127M 1M", "read -P 0 64M 1M")
    qemu_io(site, "b", "read -P 0x22 127M 1M", "read -P 0x11 63M 1M", "write -P 0x33 100M 1M")
    qemu_io(site, "a", "read -P 0x33 100M 1M")
    site.wait_in_sync("disk", 30)


def test_a_disk_is_exchanged_under_a_mirrored_volume(site):
    """The group stays whole meanwhile: no resync, nothing behind, both copies current all the time."""
    site.bring_up()
    site.patiently("a", "volume", "create", "disk", "--size", "64M")
    site.wait_in_sync("disk", 30)
    qemu_io(site, "a", "write -P 0x11 0 32M")
    old = site.hcictl("a", "disk", "list")["disks"][0]["path"]
    new = old + ".new"
    answer = site.hcictl("a", "disk", "replace", old, new, "--size", "1G", timeout=100)
    assert answer["state"] == "removed", answer
    assert [disk["path"] for disk in site.hcictl("a", "disk", "list")["disks"]] == [new]
    assert site.in_sync("disk")
    qemu_io(site, "a", "read -P 0x11 0 32M", "write -P 0x22 16M 16M")
    qemu_io(site, "b", "read -P 0x11 0 16M", "read -P 0x22 16M 16M")
    assert "last disk" in refused(site, "a", "disk", "remove", new)
