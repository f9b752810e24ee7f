#!/usr/bin/env python3
"""hcictl's verbs for disks and targets, and a node that stands alone: what is asked, shown and refused. The daemon is
played here."""
import json
import os
import pty
import select
import signal
import subprocess
import time
import unittest

from cli_testing import FakeDaemon, Host, scratch

GIB = 1 << 30
IQN = "iqn.2004-10.org.example:"
OLD_ID, NEW_ID = "0b6e5c6a-0000-4000-8000-00000000000a", "0b6e5c6a-0000-4000-8000-00000000000b"


def disk(path, identity, **other):
    return {
        "id": identity,
        "path": path,
        "state": "ok",
        "total_bytes": 100 * GIB,
        "used_bytes": 5 * GIB,
        "drain_left_bytes": 0,
        "read_errors": 0,
        "write_errors": 0,
        "checksum_errors": 0,
        "since": None,
        **other,
    }


def pool(*disks, **other):
    return {
        "pool": "p",
        "total_bytes": 200 * GIB,
        "reserved_bytes": 10 * GIB,
        "used_bytes": GIB,
        "checksum_errors": 0,
        "failure": None,
        "disks": list(disks),
        **other,
    }


def volume(**other):
    return {
        "name": "web",
        "id": "1",
        "group": "g",
        "size_bytes": 10 * GIB,
        "used_bytes": GIB,
        "role": "sole",
        "serving": True,
        "primary_node": "a",
        "epoch": 1,
        "members": ["a"],
        "state": "current; this node stands alone",
        "behind_bytes": 0,
        "lost_bytes": 0,
        **other,
    }


class Draining:
    """A daemon's disks: asked to remove one, it drains for a few questions and then it is gone."""

    def __init__(self, *disks, steps=2):
        self.disks, self.steps = list(disks), steps
        self.end_as = None

    def list(self, _params):
        for one in list(self.disks):
            if one["state"] != "draining":
                continue
            one["drain_left_bytes"] = max(0, one["drain_left_bytes"] - GIB)
            if one["drain_left_bytes"] == 0 and self.end_as:
                one["state"] = self.end_as
            elif one["drain_left_bytes"] == 0:
                self.disks.remove(one)
        return {"disks": self.disks}

    def remove(self, params):
        one = next(one for one in self.disks if one["id"] == params["disk"])
        one["state"], one["drain_left_bytes"] = "draining", self.steps * GIB
        return {"disk": one["id"]}

    def replace(self, params):
        self.disks.append(disk(params["path"], NEW_ID))
        self.remove(params)
        return {"disk": NEW_ID}

    def answers(self):
        return {"disk.list": self.list, "disk.remove": self.remove, "disk.replace": self.replace}


class AloneTest(unittest.TestCase):
    def setUp(self):
        context = scratch()
        base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.host = Host(base, "a")
        code, self.said, error = self.host.ctl("cluster", "init", "--name", "lab", "--node", "a=127.0.0.1")
        self.assertEqual(code, 0, error)

    def play(self, answers):
        daemon = FakeDaemon(os.path.join(self.host.run, "storaged.sock"), answers)
        self.addCleanup(daemon.close)
        return daemon

    def refused(self, code, *words, **keys):
        """Runs a command that must fail without a word on stdout; gives its sentence."""
        got, out, error = self.host.ctl(*words, **keys)
        self.assertEqual((got, out), (code, ""), error)
        return error


class InitTest(AloneTest):
    def test_it_makes_one_file_and_says_what_it_means(self):
        self.assertIn("nothing\nis mirrored", self.said)
        made = [os.path.join(folder, name) for folder, _, names in os.walk(self.host.base) for name in names]
        self.assertEqual(made, [os.path.join(self.host.config, "hci.conf")])
        self.assertNotIn("witness", self.host.read("etc-hci/hci.conf"))
        shown = self.host.json("cluster", "show")
        self.assertTrue(shown["standalone"])
        self.assertEqual([node["name"] for node in shown["nodes"]], ["a"])
        self.assertIn("stands alone", self.host.ctl("cluster", "show")[1])

    def test_what_only_a_pair_has_is_refused(self):
        for words in (("cluster", "invite"), ("witness", "show")):
            self.assertIn("node 'a' stands alone", self.refused(1, *words))
        other = Host(os.path.dirname(self.host.base), "b")
        code, _, error = other.ctl(
            "cluster", "init", "--name", "lab", "--node", "b=127.0.0.1", "--watchdog-device", "/dev/watchdog"
        )
        self.assertEqual(code, 2)
        self.assertIn("needs no watchdog", error)
        self.assertFalse(os.path.exists(other.config))

    def test_it_is_not_done_twice(self):
        self.assertIn(
            "already belongs to a cluster", self.refused(1, "cluster", "init", "--name", "x", "--node", "a=127.0.0.1")
        )


class StatusTest(AloneTest):
    def status(self, pool_now, volumes=(), **other):
        self.play({"status": {"groups": [], "pool": pool_now, **other}, "volume.list": {"volumes": list(volumes)}})
        code, out, error = self.host.ctl("status", "--check")
        self.assertEqual(error, "")
        return code, out

    def test_all_is_well(self):
        code, out = self.status(pool(disk("/dev/sdb", OLD_ID)), [volume()])
        self.assertEqual(code, 0, out)
        self.assertIn("200 GiB on 1 disk, 10 GiB promised to volumes, 1 GiB used", out)
        self.assertIn(
            "all is well: this node serves 1 volume from 1 disk; it stands alone, so nothing is mirrored", out
        )
        for word in ("watchdog", "witness", "lease", "quorumd", "guests"):
            self.assertNotIn(word, out)

    def test_a_failed_disk_is_the_first_that_is_told(self):
        broken = disk("/dev/sdb", OLD_ID, state="failed", write_errors=3, since=int(time.time()) - 12 * 60 - 5)
        code, out = self.status(pool(disk("/dev/sdc", NEW_ID), broken), [volume(lost_bytes=GIB)])
        self.assertEqual(code, 1)
        self.assertTrue(out.startswith("! disk /dev/sdb failed 12 min ago: 3 write and 0 read errors"), out)
        self.assertIn("run 'hcictl disk replace /dev/sdb NEW-PATH --lost'", out.splitlines()[0])
        self.assertIn("volume 'web' has lost 1 GiB on this node", out)
        problems = self.host.json("status")["problems"]
        self.assertEqual([problem["urgent"] for problem in problems], [True, False])

    def test_it_is_red_on_a_terminal_only(self):
        self.play({"status": {"pool": pool(disk("/dev/sdb", OLD_ID, state="missing"))}, "volume.list": {"volumes": []}})
        self.assertNotIn("\033", self.host.ctl("status")[1])
        self.assertTrue(on_terminal(self.host.command("status")).startswith("\033[1;31m! disk /dev/sdb is missing"))
        self.assertNotIn("\033", on_terminal(self.host.command("status"), NO_COLOR="1"))

    def test_a_drain_is_shown_and_no_alarm(self):
        code, out = self.status(pool(disk("/dev/sdb", OLD_ID, state="draining", drain_left_bytes=3 * GIB)))
        self.assertEqual(code, 0, out)
        self.assertIn("/dev/sdb is being drained, 3 GiB left; do not take it away yet", out)

    def test_what_else_can_be_wrong_with_a_pool(self):
        cases = (
            (pool(failure="Input/output error"), "serves nothing"),
            (pool(reserved_bytes=300 * GIB), "promised more"),
            (pool(disk("/dev/sdb", OLD_ID, checksum_errors=2)), "gave back 2 wrong"),
        )
        answers = {"volume.list": {"volumes": []}}
        self.play(answers)
        for pool_now, part in cases:
            answers["status"] = {"pool": pool_now}
            code, out, _ = self.host.ctl("status", "--check")
            self.assertEqual(code, 1, out)
            self.assertIn(part, out)
        answers["status"] = {"pool": None, "pool_error": "disk /dev/sdb: it belongs to another pool; use --force"}
        out = self.host.ctl("status")[1]
        self.assertIn("! disk /dev/sdb: it belongs to another pool\n  -> use --force", out)

    def test_the_daemon_is_down(self):
        code, out, _ = self.host.ctl("status", "--check")
        self.assertEqual(code, 1)
        self.assertIn("DEGRADED: hci-storaged is not running", out)
        self.assertEqual(len(self.host.json("status")["problems"]), 1)


def on_terminal(command, *typed, **environment):
    """Runs a command with a terminal of its own; `typed` are pairs: a prompt, and what is typed when it is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(environment)
        os.execvp(command[0], command)
    out, seen, typed = b"", 0, list(typed)
    while True:
        assert select.select([terminal], [], [], 30)[0], f"it says nothing more after {out!r}"
        try:
            part = os.read(terminal, 4096)
        except OSError:  # EIO: the other side is gone
            break
        if not part:
            break
        out += part
        if typed and typed[0][0] in out[seen:]:
            seen = len(out)
            os.write(terminal, typed.pop(0)[1])
    os.waitpid(pid, 0)
    os.close(terminal)
    return out.decode()


class DiskTest(AloneTest):
    def test_tables_and_what_is_asked(self):
        failed = disk("/dev/sdc", NEW_ID, state="failed", write_errors=2, read_errors=1)
        daemon = self.play(
            {
                "disk.list": {"disks": [disk("/dev/sdb", OLD_ID), failed]},
                "disk.add": {"disk": NEW_ID},
                "pool.show": pool(disk("/dev/sdb", OLD_ID), failed),
            }
        )
        lines = self.host.ctl("disk", "list")[1].splitlines()
        self.assertEqual(lines[0].split(), ["DISK", "STATE", "SIZE", "USED", "ERRORS", "ID"])
        self.assertIn("FAILED", lines[2])
        self.assertIn("1 read, 2 write", lines[2])
        out = self.host.ctl("pool", "show")[1]
        self.assertIn("free for volumes:    190 GiB", out)
        self.assertIn("health:              good", out)
        self.assertIn("FAILED", out)
        code, out, error = self.host.ctl("disk", "add", "spare.img", "--size", "10G")
        self.assertEqual(code, 0, error)
        self.assertEqual(
            daemon.asked[-1],
            ("disk.add", {"path": os.path.join(os.getcwd(), "spare.img"), "file_bytes": 10 * GIB, "force": False}),
        )
        self.assertIn("is in the pool", out)

    def test_a_disk_is_drained_with_its_progress_shown(self):
        disks = Draining(disk("/dev/sdb", OLD_ID), disk("/dev/sdc", NEW_ID), steps=3)
        daemon = self.play(disks.answers())
        code, out, error = self.host.ctl("disk", "remove", "/dev/sdb")
        self.assertEqual((code, error), (0, ""))
        self.assertIn(("disk.remove", {"disk": OLD_ID, "lost": False}), daemon.asked)
        self.assertIn("draining /dev/sdb: 2 GiB left, rate not known yet\n", out)
        self.assertTrue(out.endswith("Disk '/dev/sdb' is empty and out of the pool; it may be taken away.\n"), out)
        self.assertEqual([one["path"] for one in disks.disks], ["/dev/sdc"])

    def test_a_terminal_sees_rate_and_finish_time(self):
        self.play(Draining(disk("/dev/sdb", OLD_ID), disk("/dev/sdc", NEW_ID), steps=4).answers())
        self.assertRegex(
            on_terminal(self.host.command("disk", "remove", "/dev/sdb")),
            r"\r\x1b\[Kdraining /dev/sdb: 2 GiB left, [\d.]+ [GM]iB/s, done at \d\d:\d\d:\d\d",
        )

    def test_no_wait_and_json(self):
        disks = Draining(disk("/dev/sdb", OLD_ID), disk("/dev/sdc", NEW_ID), steps=1000)
        self.play(disks.answers())
        self.assertIn("is being drained", self.host.ctl("disk", "remove", OLD_ID, "--no-wait")[1])
        disks.disks[0]["state"] = "ok"
        self.assertEqual(
            self.host.json("disk", "remove", "/dev/sdb", "--no-wait"), {"disk": OLD_ID, "state": "draining"}
        )
        disks.disks[0]["state"], disks.steps = "ok", 1
        self.assertEqual(self.host.json("disk", "remove", "/dev/sdb"), {"disk": OLD_ID, "state": "removed"})

    def test_an_interruption_leaves_the_drain_going_on(self):
        self.play(Draining(disk("/dev/sdb", OLD_ID), disk("/dev/sdc", NEW_ID), steps=1000).answers())
        with subprocess.Popen(
            self.host.command("disk", "remove", "/dev/sdb"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            self.assertIn("draining", process.stdout.readline())  # now it waits
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 1, "what follows && must not pull the disk")
        self.assertIn("it is being drained all the same", error)

    def test_a_drain_that_ends_early_is_told(self):
        disks = Draining(disk("/dev/sdb", OLD_ID), disk("/dev/sdc", NEW_ID))
        disks.end_as = "ok"
        self.play(disks.answers())
        code, _, error = self.host.ctl("disk", "remove", "/dev/sdb")
        self.assertEqual(code, 1)
        self.assertIn("draining it ended early", error)

    def test_replacing(self):
        daemon = self.play(Draining(disk("/dev/sdb", OLD_ID), disk("/dev/sdc", NEW_ID)).answers())
        code, out, error = self.host.ctl("disk", "replace", "/dev/sdb", "/dev/sdd", "--force", "--lost")
        self.assertEqual((code, error), (0, ""))
        self.assertIn(
            ("disk.replace", {"disk": OLD_ID, "path": "/dev/sdd", "file_bytes": 0, "force": True, "lost": True}),
            daemon.asked,
        )
        self.assertIn("'/dev/sdd' is in the pool; now what '/dev/sdb' holds moves", out)

    def test_another_name_of_the_disk(self):
        real, link = os.path.join(self.host.base, "disk"), os.path.join(self.host.base, "by-id")
        open(real, "w", encoding="utf-8").close()
        os.symlink(real, link)
        daemon = self.play(Draining(disk(real, OLD_ID), disk("/dev/sdc", NEW_ID)).answers())
        self.assertEqual(self.host.ctl("disk", "remove", link, "--no-wait")[0], 0)
        self.assertEqual(daemon.asked[-1], ("disk.remove", {"disk": OLD_ID, "lost": False}))
        self.assertIn("the pool has none of that path or id", self.refused(1, "disk", "remove", "/dev/sdz"))

    def test_a_pool_that_does_not_open_for_want_of_a_disk(self):
        missing = {
            "error": {"code": "missing_disks", "message": f"pool: disk {OLD_ID} is missing; bring it back, or …"}
        }
        asked = []
        daemon = self.play(
            {
                "disk.list": lambda _: {"disks": []} if asked else missing,
                "disk.remove": lambda params: asked.append(params) or {"disk": OLD_ID},
            }
        )
        self.assertIn("is missing; bring it back", self.refused(1, "disk", "list"))
        self.assertIn("is missing; bring it back", self.refused(1, "disk", "remove", OLD_ID))
        self.assertIn("is missing; bring it back", self.refused(1, "disk", "remove", "/dev/sdb", "--lost"))
        self.assertNotIn("disk.remove", [method for method, _ in daemon.asked])
        code, out, error = self.host.ctl("disk", "remove", OLD_ID, "--lost")
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(asked, [{"disk": OLD_ID, "lost": True}])
        self.assertIn("what only it held is lost", out)

    def test_growing(self):
        daemon = self.play({"volume.grow": {"volume": "v", "group": "g"}})
        code, out, _ = self.host.ctl("volume", "grow", "web", "--size", "20G")
        self.assertEqual(code, 0)
        self.assertEqual(daemon.asked, [("volume.grow", {"name": "web", "size_bytes": 20 * GIB})])
        self.assertIn("Volume 'web' has 20 GiB now", out)
        self.refused(2, "volume", "grow", "web")
        self.refused(2, "volume", "grow", "web", "--size", "20")


class TargetTest(AloneTest):
    def target(self, **other):
        return {
            "name": "web",
            "iqn": "iqn.2026-01.io.hci:web",
            "portals": ["127.0.0.1:3260"],
            "initiators": None,
            "chap": None,
            "sessions": [],
            "group": "g",
            "group_name": "web",
            "guest": None,
            **other,
        }

    def show(self, **other):
        self.play({"target.show": self.target(**other)})
        code, out, error = self.host.ctl("target", "show", "web")
        self.assertEqual((code, error), (0, ""))
        return out

    def test_show(self):
        out = self.show(sessions=[{"initiator": IQN + "one", "address": "10.0.0.9:40112"}])
        for part in (
            "iqn.2026-01.io.hci:web",
            "127.0.0.1:3260, LUN 0",
            "any that reaches a portal",
            "password:   none",
            "10.0.0.9:40112",
        ):
            self.assertIn(part, out)

    def test_an_empty_list_is_told_loudly(self):
        self.assertIn("NOBODY may log in: the list is empty", self.show(initiators=[]))

    def test_passwords_and_guests(self):
        out = self.show(initiators=[IQN + "one"], chap={"user": "joe", "mutual_user": "tgt"}, group_name="shop")
        self.assertIn("CHAP, user 'joe'; the target proves itself as 'tgt'", out)
        self.assertIn("the same for all volumes of group 'shop'", out)

    def test_a_guests_disk(self):
        self.assertIn(
            "only the guest 'web'", self.show(guest="web", initiators=[], chap={"user": "u", "mutual_user": None})
        )

    def acl(self, before, *words):
        daemon = self.play({"target.show": self.target(initiators=before), "target.set": {}})
        code, out, error = self.host.ctl("target", "acl", "web", *words)
        self.assertEqual((code, error), (0, ""))
        asked = daemon.asked[-1]
        self.assertEqual(asked[0], "target.set")
        self.assertEqual(asked[1]["expected"], before, "what another did meanwhile must not be undone")
        return asked[1]["initiators"], out

    def test_acl_add_to_an_open_target(self):
        self.assertEqual(self.acl(None, "--add", IQN + "a", "--add", IQN + "b")[0], [IQN + "a", IQN + "b"])

    def test_acl_add_and_remove(self):
        self.assertEqual(self.acl([IQN + "a", IQN + "b"], "--add", IQN + "b", "--remove", IQN + "a")[0], [IQN + "b"])

    def test_acl_the_last_one_leaves_nobody(self):
        after, out = self.acl([IQN + "a"], "--remove", IQN + "a")
        self.assertEqual(after, [])
        self.assertIn("NOBODY", out)

    def test_acl_any(self):
        self.assertIsNone(self.acl([], "--any")[0])

    def test_acl_refusals(self):
        self.play({"target.show": self.target(initiators=[])})
        self.assertIn("is not on the list", self.refused(1, "target", "acl", "web", "--remove", IQN + "x"))
        self.refused(2, "target", "acl", "web")
        self.refused(2, "target", "acl", "web", "--any", "--add", IQN + "x")

    def chap(self, typed, *words):
        done = subprocess.run(
            self.host.command("target", "chap", "web", *words), input=typed, capture_output=True, text=True, timeout=30
        )
        return done.returncode, done.stdout, done.stderr

    def test_chap_from_a_pipe_a_file_and_off(self):
        daemon = self.play({"target.chap": {}})
        path = os.path.join(self.host.base, "secrets")
        with open(path, "w", encoding="utf-8") as file:
            file.write("correct horse\r\nbattery staple\n")
        os.chmod(path, 0o600)
        both = {
            "name": "web",
            "user": "joe",
            "secret": "correct horse",
            "mutual_user": "tgt",
            "mutual_secret": "battery staple",
        }
        one = {"name": "web", "user": "joe", "secret": "correct horse"}
        for typed, words, expected in (
            ("correct horse\n", ("--user", "joe"), one),
            ("correct horse\nbattery staple\n", ("--user", "joe", "--mutual-user", "tgt"), both),
            ("", ("--user", "joe", "--mutual-user", "tgt", "--secret-file", path), both),
            ("correct horse", ("--user", "joe", "--secret-file", "-"), one),
            ("", ("--off",), {"name": "web", "off": True}),
        ):
            code, out, error = self.chap(typed, *words)
            self.assertEqual((code, error), (0, ""))
            self.assertNotIn("horse", out)
            self.assertEqual(daemon.asked[-1], ("target.chap", expected))

    def test_chap_refusals_ask_nobody(self):
        daemon = self.play({"target.chap": {}})
        path = os.path.join(self.host.base, "secrets")
        with open(path, "w", encoding="utf-8") as file:
            file.write("correct horse\n")
        os.chmod(path, 0o644)
        for typed, code, words in (
            ("", 1, ("--user", "joe")),
            ("one line only", 1, ("--user", "joe", "--mutual-user", "t")),
            ("", 1, ("--user", "joe", "--secret-file", path)),
            ("x" * 5000, 1, ("--user", "joe")),
            ("", 1, ("--user", "joe", "--secret-file", path + ".none")),
            ("", 2, ()),
            ("", 2, ("--off", "--user", "joe")),
            ("", 2, ("--mutual-user", "t")),
        ):
            self.assertEqual(self.chap(typed, *words)[0], code, words)
        self.assertEqual(daemon.asked, [])

    def test_chap_on_a_terminal_is_typed_twice_and_not_shown(self):
        daemon = self.play({"target.chap": {}})
        command = self.host.command("target", "chap", "web", "--user", "joe")
        out = on_terminal(command, (b"characters): ", b"correct horse\n"), (b"again: ", b"correct horse\n"))
        self.assertNotIn("horse", out)
        self.assertEqual(
            daemon.asked, [("target.chap", {"name": "web", "user": "joe", "secret": "correct horse"})], out
        )
        daemon.asked.clear()
        out = on_terminal(command, (b"characters): ", b"correct horse\n"), (b"again: ", b"another horse\n"))
        self.assertIn("the two were not the same", out)
        self.assertEqual(daemon.asked, [])

    def test_the_mutual_secret_is_hidden_too(self):
        chap = json.dumps({"user": "joe", "secret": "sesame one", "mutual_user": "t", "mutual_secret": "sesame two"})
        self.play({"meta.get": {"group": "g", "version": 1, "entries": {"chap": chap}}})
        self.assertNotIn("sesame", self.host.ctl("group", "meta", "web")[1])
        self.assertEqual(self.host.ctl("group", "meta", "web", "--secrets")[1].count("sesame"), 2)


if __name__ == "__main__":
    unittest.main()
