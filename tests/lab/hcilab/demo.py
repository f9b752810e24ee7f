"""./demo: plays the story, prints a timeline with measured seconds, ends with what was acknowledged and lost."""

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path

from . import story
from .basics import REPOSITORY, LabError, boottime
from .lab import Lab
from .runner import only_one
from .site import Site

FOLDER = "/tmp/hci-demo"
LOGS = REPOSITORY / "build" / "demo-logs"
WIDTH = 78


class Timeline:
    """Seconds since the start on the left, what was measured on the right."""

    def __init__(self):
        self.start = boottime()
        colours = sys.stdout.isatty()
        self.bold, self.green, self.red, self.dim, self.plain = (
            ("\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m") if colours else ("",) * 5)

    def line(self, t: float | None, text: str) -> None:
        stamp = (boottime() if t is None else t) - self.start
        print(f"{self.dim}{stamp:7.2f} s{self.plain}  {text}", flush=True)

    def chapter(self, text: str) -> None:
        print(f"\n{self.bold}{text}{self.plain}", flush=True)

    def tell(self, text: str, t: float | None = None) -> None:
        self.line(t, text)

    def measure(self, text: str, seconds: float) -> None:
        dots = "." * max(2, WIDTH - 11 - len(text) - 9)
        self.line(None, f"{text} {self.dim}{dots}{self.plain} {self.bold}{seconds:5.2f} s{self.plain}")

    def end(self, good: bool, text: str) -> None:
        colour = self.green if good else self.red
        print(f"\n{self.bold}{colour}{text}{self.plain}", flush=True)


def options() -> argparse.Namespace:
    top = argparse.ArgumentParser(prog="demo", description="A node loses power, its guest goes on with every write.")
    top.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON lines")
    top.add_argument("--profile", choices=("fast", "default"), default="default", help="timing profile of the site")
    top.add_argument("--keep", action="store_true", help="leave the site up to look around in")
    top.add_argument("--dir", default=FOLDER, help=f"lab folder ({FOLDER})")
    return top.parse_args()


def say_how_to_look(folder: str) -> None:
    lab = f"tests/lab/lab --dir {folder}"
    print(f"\nThe site is still up. Look around:\n  {lab} status\n  {lab} exec a hcictl status\n"
          f"  {lab} exec a hcictl vm list\n  {lab} boot b\nand when done:\n  {lab} down")


def play(lab: Lab, wanted: argparse.Namespace, timeline: Timeline) -> int:
    site = Site(lab, wanted.profile)
    failed = True
    try:
        lab.down()
        lab.up()
        timeline.tell(f"two nodes and a witness are on; profile {wanted.profile}")
        figures = story.play(site, timeline)
        if wanted.json:
            wanted.json.write_text("".join(json.dumps(line) + "\n" for line in figures.lines()))
        for loss in figures.losses:
            timeline.tell(f"LOST: {loss}")
        failed = bool(figures.losses or figures.lost_writes)
        timeline.end(not failed, f"{figures.acknowledged_writes} writes acknowledged, {figures.lost_writes} lost")
    except LabError as error:
        timeline.end(False, f"The story failed: {error}")
    except KeyboardInterrupt:
        timeline.end(False, "Interrupted.")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # cleaning up takes a second or two
        site.close()
        shutil.rmtree(LOGS, ignore_errors=True)
        lab.save_logs(LOGS)
        if wanted.keep and lab.is_up():
            say_how_to_look(wanted.dir)
        else:
            lab.down()
        print(f"logs: {LOGS}")
    return 1 if failed else 0


def interrupted(*_) -> None:
    raise KeyboardInterrupt


def main() -> int:
    wanted = options()
    signal.signal(signal.SIGTERM, interrupted)
    try:
        with only_one(wanted.dir):
            return play(Lab(wanted.dir), wanted, Timeline())
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
