"""A mirrored volume is a correct disk to initiators on either node: qemu-io, qemu-img, iscsi-ls, iscsi-inq."""

from hcilab.basics import LabError

URL = "iscsi://127.0.0.1:3260/iqn.2026-01.io.hci:disk/0"


def run(site, node: str, *words: str) -> str:
    done = site.lab.host(node).exec(list(words), 60)
    if done.returncode != 0 or "error" in done.stdout.lower():
        raise LabError(f"{' '.join(words)} on {node}: {done.stdout} {done.stderr}")
    return done.stdout


def qemu_io(site, node: str, *commands: str) -> None:
    words = ["qemu-io", "-f", "raw", "-t", "none", URL]
    for command in commands:
        words += ["-c", command]
    output = run(site, node, *words)
    assert "Pattern verification failed" not in output, output


def test_one_disk_on_two_nodes(site):
    site.bring_up()
    site.patiently("a", "volume", "create", "disk", "--size", "96M")
    site.wait_in_sync("disk", 30)
    for node in ("a", "b"):
        listed = run(site, node, "iscsi-ls", "-s", "iscsi://127.0.0.1:3260")
        assert "iqn.2026-01.io.hci:disk" in listed and "Size:95M" in listed, listed  # iscsi-ls counts to the last block
        run(site, node, "iscsi-inq", "-e", "1", "-c", "0x83", URL)
    serial = {node: run(site, node, "iscsi-inq", "-e", "1", "-c", "0x80", URL) for node in ("a", "b")}
    assert serial["a"] == serial["b"], f"one volume, two serial numbers: {serial}"
    # Written at the primary, read through the other node, and the other way round; aligned, not aligned, large.
    qemu_io(site, "a", "write -P 0x11 0 4k", "write -P 0x22 4608 1536", "write -P 0x33 1M 8M", "write -P 0x44 20000256 777728")
    qemu_io(site, "b", "read -P 0x11 0 4k", "read -P 0x22 4608 1536", "read -P 0x33 1M 8M", "read -P 0x44 20000256 777728")
    qemu_io(site, "b", "write -P 0x55 2M 64k", "discard 4M 1M", "write -z 6M 8k", "write -P 0x66 8k 512")
    qemu_io(site, "a", "read -P 0x55 2M 64k", "read -P 0 4M 1M", "read -P 0 6M 8k", "read -P 0x66 8k 512", "read -P 0x33 5M 1M")
    for node in ("a", "b"):
        run(site, node, "qemu-img", "bench", "-f", "raw", "-t", "none", "-c", "2000", "-d", "16", "-s", "4k", "-w", URL)
        run(site, node, "qemu-img", "bench", "-f", "raw", "-t", "none", "-c", "2000", "-d", "16", "-s", "4k", URL)
    assert site.in_sync("disk")


def test_a_guests_disk_admits_only_its_guest(site):
    """R11: the target serves the initiator that the owner record names, and nobody else."""
    site.bring_up()
    log = site.add_guest("app", "a")
    log.wait_writes(200, 30)
    url = "iscsi://127.0.0.1:3260/iqn.2026-01.io.hci:app/0"
    for node in ("a", "b"):
        done = site.lab.host(node).exec(["iscsi-inq", url], 30)
        assert done.returncode != 0, f"a stranger was let in on {node}: {done.stdout}"
        done = site.lab.host(node).exec(["iscsi-inq", "-i", f"iqn.2026-01.io.hci:guest.app.1.{node}", url], 30)
        assert done.returncode != 0, f"the guest's name without its CHAP secret was let in on {node}: {done.stdout}"
    log.wait_writes(200, 30)
    assert not log.lost(), "; ".join(log.lost())
