"""What runs on a host and how: the services in their order, and the configuration of those that are not ours."""

from dataclasses import dataclass, field
from pathlib import Path

from .layout import NODES, Layout

LIBVIRTD_CONF = """# A lab host: no TLS, no polkit, an identity of its own (one machine plays many).
listen_tls = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
"""
QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
max_core = 0
"""
VIRTLOGD_CONF = """# The serial log of a guest is the witness of a test: it must not be rotated away.
max_size = 0
"""


@dataclass
class Service:
    name: str
    argv: list[str]
    ready_s: float = 20
    restart: bool = False
    env: dict = field(default_factory=dict)
    probe: list[str] | None = None


def config_files(host: str, host_uuid: str) -> dict[str, str]:
    if host not in NODES:
        return {}
    return {"/etc/libvirt/libvirtd.conf": LIBVIRTD_CONF.format(host_uuid=host_uuid),
            "/etc/libvirt/qemu.conf": QEMU_CONF, "/etc/libvirt/virtlogd.conf": VIRTLOGD_CONF,
            "/etc/libvirt/libvirt.conf": ""}


def configured(host: str, layout: Layout, bin_folder: Path) -> list[Service]:
    """The services of this host in starting order; ours only where enrolment has configured them."""
    if host not in NODES:
        return [_ours("hci-witnessd", bin_folder, "--state", "/var/lib/hci-witness", "--listen", "10.13.0.3:7203")]
    found = []
    if (layout.disk(host, "etc-corosync") / "corosync.conf").exists():
        found.append(Service("corosync", ["/usr/sbin/corosync", "-f"], ready_s=30, restart=True))
    found += [Service("virtlogd", ["/usr/sbin/virtlogd"], restart=True),
              Service("libvirtd", ["/usr/sbin/libvirtd"], restart=True,
                      probe=["virsh", "--quiet", "--connect", "qemu:///system", "list"])]
    if (layout.disk(host, "etc-hci") / "hci.conf").exists():
        found += [_ours(name, bin_folder) for name in ("hci-quorumd", "hci-storaged", "hci-vmhad")]
    return found


def _ours(name: str, bin_folder: Path, *arguments: str) -> Service:
    return Service(name, [str(bin_folder / name), *arguments], ready_s=20, restart=True)
