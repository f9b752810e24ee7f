"""The cables: one switch namespace with a bridge per network, hosts plugged in by veth pairs.

    link1  10.11.0.0/24  a b      two direct cables between the nodes
    link2  10.12.0.0/24  a b
    wit    10.13.0.0/24  a b w    the way to the witness

Cutting happens in the switch (nftables, bridge family), so a host cannot see it, ARP is cut too, and each
direction can be cut by itself. A power cut unplugs the host's cables: a dead host sends nothing, not even
the resets a kernel would send for killed processes."""

from .basics import LabError, read_json, run, write_json
from .layout import HOSTS, Layout

NETWORKS = {
    "link1": ("10.11.0", ("a", "b")),
    "link2": ("10.12.0", ("a", "b")),
    "wit": ("10.13.0", ("a", "b", "w")),
}
NUMBER = {"a": 1, "b": 2, "w": 3}


def address(network: str, host: str) -> str:
    return f"{NETWORKS[network][0]}.{NUMBER[host]}"


def hardware_address(network: str, host: str) -> str:
    """A network card keeps its address through a power cut, so that its neighbours find it at once."""
    return f"02:00:00:00:{list(NETWORKS).index(network) + 1:02x}:{NUMBER[host]:02x}"


def namespaces() -> set[str]:
    return {line.split()[0] for line in run(["ip", "netns", "list"]).stdout.splitlines() if line}


def _batch(namespace: str, lines: list[str], force: bool = False) -> None:
    run(["ip", *(["-force"] if force else []), "-n", namespace, "-batch", "-"], input_text="\n".join(lines) + "\n",
        check=not force)


def switch_up(layout: Layout) -> None:
    run(["ip", "netns", "add", layout.switch])
    lines = []
    for network in NETWORKS:
        lines += [f"link add {network} type bridge forward_delay 0 mcast_snooping 0", f"link set {network} up"]
    _batch(layout.switch, lines)


def plug(layout: Layout, host: str) -> None:
    """A fresh network namespace for the host with its cables plugged in."""
    netns = layout.netns(host)
    run(["ip", "netns", "add", netns])
    _batch(netns, ["link set lo up"])
    mine = [network for network, (_, members) in NETWORKS.items() if host in members]
    _batch(layout.switch, [line for network in mine for line in (
        f"link add {host}-{network} type veth peer name {network} netns {netns}",
        f"link set {host}-{network} master {network} up")])
    _batch(netns, [line for network in mine for line in (
        f"link set dev {network} address {hardware_address(network, host)}",
        f"addr add {address(network, host)}/24 dev {network}", f"link set {network} up")])


def unplug(layout: Layout, host: str) -> None:
    """Pulls every cable of the host at once; harmless when there are none."""
    if layout.switch in namespaces():
        _batch(layout.switch, [f"link del {host}-{network}" for network, (_, members) in NETWORKS.items()
                               if host in members], force=True)


def remove(layout: Layout, name: str) -> None:
    if name in namespaces():
        run(["ip", "netns", "del", name])


def cuts(layout: Layout) -> list[list[str]]:
    """[from, to, network] triples that are cut now."""
    return read_json(layout.cuts, [])


def _cables_between(x: str, y: str, only: str | None) -> list[str]:
    if x not in HOSTS or y not in HOSTS or x == y:
        raise LabError(f"no cable between '{x}' and '{y}': hosts are {', '.join(HOSTS)}")
    # The nodes also meet in the witness network; "between a and b" means their own cables.
    names = ["link1", "link2"] if {x, y} == {"a", "b"} else ["wit"]
    if only is None:
        return names
    if only not in NETWORKS or x not in NETWORKS[only][1] or y not in NETWORKS[only][1]:
        raise LabError(f"'{only}' does not join {x} and {y}: it is one of {', '.join(NETWORKS)}")
    return [only]


def _apply(layout: Layout, triples: list[list[str]]) -> None:
    rules = "\n".join(f'    iifname "{x}-{network}" oifname "{y}-{network}" drop' for x, y, network in triples)
    ruleset = ("table bridge lab\ndelete table bridge lab\ntable bridge lab {\n  chain forward {\n"
               f"    type filter hook forward priority 0; policy accept;\n{rules}\n  }}\n}}\n")
    run(["ip", "netns", "exec", layout.switch, "nft", "-f", "-"], input_text=ruleset)
    write_json(layout.cuts, triples)


def cut(layout: Layout, x: str, y: str, one_way: bool = False, only: str | None = None) -> float:
    """What x sends to y is lost; also what y sends to x unless one_way."""
    triples = cuts(layout)
    for network in _cables_between(x, y, only):
        for triple in [[x, y, network]] + ([] if one_way else [[y, x, network]]):
            if triple not in triples:
                triples.append(triple)
    _apply(layout, triples)
    return layout.note("cut", between=[x, y], one_way=one_way)


def heal(layout: Layout, x: str | None = None, y: str | None = None) -> float:
    """Heals every cable between x and y in both directions, or all of them."""
    keep = []
    if x is not None:
        healed = _cables_between(x, y, None)
        keep = [t for t in cuts(layout) if not ({t[0], t[1]} == {x, y} and t[2] in healed)]
    _apply(layout, keep)
    return layout.note("heal", between=[x, y] if x else "all")
