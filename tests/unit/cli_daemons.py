#!/usr/bin/env python3
"""What hcictl asks the daemons, what it shows of their answers, and how it exits: the daemons are played here."""
import copy
import json
import os
import socket
import subprocess
import unittest

from cli_testing import FakeDaemon, Host, scratch

GIB = 1 << 30

QUORUMD = {
    "node": "a",
    "lease": {"valid": True, "generation": 3, "from_peer_ms": 2400, "from_witness_ms": 1900, "storage_alive": True},
    "peer": {"name": "b", "state": "alive", "heard_ms_ago": 20, "lease_over_in_ms": 2800, "t_kill_ms": 5300, "links": [
        {"own": "127.0.0.1", "peer": "127.0.0.2", "up": True, "heard_ms_ago": 20, "rtt_ms": 0.2},
        {"own": "127.0.1.1", "peer": "127.0.1.2", "up": True, "heard_ms_ago": 20, "rtt_ms": 0.2}]},
    "witness": {"address": "10.13.0.3", "port": 7203, "reachable": True, "old_store": False, "rtt_ms": 12.25},
    "watchdog": {"armed": True, "t_kill_ms": 5300,
                 "sentence": "watchdog armed: resets this node 5000 ms after its last feed"},
    "guests": [{"name": "web", "group": "g", "incarnation": 2, "state": "running"}],
    "corosync": {"state": "running", "quorate": True, "votes": 2, "cpg_members": 2, "links": {"b0": True}},
}
VOLUME = {"name": "web", "id": "1", "group": "g", "size_bytes": 10 * GIB, "used_bytes": GIB,
          "iqn": "iqn.2026-01.io.hci:web",
          "role": "primary", "serving": True, "primary_node": "a", "epoch": 4, "members": ["a", "b"],
          "state": "both copies current", "behind_bytes": 0}
POOL = {"pool": "p", "total_bytes": 40 * GIB, "reserved_bytes": 10 * GIB, "used_bytes": GIB, "failure": None, "disks": [
    {"id": "d", "path": "/dev/sdb", "state": "ok", "total_bytes": 40 * GIB, "used_bytes": GIB, "drain_left_bytes": 0,
     "read_errors": 0, "write_errors": 0, "checksum_errors": 0, "since": None}]}
GUEST = {"name": "web", "state": "running", "node": "a", "incarnation": 2, "here": True, "group": "web", "reason": ""}
VMHAD = {"version": "0", "node": "a", "storaged": True, "quorumd": True, "libvirt_uri": "qemu:///system",
         "hypervisor": True,
         "lease_valid": True, "guests": 1, "guests_here": 1}


class DaemonTest(unittest.TestCase):
    def setUp(self):
        context = scratch()
        base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.host = Host(base, "a")
        code, _, error = self.host.init()
        self.assertEqual(code, 0, error)

    def play(self, name, answers):
        daemon = FakeDaemon(os.path.join(self.host.run, f"{name}.sock"), answers)
        self.addCleanup(daemon.close)
        return daemon

    def play_all(self, quorumd=None, volumes=None, guests=None):
        """Three daemons of a healthy site, but for what the test says."""
        self.play("quorumd", {"status": quorumd or QUORUMD})
        self.play("storaged", {"status": {"groups": [], "pool": POOL},
                               "volume.list": {"volumes": [VOLUME] if volumes is None else volumes}})
        self.play("vmhad", {"status": VMHAD, "vm.list": {"guests": [GUEST] if guests is None else guests}})


class VerbTest(DaemonTest):
    def test_each_verb_asks_what_the_contract_says(self):
        path = os.path.join(self.host.base, "web.xml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("<domain>ü</domain>")
        storaged = self.play("storaged", {method: {} for method in (
            "pool.create", "volume.create", "volume.list", "volume.delete", "group.list", "meta.get")})
        vmhad = self.play("vmhad", {method: {} for method in ("vm.add", "vm.start", "vm.stop", "vm.list", "vm.show",
                                                               "vm.remove")})
        cases = [
            (("pool", "create", "/dev/x", "/dev/y", "--force"), storaged,
             ("pool.create", {"paths": ["/dev/x", "/dev/y"], "file_bytes": 0, "force": True})),
            (("pool", "create", "/x", "--size", "20G"), storaged,
             ("pool.create", {"paths": ["/x"], "file_bytes": 20 * GIB, "force": False})),
            (("volume", "create", "db1", "--size", "10G"), storaged, ("volume.create", {"name": "db1",
                                                                                        "size_bytes": 10 * GIB})),
            (("volume", "create", "--group", "g", "--size=1M", "db1"), storaged,
             ("volume.create", {"name": "db1", "size_bytes": 1 << 20, "group": "g"})),
            (("volume", "list"), storaged, ("volume.list", {})),
            (("volume", "delete", "db1"), storaged, ("volume.delete", {"name": "db1"})),
            (("group", "list"), storaged, ("group.list", {})),
            (("group", "meta", "web"), storaged, ("meta.get", {"group": "web"})),
            (("vm", "add", "web", "--xml", path), vmhad, ("vm.add", {"name": "web", "xml": "<domain>ü</domain>"})),
            (("vm", "start", "web"), vmhad, ("vm.start", {"name": "web"})),
            (("vm", "stop", "web"), vmhad, ("vm.stop", {"name": "web", "force": False})),
            (("vm", "stop", "web", "--force"), vmhad, ("vm.stop", {"name": "web", "force": True})),
            (("vm", "list"), vmhad, ("vm.list", {})),
            (("vm", "show", "web"), vmhad, ("vm.show", {"name": "web"})),
            (("vm", "remove", "web"), vmhad, ("vm.remove", {"name": "web"})),
        ]
        for words, daemon, expected in cases:
            for form in ((), ("--json",)):
                daemon.asked.clear()
                code, out, error = self.host.ctl(*form, *words)
                self.assertEqual((code, error), (0, ""), words)
                self.assertEqual(daemon.asked, [expected], words)
                if form:
                    self.assertEqual(json.loads(out), {}, words)

    def test_a_refusal_is_shown_as_it_is(self):
        message = "volume 'db1': the name is taken; choose another"
        self.play("storaged", {"volume.create": {"error": {"code": "exists", "message": message}}})
        code, out, error = self.host.ctl("volume", "create", "db1", "--size", "1G")
        self.assertEqual((code, out, error), (1, "", f"hcictl: {message}\n"))

    def test_a_daemon_that_is_not_running(self):
        code, out, error = self.host.ctl("volume", "list")
        self.assertEqual((code, out), (3, ""))
        self.assertIn("hci-storaged is not running", error)

    def test_wrong_command_lines_ask_nobody(self):
        storaged = self.play("storaged", {})
        for words in (("volume", "create", "db1"), ("volume", "create", "db1", "--size", "10"), ("volume", "create",
                                                                                                 "--size", "1G"),
                      ("volume", "create", "a", "b", "--size", "1G"), ("volume", "list", "x"), ("volume", "list",
                                                                                                "--size", "1G"),
                      ("volume", "fly"), ("volume",), ("flying",), (), ("pool", "create"), ("vm", "add", "web"),
                      ("volume", "create", "db1", "--size", "1G", "--size", "2G"), ("--run-folder",)):
            code, _, _ = self.host.ctl(*words)
            self.assertEqual(code, 2, words)
        self.assertEqual(storaged.asked, [])

    def test_help_knows_every_verb(self):
        code, out, _ = self.host.ctl("--help")
        self.assertEqual(code, 0)
        for words in (("cluster", "init"), ("cluster", "join"), ("volume", "create"), ("vm", "add"), ("status",),
                      ("events",)):
            self.assertIn(" ".join(words), out)
            code, detail, error = self.host.ctl(*words, "--help")
            self.assertEqual((code, error), (0, ""))
            self.assertIn("Exit codes", detail)
        self.assertEqual(self.host.ctl("volume", "--help")[0], 0)
        code, out, _ = self.host.ctl("--version")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^hcictl \d+\.\d+\.\d+\n$")

    def test_tables(self):
        self.play("storaged", {"volume.list": {"volumes": [VOLUME]},
                               "volume.show": lambda params: VOLUME if params["name"] == "web" else {"error": {
                                   "code": "not_found", "message": f"volume '{params['name']}': there is none of that name"}},
                               "meta.get": {"group": "g", "version": 7, "entries": {"owner": "{}",
                                                                                    "chap": '{"secret":"hidden"}'}}})
        code, out, _ = self.host.ctl("volume", "list")
        self.assertEqual(code, 0)
        self.assertEqual(out.splitlines()[0].split(), ["VOLUME", "SIZE", "USED", "PRIMARY", "HERE", "COPIES", "STATE"])
        self.assertIn("10 GiB", out)
        self.assertIn("a, b", out)
        self.assertIn("iSCSI name:", self.host.ctl("volume", "show", "web")[1])
        code, _, error = self.host.ctl("volume", "show", "nothing")
        self.assertEqual(code, 1)
        self.assertIn("volume 'nothing': there is none of that name", error)
        _, out, _ = self.host.ctl("group", "meta", "web")
        self.assertIn("version 7", out)
        self.assertNotIn("hidden", out.replace("(hidden; --secrets shows it)", ""))

    def test_secrets_are_hidden_unless_asked_for(self):
        xml = ("<domain><graphics type='vnc' passwd = \"sesame\" passwdValidTo='2030'/>"
               "<description>passwd='told'</description></domain>")
        guest = json.dumps({"name": "web", "xml": xml})
        chap = '{"user":"guest-web","secret":"open"}'
        self.play("storaged", {"meta.get": {"group": "g", "version": 7,
                                            "entries": {"owner": '{"node":"n"}', "chap": chap, "guest": guest}}})
        self.play("vmhad", {"vm.show": dict(GUEST, xml=xml)})
        for words in (("group", "meta", "web"), ("vm", "show", "web")):
            for form in ((), ("--json",)):
                code, out, error = self.host.ctl(*form, *words)
                self.assertEqual((code, error), (0, ""), words)
                self.assertNotIn("sesame", out)
                self.assertNotIn('"open', out)
                self.assertIn("2030", out)
                self.assertIn("sesame", self.host.ctl(*form, *words, "--secrets")[1], words)
        entries = self.host.json("group", "meta", "web")["entries"]
        self.assertEqual(json.loads(entries["chap"]), {"user": "guest-web", "secret": "(hidden; --secrets shows it)"})
        self.assertEqual(json.loads(entries["guest"])["xml"], xml.replace("sesame", "******"))
        self.assertEqual(entries["owner"], '{"node":"n"}')
        self.assertEqual(self.host.json("group", "meta", "web", "--secrets")["entries"]["chap"], chap)

    def test_a_secret_that_cannot_be_read_is_hidden_too(self):
        self.play("storaged", {"meta.get": {"group": "g", "version": 7,
                                            "entries": {"chap": "open", "guest": "[sesame"}}})
        for form in ((), ("--json",)):
            code, out, _ = self.host.ctl(*form, "group", "meta", "web")
            self.assertEqual(code, 0)
            self.assertNotIn("open", out)
            self.assertNotIn("sesame", out)

    def test_a_token_does_not_stay_on_the_command_line(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            token = "hci1-" + "a" * 77
            host = Host(os.path.dirname(self.host.base), "b")
            with subprocess.Popen(host.command("cluster", "join", f"127.0.0.1:{listener.getsockname()[1]}", token),
                                  stderr=subprocess.DEVNULL) as process:
                connection, _ = listener.accept()  # from here on it waits for us
                with open(f"/proc/{process.pid}/cmdline", "rb") as file:
                    line = file.read()
                connection.close()
        self.assertIn(b"join", line)
        self.assertNotIn(token.encode(), line)

    def test_an_xml_file_that_cannot_be_used(self):
        vmhad = self.play("vmhad", {"vm.add": {}})
        path = os.path.join(self.host.base, "binary")
        with open(path, "wb") as file:
            file.write(b"<domain>\xff\x00</domain>")
        for words in (("vm", "add", "web", "--xml", path), ("vm", "add", "web", "--xml", path + ".missing")):
            code, _, error = self.host.ctl(*words)
            self.assertEqual(code, 1)
            self.assertIn(path, error)
        self.assertEqual(vmhad.asked, [])

    def test_the_witness_host_needs_no_configuration(self):
        host = Host(os.path.dirname(self.host.base), "witness")
        daemon = FakeDaemon(os.path.join(host.run, "witnessd.sock"), {"token.new": {"token": "hci1-x",
                                                                                    "seconds": 3600}})
        self.addCleanup(daemon.close)
        code, out, error = host.ctl("witness", "token")
        self.assertEqual(code, 0, error)
        self.assertIn("hcictl witness enroll ADDRESS hci1-x", out)


class StatusTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.add_witness()

    def add_witness(self):
        with open(os.path.join(self.host.config, "hci.conf"), "a", encoding="utf-8") as file:
            file.write('witness {\n uuid = "11111111-2222-4333-8444-555555555555"\n'
                       ' address = "10.13.0.3"\n port = 7203\n}\n')

    def status(self, *words):
        code, out, error = self.host.ctl("status", *words)
        self.assertEqual(error, "")
        return code, out

    def assert_degraded(self, *parts):
        code, out = self.status("--check")
        self.assertEqual(code, 1, out)
        self.assertTrue(out.splitlines()[-1].startswith("DEGRADED: "), out)
        for part in parts:
            self.assertIn(part, out)
        self.assertEqual(self.status()[0], 0, "degraded is no failure of the command")
        document = self.host.json("status")
        self.assertFalse(document["well"])
        self.assertTrue(all(problem["what"] and problem["remedy"] for problem in document["problems"]))
        return document

    def test_all_is_well(self):
        self.play_all()
        code, out = self.status("--check")
        self.assertEqual(code, 0, out)
        self.assertTrue(out.splitlines()[-1].startswith("all is well: "), out)
        for part in ("shop17", "b: alive", "127.0.1.2 up", "10.13.0.3 port 7203: answers in 12.2 ms", "valid", "armed",
                     "both copies current", "web", "running on a"):
            self.assertIn(part, out)
        document = self.host.json("status")
        self.assertTrue(document["well"])
        self.assertEqual(document["problems"], [])

    def test_nothing_runs(self):
        document = self.assert_degraded("hci-quorumd is not running", "hci-storaged is not running",
                                        "hci-vmhad is not running")
        self.assertEqual(len(document["problems"]), 3, document["problems"])

    def test_one_daemon_is_down(self):
        self.play("quorumd", {"status": QUORUMD})
        self.play("vmhad", {"status": VMHAD, "vm.list": {"guests": [GUEST]}})
        document = self.assert_degraded("hci-storaged is not running", "running on a", "valid")
        self.assertEqual(len(document["problems"]), 1, document["problems"])

    def test_the_other_node_is_gone(self):
        quorumd = copy.deepcopy(QUORUMD)
        quorumd["peer"]["state"] = "suspect"
        for link in quorumd["peer"]["links"]:
            link["up"] = False
        volume = dict(VOLUME, role="sole", members=["a"], state="only this node has the current copy",
                      behind_bytes=4096)
        self.play_all(quorumd, [volume])
        document = self.assert_degraded("node b is not heard", "volume 'web' has one current copy")
        self.assertIn("node b is not heard", document["summary"], "the cause comes first")
        self.assertIn("(and 1 more, above)", document["summary"])

    def test_the_other_node_was_never_heard(self):
        quorumd = copy.deepcopy(QUORUMD)
        quorumd["peer"]["t_kill_ms"] = -1
        for link in quorumd["peer"]["links"]:
            link["up"] = False
        self.play_all(quorumd)
        document = self.assert_degraded("b: NOT HEARD", "node b is not heard on any link")
        self.assertEqual(len(document["problems"]), 1)

    def test_a_link_is_down(self):
        quorumd = copy.deepcopy(QUORUMD)
        quorumd["peer"]["links"][1]["up"] = False
        self.play_all(quorumd)
        document = self.assert_degraded("127.0.1.2 DOWN", "not heard on the link 127.0.1.2")
        self.assertEqual(len(document["problems"]), 1)

    def test_the_witness_is_gone(self):
        self.play_all(dict(QUORUMD, witness={"reachable": False}))
        self.assert_degraded("the witness 10.13.0.3 does not answer", "nothing stops")

    def test_the_lease_is_over(self):
        guests = [dict(QUORUMD["guests"][0], state="frozen")]
        self.play_all(dict(QUORUMD, lease={"valid": False, "generation": 4}, guests=guests),
                      guests=[dict(GUEST, state="frozen")])
        document = self.assert_degraded("this node has no lease", "guest 'web' is frozen on this node")
        self.assertEqual(len(document["problems"]), 2, "a frozen guest is told once")

    def test_the_storage_stands_still(self):
        self.play_all(dict(QUORUMD, lease=dict(QUORUMD["lease"], storage_alive=False)))
        self.assert_degraded("the storage of this node stands still")

    def test_the_witness_lost_its_store(self):
        self.play_all(dict(QUORUMD, witness=dict(QUORUMD["witness"], old_store=True)))
        self.assert_degraded("has lost records")

    def test_a_sole_member_needs_no_lease(self):
        volume = dict(VOLUME, role="sole", members=["a"], state="only this node has the current copy")
        self.play_all(dict(QUORUMD, lease={"valid": False, "generation": 4}), [volume])
        self.assertNotIn("has no lease", self.status()[1])

    def test_the_watchdog_is_not_armed(self):
        sentence = "watchdog not armed: opening failed (No such device); trying again"
        self.play_all(dict(QUORUMD, watchdog={"armed": False, "t_kill_ms": -1, "sentence": sentence}))
        self.assert_degraded("not armed: opening failed")

    def test_the_other_nodes_watchdog_is_not_armed(self):
        self.play_all(dict(QUORUMD, peer=dict(QUORUMD["peer"], t_kill_ms=-1)))
        self.assert_degraded("node b promises no reset")

    def test_a_guest_failed(self):
        self.play_all(guests=[dict(GUEST, state="failed", node="", here=False,
                                   reason="libvirt refused its definition")])
        self.assert_degraded("guest 'web' is failed: libvirt refused its definition")

    def test_a_volume_is_not_served(self):
        self.play_all(volumes=[dict(VOLUME, role="idle", serving=False, primary_node=None,
                                    state="waits for the witness")])
        self.assert_degraded("volume 'web' is not served: waits for the witness")

    def test_no_pool_yet(self):
        self.play("quorumd", {"status": QUORUMD})
        self.play("vmhad", {"status": VMHAD, "vm.list": {"guests": []}})
        self.play("storaged", {"status": {}, "volume.list": {"error": {
            "code": "no_pool", "message": "this node has no pool; make one with 'hcictl pool create PATH'"}}})
        self.assert_degraded("this node has no pool", "hcictl pool create")

    def test_no_witness_at_all(self):
        path = os.path.join(self.host.config, "hci.conf")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text[:text.index("witness {")])
        self.play_all(dict(QUORUMD, witness=None))
        self.assert_degraded("there is no witness")

    def test_no_cluster(self):
        host = Host(os.path.dirname(self.host.base), "stranger")
        code, _, error = host.ctl("status")
        self.assertEqual(code, 1)
        self.assertIn("in no cluster yet", error)

    def test_answers_of_another_shape_do_no_harm(self):
        self.play("quorumd", {"status": {"peer": 7, "lease": [], "witness": "x", "watchdog": {}, "corosync": 1,
                                         "guests": {}}})
        self.play("storaged", {"status": [], "volume.list": {"volumes": [{}, 3, None]}})
        self.play("vmhad", {"status": [1], "vm.list": {"guests": [{}, "x"]}})
        self.assertEqual(self.status()[0], 0)
        self.assertEqual(self.host.ctl("--json", "status")[0], 0)


if __name__ == "__main__":
    unittest.main()
