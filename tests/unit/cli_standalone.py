#!/usr/bin/env python3
"""hcictl and a real hci-storaged on a node that stands alone: from nothing to a disk in use, and back after a crash."""
import json
import os
import re
import subprocess
import unittest

from cli_testing import Host, Storaged, free_port, scratch

IQN = "iqn.2004-10.org.example:"


class StandaloneTest(unittest.TestCase):
    def setUp(self):
        context = scratch()
        base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.host, self.port = Host(base, "a"), free_port()
        self.url = f"iscsi://127.0.0.1:{self.port}/iqn.2026-01.io.hci:web/0"
        self.good("cluster", "init", "--name", "lab", "--node", "a=127.0.0.1", "--portal", f"127.0.0.1:{self.port}")
        self.daemon = Storaged(self.host)
        self.addCleanup(lambda: self.daemon.end())

    def good(self, *words):
        code, out, error = self.host.ctl(*words, timeout=120)
        self.assertEqual(code, 0, f"{words}: {error}")
        return out

    def refused(self, *words):
        code, out, error = self.host.ctl(*words)
        self.assertEqual((code, out), (1, ""), error)
        self.assertRegex(error, r"^hcictl: .*\n$")
        return error

    def path(self, name):
        return os.path.join(self.host.base, name)

    def make_pool(self):
        self.good("pool", "create", self.path("one.img"), self.path("two.img"), "--size", "512M")

    def make_disk(self):
        self.make_pool()
        self.good("volume", "create", "web", "--size", "64M")

    def io(self, *commands, url=None):
        words = ["qemu-io", "-f", "raw", "-t", "none"] + [word for command in commands for word in ("-c", command)]
        done = subprocess.run(words + [url or self.url], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_the_whole_story(self):
        self.assertIn("this node has no pool", self.refused("volume", "create", "web", "--size", "64M"))
        self.assertIn("this node has no pool", self.refused("disk", "list"))
        self.make_disk()
        self.assertIn(
            "this node has a pool already", self.refused("pool", "create", self.path("x.img"), "--size", "512M")
        )
        self.assertIn("the name is taken", self.refused("volume", "create", "web", "--size", "64M"))
        self.assertIn("all is well: this node serves 1 volume from 2 disks", self.good("status", "--check"))
        code, out = self.io("write -P 0x5a 0 1M", "write -P 0xa5 63M 1M")
        self.assertEqual(code, 0, out)
        self.assertEqual(self.host.json("volume", "show", "web")["size_bytes"], 64 << 20)
        self.assertEqual(
            [disk["path"] for disk in self.host.json("disk", "list")["disks"]],
            [self.path("one.img"), self.path("two.img")],
        )
        self.good("volume", "delete", "web")
        self.assertEqual(self.host.json("volume", "list"), {"volumes": []})

    def test_after_a_crash_everything_is_as_before(self):
        self.make_disk()
        self.good("target", "acl", "web", "--add", IQN + "one")
        self.good("target", "acl", "web", "--any")
        self.assertEqual(self.io("write -P 0x77 4k 68k")[0], 0)
        self.daemon.end(kill=True)
        self.assertEqual(self.host.ctl("volume", "list")[0], 3)
        self.daemon = Storaged(self.host)
        code, out = self.io("read -P 0x77 4k 68k", "read -P 0 72k 64k")
        self.assertEqual(code, 0, out)
        self.assertNotIn("failed", out)

    def test_who_may_log_in(self):
        self.make_disk()
        self.good("target", "acl", "web", "--add", IQN + "one", "--add", IQN + "two")
        self.good("target", "acl", "web", "--remove", IQN + "one")
        self.assertIn("no iSCSI name", self.refused("target", "acl", "web", "--add", "IQN.bad"))
        path = self.path("secret")
        with open(path, "w", encoding="utf-8") as file:
            file.write("correct horse\nbattery staple\n")
        os.chmod(path, 0o600)
        self.good("target", "chap", "web", "--user", "joe", "--mutual-user", "tgt", "--secret-file", path)
        self.daemon.end()
        self.daemon = Storaged(self.host)
        shown = self.host.json("target", "show", "web")
        self.assertEqual((shown["initiators"], shown["chap"]), ([IQN + "two"], {"user": "joe", "mutual_user": "tgt"}))
        self.assertNotIn("horse", json.dumps(shown) + self.good("group", "meta", "web"))
        self.good("target", "acl", "web", "--any")
        self.assertNotEqual(self.io("read 0 4k")[0], 0, "without the password")
        words = [
            f"driver=iscsi,transport=tcp,portal=127.0.0.1:{self.port},target=iqn.2026-01.io.hci:web,lun=0,"
            "user=joe,password-secret=s"
        ]
        done = subprocess.run(
            ["qemu-io", "--object", "secret,id=s,data=correct horse", "--image-opts", *words, "-c", "read 0 4k"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.good("target", "chap", "web", "--off")
        self.assertEqual(self.io("read 0 4k")[0], 0)

    def test_secrets_that_prove_nothing_are_refused(self):
        self.make_disk()
        for user, lines, why in (
            ("joe", "short\n", "12 to 63 characters"),
            ("j e", "correct horse\n", "a CHAP user is"),
            ("joe", "correct hörse\n", "printable ASCII"),
        ):
            done = subprocess.run(
                self.host.command("target", "chap", "web", "--user", user),
                input=lines,
                capture_output=True,
                text=True,
                timeout=30,
            )
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)
            self.assertNotIn(lines.strip(), done.stderr)
        done = subprocess.run(
            self.host.command("target", "chap", "web", "--user", "joe", "--mutual-user", "tgt"),
            capture_output=True,
            input="correct horse\ncorrect horse\n",
            text=True,
            timeout=30,
        )
        self.assertIn("both directions have the same secret", done.stderr)
        self.assertIsNone(self.host.json("target", "show", "web")["chap"])

    def test_who_is_logged_in(self):
        self.make_disk()
        with subprocess.Popen(
            ["qemu-io", "-f", "raw", self.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            client.stdin.write("read 0 4k\n")
            client.stdin.flush()
            self.assertIn(
                "read 4096/4096", client.stdout.readline() + client.stdout.readline()
            )  # the prompt may come first
            sessions = self.host.json("target", "show", "web")["sessions"]
            self.assertIn("initiators are connected", self.refused("volume", "delete", "web"))
            client.communicate("quit\n", timeout=30)
        self.assertEqual(len(sessions), 1)
        self.assertRegex(sessions[0]["initiator"], r"^iqn\.")
        self.assertRegex(sessions[0]["address"], r"^127\.0\.0\.1:\d+$")

    def test_growing_a_volume_in_use(self):
        self.make_disk()
        self.assertIn("a volume only grows", self.refused("volume", "grow", "web", "--size", "32M"))
        self.assertIn("there is none of that name", self.refused("volume", "grow", "nothing", "--size", "1G"))
        self.assertEqual(self.io("write -P 0x11 63M 1M")[0], 0)
        self.good("volume", "grow", "web", "--size", "128M")
        self.good("volume", "grow", "web", "--size", "128M")  # what was interrupted is completed by asking again
        self.assertEqual(self.host.json("volume", "show", "web")["size_bytes"], 128 << 20)
        code, out = self.io("read -P 0x11 63M 1M", "read -P 0 64M 64M", "write -P 0x22 127M 1M")
        self.assertEqual(code, 0, out)
        self.assertNotIn("failed", out)
        self.assertIn("not enough free space", self.refused("volume", "grow", "web", "--size", "1T"))
        self.daemon.end(kill=True)
        self.daemon = Storaged(self.host)
        self.assertEqual(self.host.json("volume", "show", "web")["size_bytes"], 128 << 20)
        self.assertNotIn("failed", self.io("read -P 0x22 127M 1M")[1])

    def test_disks_come_and_go_while_the_volume_serves(self):
        self.make_disk()
        self.assertEqual(self.io("write -P 0x33 0 64M")[0], 0)
        self.good("disk", "add", self.path("three.img"), "--size", "512M")
        self.assertIn(
            "it is in the pool already", self.refused("disk", "add", self.path("three.img"), "--size", "512M")
        )
        self.good("disk", "remove", self.path("one.img"))
        self.good("disk", "replace", self.path("two.img"), self.path("four.img"), "--size", "512M")
        left = [self.path("three.img"), self.path("four.img")]
        self.assertEqual(sorted(disk["path"] for disk in self.host.json("disk", "list")["disks"]), sorted(left))
        self.assertNotIn("failed", self.io("read -P 0x33 0 64M")[1])
        for name in ("one.img", "two.img"):
            os.unlink(self.path(name))
        self.daemon.end(kill=True)
        self.assertEqual(sorted(json.loads(self.host.read("state/pool.json"))["paths"]), sorted(left))
        self.daemon = Storaged(self.host)
        self.assertIn("all is well", self.good("status"))
        self.assertNotIn("failed", self.io("read -P 0x33 0 64M")[1])
        self.good("disk", "remove", self.path("three.img"))
        self.assertIn("the pool's last disk", self.refused("disk", "remove", self.path("four.img")))
        self.assertNotIn("failed", self.io("read -P 0x33 0 64M")[1])

    def test_a_pool_that_lost_too_many_disks_is_opened_without_one_that_is_given_up(self):
        self.make_disk()
        self.assertEqual(self.io("write -P 0x33 0 64M")[0], 0)
        self.daemon.end(kill=True)
        os.unlink(self.path("one.img"))
        self.daemon = Storaged(self.host)
        error = self.refused("disk", "list")
        lost = re.search(r"disk remove ([0-9a-f-]{36}) --lost", error).group(1)
        self.assertEqual(self.host.ctl("status", "--check")[0], 1)
        self.assertIn("what only it held is lost", self.good("disk", "remove", lost, "--lost"))
        self.assertEqual(json.loads(self.host.read("state/pool.json")), {"paths": [self.path("two.img")], "lost": []})
        shown = self.host.json("volume", "show", "web")
        self.assertGreater(shown["lost_bytes"], 0)
        self.assertIn("Input/output error", self.io("read 0 64M")[1], "never zeros, never old data")
        self.assertEqual(self.io("write -P 0x44 0 64M")[0], 0)
        self.assertNotIn("failed", self.io("read -P 0x44 0 64M")[1])
        self.assertIn("all is well", self.good("status", "--check"))
        self.daemon.end()
        self.daemon = Storaged(self.host)
        self.assertIn("all is well", self.good("status", "--check"))

    def test_a_disk_that_is_missing_is_told_and_replaced(self):
        self.good(
            "pool", "create", *[self.path(name) for name in ("one.img", "two.img", "three.img")], "--size", "512M"
        )
        self.daemon.end()
        os.unlink(self.path("two.img"))
        self.daemon = Storaged(self.host)
        code, out, _ = self.host.ctl("status", "--check")
        self.assertEqual(code, 1)
        self.assertRegex(out.splitlines()[0], r"^! disk .* is missing: .*hcictl disk replace .* --lost")
        lost = next(disk["id"] for disk in self.host.json("disk", "list")["disks"] if disk["state"] == "missing")
        self.assertIn("--lost", self.refused("disk", "replace", lost, self.path("four.img"), "--size", "512M"))
        self.good("disk", "replace", lost, self.path("four.img"), "--size", "512M", "--lost")
        self.assertEqual([disk["state"] for disk in self.host.json("disk", "list")["disks"]], ["ok"] * 3)
        self.assertIn("from 3 disks", self.good("status", "--check"))


if __name__ == "__main__":
    unittest.main()
