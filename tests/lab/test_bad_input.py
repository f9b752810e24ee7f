"""What people get wrong is answered with one sentence that names the thing and says what to do."""

import shutil

from hcilab import network
from hcilab.basics import wait_until
from hcilab.site import GUEST_TEMPLATE

CONF = "/etc/hci/hci.conf"


def refused(site, host: str, words: list[str], *needles: str) -> str:
    """The command fails, says exactly one sentence on stderr, and that names every needle."""
    done = site.lab.host(host).exec(words, 40)
    said = [line for line in done.stderr.splitlines() if line.strip() and "--help` says how" not in line]
    what = f"{' '.join(words)} on {host}"
    assert done.returncode != 0, f"{what} was not refused: {done.stdout.strip()}"
    assert done.returncode > 0, f"{what} died of signal {-done.returncode}"
    assert len(said) == 1, f"{what} said {len(said)} lines: {said}"
    for needle in needles:
        assert needle.lower() in said[0].lower(), f"{what} does not name '{needle}': {said[0]}"
    assert len(said[0]) <= 400 and "(null)" not in said[0], f"{what}: {said[0]}"
    return said[0]


def hcictl_refused(site, host: str, words: list[str], *needles: str) -> str:
    return refused(site, host, ["hcictl", *words], *needles)


def test_configuration(site):
    a = site.lab.host("a")
    hcictl_refused(site, "a", ["status"], "cluster init")
    hcictl_refused(site, "a", ["cluster", "init", "--name", "x"], "--node")
    hcictl_refused(site, "a", ["pool", "create", "/dev/nothing"], "hci")
    site.hcictl("a", "cluster", "init", "--name", "lab", "--node", "a=10.11.0.1", "--node", "b=10.11.0.2",
                "--watchdog-socket", "/run/hci-lab/watchdog.sock")
    hcictl_refused(site, "a", ["witness", "show"], "witness")
    good = a.exec(["cat", CONF]).stdout
    for bad in ("this is { no configuration", good.replace("node ", "nude ", 1), good.replace("10.11.0.1", "10.11.0.999")):
        a.exec(["tee", CONF], input_text=bad)
        for daemon in ("hci-quorumd", "hci-storaged", "hci-vmhad"):
            refused(site, "a", [daemon], CONF)
    a.exec(["rm", CONF])
    for daemon in ("hci-quorumd", "hci-storaged", "hci-vmhad"):
        refused(site, "a", [daemon], CONF)
    a.exec(["tee", CONF], input_text=good)
    a.exec(["chmod", "644", "/etc/hci/secrets.conf"])
    refused(site, "a", ["hci-quorumd"], "secrets.conf")


def test_witness(site):
    w = site.lab.host("w")
    site.hcictl("a", "cluster", "init", "--name", "lab", "--node", "a=10.11.0.1", "--node", "b=10.11.0.2")
    address = network.address("wit", "w")
    w.boot()
    token = site.hcictl("w", "witness", "token")["token"]
    hcictl_refused(site, "a", ["witness", "enroll", "witness.example", token], "witness.example")
    hcictl_refused(site, "a", ["witness", "enroll", address, "not-a-token"], "token")
    hcictl_refused(site, "a", ["witness", "enroll", "10.13.0.77", token], "10.13.0.77")
    w.power_cut()
    hcictl_refused(site, "a", ["witness", "enroll", address, token], address)
    # A host that has the witness' address but not its certificate.
    shutil.rmtree(site.lab.layout.disk("w", "var-lib-hci-witness"))
    w.boot()
    hcictl_refused(site, "a", ["witness", "enroll", address, token], "token names")


def test_pool_and_volume(site):
    site.enrol()
    hcictl_refused(site, "a", ["volume", "create", "v", "--size", "64M"], "pool create")
    hcictl_refused(site, "a", ["pool", "create", "/dev/no-such-disk"], "/dev/no-such-disk")
    a = site.lab.host("a")
    a.exec(["sh", "-c", "truncate -s 1G /var/lib/hci-disks/used && mkfs.ext4 -q /var/lib/hci-disks/used"])
    hcictl_refused(site, "a", ["pool", "create", "/var/lib/hci-disks/used"], "ext4")
    site.make_pools()
    site.patiently("a", "volume", "create", "v", "--size", "64M")
    for node in ("a", "b"):
        hcictl_refused(site, node, ["volume", "create", "v", "--size", "64M"], "v")
    hcictl_refused(site, "a", ["volume", "create", "w"], "--size")
    hcictl_refused(site, "a", ["volume", "create", "w", "--size", "banana"], "banana")
    hcictl_refused(site, "a", ["volume", "create", "w", "--size", "900G"], "w")
    hcictl_refused(site, "a", ["volume", "create", "../w", "--size", "64M"], "../w")
    hcictl_refused(site, "a", ["volume", "show", "nobody"], "nobody")
    # A disk that was there is missing after a reboot.
    a.power_cut()
    (site.lab.layout.disk("a", "pool-disks") / "disk1").rename(site.lab.layout.disk("a", "pool-disks") / "elsewhere")
    a.boot()
    hcictl_refused(site, "a", ["volume", "create", "w", "--size", "64M"], "disk1")


def test_guest_xml(site):
    site.bring_up()
    site.patiently("a", "volume", "create", "v", "--size", "64M")
    layout, template = site.lab.layout, GUEST_TEMPLATE.read_text()
    template = template[template.index("<domain"):].replace("NAME", "g").replace("SETTINGS", "")
    network_disk = "<source protocol='iscsi' name='VOLUME'/>"
    cases = {
        "broken": ("<domain><name>g</domain>", "g"),
        "no-such-volume": (template.replace("VOLUME", "elsewhere"), "elsewhere"),
        "no-disk": (template.replace(template[template.index("<disk"):template.index("</disk>") + 7], ""), "disk"),
        "local-disk": (template.replace("type='network'", "type='file'").replace(network_disk, "<source file='/tmp/x'/>"), "disk"),
    }
    for name, (xml, needle) in cases.items():
        (layout.log_folder("a") / f"{name}.xml").write_text(xml)
        hcictl_refused(site, "a", ["vm", "add", "g", "--xml", f"/var/log/hci-lab/{name}.xml"], needle)
    hcictl_refused(site, "a", ["vm", "add", "g", "--xml", "/var/log/hci-lab/none.xml"], "none.xml")
    hcictl_refused(site, "a", ["vm", "start", "nobody"], "nobody")


def test_wrong_certificate(site):
    """A node whose certificate another authority has signed is not talked to, and the sentence says why."""
    site.enrol()
    b = site.lab.host("b")
    folders = ["--config-folder", "/var/lib/foreign", "--corosync-folder", "/var/lib/foreign/corosync",
               "--state-folder", "/var/lib/foreign/state"]
    b.exec(["mkdir", "-p", "/var/lib/foreign/corosync", "/var/lib/foreign/state"])
    made = b.exec(["hcictl", *folders, "cluster", "init", "--name", "foreign", "--node", "b=10.11.0.2", "--node", "a=10.11.0.1"])
    assert made.returncode == 0, made.stderr
    b.exec(["sh", "-c", "cp /var/lib/foreign/pki/node.* /etc/hci/pki/"])
    b.kill_service("hci-storaged")
    logs = [site.lab.layout.log_folder(node) / "hci-storaged.log" for node in ("a", "b")]
    wait_until("a sentence about the certificate in the log of hci-storaged",
               lambda: any("certificate" in log.read_text().lower() for log in logs), 20)
