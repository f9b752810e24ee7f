"""The lab itself: power cuts cut everything, cut cables carry nothing, the watchdog bites."""

from hcilab import network
from hcilab.basics import boottime, wait_until

LISTEN = ("import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(2); s.bind(('{}',9999)); "
          "print(s.recv(9).decode())")
SEND = ("import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        "for i in range(10):\n s.sendto(b'x',('{}',9999)); time.sleep(0.1)")
FEED = ("import socket,time\ns=socket.socket(socket.AF_UNIX); s.connect('/run/hci-lab/watchdog.sock')\n"
        "s.sendall(b'arm 800\\n')\nfor i in range(10):\n s.sendall(b'feed\\n'); time.sleep(0.2)\n")


def passes(site, sender: str, receiver: str, network_name: str) -> bool:
    """Does a datagram from one host reach the other?"""
    import subprocess
    address = network.address(network_name, receiver)
    words = site.lab.host(receiver).words_inside(["/usr/bin/python3", "-c", LISTEN.format(address)])
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as listener:
        site.lab.host(sender).exec(["/usr/bin/python3", "-c", SEND.format(address)], 10)
        return listener.communicate(timeout=10)[0].strip() == "x"


def test_cables(site):
    layout = site.lab.layout
    assert passes(site, "a", "b", "link1") and passes(site, "b", "a", "link2") and passes(site, "w", "b", "wit")
    network.cut(layout, "a", "b")
    assert not passes(site, "a", "b", "link1") and not passes(site, "b", "a", "link2") and passes(site, "a", "w", "wit")
    network.heal(layout, "a", "b")
    network.cut(layout, "a", "w", one_way=True)
    assert not passes(site, "a", "w", "wit") and passes(site, "w", "a", "wit") and passes(site, "a", "b", "link1")


def test_power(site):
    a = site.lab.host("a")
    a.exec(["sh", "-c", "echo stays > /var/lib/hci/stays; echo goes > /run/goes; mkdir /sys/fs/cgroup/deep"])
    a.exec(["sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &"])
    assert len(a.pids()) > 2
    a.freeze()
    assert a.is_frozen()
    a.thaw()
    a.power_cut()
    assert not a.pids() and not a.is_on()
    a.boot()
    assert a.exec(["cat", "/var/lib/hci/stays"]).stdout == "stays\n"
    assert a.exec(["test", "-e", "/run/goes"]).returncode == 1
    assert a.exec(["hostname"]).stdout == "a\n"


def test_watchdog(site):
    a = site.lab.host("a")
    a.boot()
    start = boottime()
    a.exec(["/usr/bin/python3", "-c", FEED], 10)
    fed_until = boottime()
    assert a.is_on() and fed_until - start > 1.5
    wait_until("the watchdog to bite", lambda: not a.is_on(), 3)
    cut = site.lab.layout.read_events()[-1]
    assert cut["event"] == "power-cut" and cut["by"] == "watchdog" and cut["host"] == "a"
    assert cut["t"] - fed_until < 1.0
    a.boot()
    wait_until("host a to stay on", a.is_on, 1)
