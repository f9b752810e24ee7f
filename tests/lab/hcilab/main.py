"""The command line of the lab: a table of verbs."""

import argparse
import json
import os
import signal
import sys

from . import network
from .basics import LabError, boottime
from .lab import Lab
from .layout import DEFAULT_FOLDER, HOSTS


def do_up(lab: Lab, options) -> int:
    lab.up()
    if not options.bare:
        for name in ("w", "a", "b"):
            lab.host(name).boot()
    print(f"lab {lab.layout.id} is up in {lab.layout.folder}: hosts {', '.join(HOSTS)}")
    return 0


def do_down(lab: Lab, options) -> int:
    lab.down(keep_files=options.keep_files)
    return 0


def do_exec(lab: Lab, options) -> int:
    words = lab.host(options.host).words_inside(options.command)
    os.execvp(words[0], words)


def do_power_cut(lab: Lab, options) -> int:
    lab.must_be_up()
    lab.host(options.host).power_cut()
    return 0


def do_boot(lab: Lab, options) -> int:
    lab.must_be_up()
    start = boottime()
    lab.host(options.host).boot()
    print(f"host {options.host} is ready after {boottime() - start:.1f} s")
    return 0


def do_freeze(lab: Lab, options) -> int:
    lab.host(options.host).freeze()
    return 0


def do_thaw(lab: Lab, options) -> int:
    lab.host(options.host).thaw()
    return 0


def do_kill(lab: Lab, options) -> int:
    number = getattr(signal, "SIG" + options.signal.upper().removeprefix("SIG"), None)
    if number is None:
        raise LabError(f"no signal '{options.signal}': KILL, TERM, STOP, CONT, …")
    lab.host(options.host).kill_service(options.service, number, options.stay_down)
    return 0


def do_cut(lab: Lab, options) -> int:
    lab.must_be_up()
    network.cut(lab.layout, options.x, options.y, options.one_way, options.network)
    return 0


def do_heal(lab: Lab, options) -> int:
    lab.must_be_up()
    if bool(options.x) != bool(options.y):
        raise LabError("heal takes two hosts, or none to heal everything")
    network.heal(lab.layout, options.x, options.y)
    return 0


def do_status(lab: Lab, options) -> int:
    status = lab.status()
    if options.json:
        print(json.dumps(status, indent=1))
        return 0
    print(f"lab {lab.layout.id} in {status['folder']}: {'up' if status['up'] else 'down'}, "
          f"watchdog {status['watchdog']}")
    for name, host in status["hosts"].items():
        services = host.get("services", {})
        print(f"  {name}  {host['power']:7}" + " ".join(f"{s}:{state['state']}" for s, state in services.items()))
        for guest in host.get("guests", []):
            print(f"     guest {guest}")
    for x, y, net in status["cuts"]:
        print(f"  cut {x} → {y} on {net}")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab", description="Two nodes and a witness on this machine.")
    top.add_argument("--dir", default=os.environ.get("HCI_LAB", DEFAULT_FOLDER), help=f"lab folder ({DEFAULT_FOLDER})")
    top.add_argument("--bin", help="folder of the daemons (build/release/bin, or HCI_BIN)")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, action, text, *arguments):
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action)
        for words, more in arguments:
            sub.add_argument(*words, **more)

    host = (["host"], {"choices": HOSTS})
    verb("up", do_up, "make a fresh lab and boot its hosts",
         (["--bare"], {"action": "store_true", "help": "power the hosts on but start no service"}))
    verb("down", do_down, "take everything away",
         (["--keep-files"], {"action": "store_true", "help": "leave the lab folder with logs and disks"}))
    verb("exec", do_exec, "run a command inside a host", host,
         (["command"], {"nargs": argparse.REMAINDER, "metavar": "CMD …"}))
    verb("power-cut", do_power_cut, "cut the power of a host", host)
    verb("boot", do_boot, "power a host on and start what is configured there", host)
    verb("freeze", do_freeze, "stop every process of a host", host)
    verb("thaw", do_thaw, "let a frozen host go on", host)
    verb("kill", do_kill, "signal a service of a host; it is started again as systemd would", host, (["service"], {}),
         (["signal"], {"nargs": "?", "default": "KILL"}),
         (["--stay-down"], {"action": "store_true", "help": "do not start it again"}))
    verb("cut", do_cut, "cut the cables between two hosts", (["x"], {}), (["y"], {}),
         (["--one-way"], {"action": "store_true", "help": "only what X sends to Y is lost"}),
         (["--network"], {"help": "only this one: link1, link2, wit"}))
    verb("heal", do_heal, "mend the cables between two hosts, or all", (["x"], {"nargs": "?"}),
         (["y"], {"nargs": "?"}))
    verb("status", do_status, "what is on, what runs, what is cut", (["--json"], {"action": "store_true"}))
    return top


def main() -> int:
    options = parser().parse_args()
    if options.verb == "exec" and not options.command:
        print("lab: exec needs a command: lab exec HOST CMD …", file=sys.stderr)
        return 2
    try:
        return options.action(Lab(options.dir, options.bin), options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
