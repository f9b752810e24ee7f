"""The cables between the nodes are cut: no guest moves, both go on; healed, both copies are current again."""

from hcilab import network
from hcilab.basics import wait_until


def test_both_go_on(site):
    site.bring_up()
    one = site.add_guest("one", "a")
    two = site.add_guest("two", "b")
    logs = {"one": ("a", one), "two": ("b", two)}
    for _, log in logs.values():
        log.wait_writes(300, 30)
    network.cut(site.lab.layout, "a", "b")
    for name, (node, _) in logs.items():
        wait_until(f"node {node} to go on alone with volume {name}",
                   lambda node=node, name=name: (site.volume(name, node) or {}).get("role") == "sole", 30)
    for _, log in logs.values():
        log.wait_writes(1000, 30)
    network.heal(site.lab.layout)
    for name in logs:
        site.wait_in_sync(name, 60)
    for name, (node, log) in logs.items():
        log.wait_writes(300, 30)
        assert len(log.starts) == 1, f"guest {name} was started again"
        assert name in site.lab.host(node).guests(), f"guest {name} is no longer on {node}"
        assert not log.lost(), "; ".join(log.lost())
        site.measured(f"link_cut.stall_{name}_s", log.silence())


def test_one_of_two_links(site):
    """One cable of two is cut: nothing changes for the guest."""
    site.bring_up()
    log = site.add_guest("app", "a")
    log.wait_writes(300, 30)
    for only in ("link1", "link2"):
        network.cut(site.lab.layout, "a", "b", only=only)
        log.wait_writes(1500, 40)
        network.heal(site.lab.layout)
        site.wait_in_sync("app", 60)
    assert len(log.starts) == 1 and not log.lost(), "; ".join(log.lost())
