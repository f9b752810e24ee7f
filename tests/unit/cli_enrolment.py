#!/usr/bin/env python3
"""Does enrolment do what it says? Over loopback, in temporary folders, with a witness that is played here."""
import base64
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import unittest

from cli_testing import Host, Invite, free_port, scratch


def make_token(fingerprint, secret):
    """common/token.h: "hci1-" + base32 of fingerprint and secret."""
    return "hci1-" + base64.b32encode(fingerprint + secret).decode().lower().rstrip("=")


def split_token(token):
    text = token.removeprefix("hci1-").upper()
    data = base64.b32decode(text + "=" * (-len(text) % 8))
    return data[:32], data[32:]


def with_wrong_secret(token):
    fingerprint, secret = split_token(token)
    return make_token(fingerprint, bytes(byte ^ 0x55 for byte in secret))


def secrets_of(host):
    return dict(re.findall(r'(\w+) = "([0-9a-f]{64})"', host.read("etc-hci/secrets.conf")))


class EnrolmentTest(unittest.TestCase):
    def setUp(self):
        context = scratch()
        base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.a, self.b = Host(base, "a"), Host(base, "b")

    def invite(self):
        invite = Invite(self.a)
        self.addCleanup(invite.end)
        return invite

    def init(self):
        code, out, error = self.a.init()
        self.assertEqual(code, 0, error)
        return out

    def assert_one_sentence(self, error, *parts):
        lines = [line for line in error.splitlines() if line]
        self.assertEqual(len(lines), 1, error)
        self.assertTrue(lines[0].startswith("hcictl: "), error)
        for part in parts:
            self.assertIn(part, lines[0])


class InitTest(EnrolmentTest):
    def test_says_what_to_do_next(self):
        out = self.init()
        for part in ("hcictl witness token", "hcictl witness enroll", "hcictl cluster invite", "systemctl enable"):
            self.assertIn(part, out)

    def test_modes(self):
        self.init()
        expected = {"etc-hci/hci.conf": 0o644, "etc-hci/secrets.conf": 0o600, "etc-hci/pki": 0o700,
                    "etc-hci/pki/ca.key": 0o600, "etc-hci/pki/node.key": 0o600, "etc-corosync/authkey": 0o400,
                    "state/join.json": 0o600}
        self.assertEqual({path: self.a.mode(path) for path in expected}, expected)
        self.assertEqual(os.path.getsize(os.path.join(self.a.corosync, "authkey")), 256)

    def test_configuration_is_read_back(self):
        self.init()
        document = self.a.json("cluster", "show")
        self.assertEqual(document["name"], "shop17")
        self.assertEqual(document["self"], "a")
        self.assertEqual({node["name"]: node["links"] for node in document["nodes"]},
                         {"a": ["127.0.0.1", "127.0.1.1"], "b": ["127.0.0.2", "127.0.1.2"]})
        self.assertLess(document["nodes"][0]["uuid"], document["nodes"][1]["uuid"])
        self.assertEqual(document["watchdog"]["period_ms"], 5000)
        self.assertIsNone(document["witness"])
        self.assertFalse(document["witness_enrolled"])

    @unittest.skipUnless(shutil.which("corosync"), "corosync is not installed")
    def test_corosync_accepts_its_configuration(self):
        self.init()
        # The key is looked for in /etc/corosync unless the file says otherwise.
        key = os.path.join(self.a.corosync, "authkey")
        conf = os.path.join(self.a.base, "corosync-test.conf")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(self.a.read("etc-corosync/corosync.conf").replace("version: 2",
                                                                         f"version: 2\n    keyfile: {key}"))
        done = subprocess.run(["corosync", "-t", "-c", conf], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_an_existing_cluster_is_kept(self):
        self.init()
        before = self.a.read("etc-hci/hci.conf")
        code, _, error = self.a.init("other")
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "hci.conf exists", "move")
        self.assertEqual(self.a.read("etc-hci/hci.conf"), before)

    def test_a_foreign_corosync_cluster_is_kept(self):
        os.makedirs(self.a.corosync)
        with open(os.path.join(self.a.corosync, "authkey"), "w", encoding="utf-8") as file:
            file.write("foreign")
        code, _, error = self.a.init()
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "authkey exists")
        self.assertFalse(self.a.exists("etc-hci/hci.conf"))

    def test_the_distributions_corosync_conf_is_kept_beside(self):
        os.makedirs(self.a.corosync)
        with open(os.path.join(self.a.corosync, "corosync.conf"), "w", encoding="utf-8") as file:
            file.write("distribution")
        self.init()
        self.assertEqual(self.a.read("etc-corosync/corosync.conf.before-hci"), "distribution")

    def test_a_failed_init_leaves_nothing_behind(self):
        os.makedirs(self.a.base, exist_ok=True)
        with open(self.a.corosync, "w", encoding="utf-8") as file:
            file.write("a file where the folder should be")
        code, _, error = self.a.init()
        self.assertEqual(code, 1)
        self.assert_one_sentence(error)
        self.assertEqual([name for _, _, names in os.walk(self.a.config) for name in names], [])
        os.unlink(self.a.corosync)
        self.init()

    def test_wrong_command_lines(self):
        good = ["cluster", "init", "--name", "shop17", "--node", "a=10.0.0.1", "--node", "b=10.0.0.2"]
        for position, value, part in ((3, "Shop 17", "cluster name"), (5, "a", "write it as NAME=IP"),
                                      (5, "a=host", "no IP address"), (5, "b=10.0.0.1", "both nodes are named"),
                                      (5, "a=10.0.0.1,10.1.0.1", "same links"), (5, "a=10.0.0.1:80", "no IP address"),
                                      (5, "a=", "has no address")):
            words = list(good)
            words[position] = value
            code, _, error = self.a.ctl(*words)
            self.assertEqual(code, 2, f"{words}: {error}")
            self.assertIn(part, error)
        self.assertEqual(self.a.ctl(*good[:4])[0], 2)
        self.assertEqual(self.a.ctl(*good, "--profile", "turbo")[0], 2)
        self.assertEqual(self.a.ctl(*good, "--portal", "x:1")[0], 2)
        code, _, error = self.a.ctl(*good[:6], "--node", "b=10.0.0.1")
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "10.0.0.1")
        self.assertFalse(self.a.exists("etc-hci/pki/ca.key"))


class JoinTest(EnrolmentTest):
    def test_the_second_node_joins(self):
        self.init()
        invite = self.invite()
        code, out, error = self.b.ctl("cluster", "join", invite.address, invite.token)
        self.assertEqual(code, 0, error)
        self.assertEqual(error, "")
        self.assertIn("node 'b' of cluster 'shop17'", out)
        self.assertEqual(invite.finish(), (0, "hcictl: the keys of node 'b' go to 127.0.0.1\n"))
        a, b = self.a.json("cluster", "show"), self.b.json("cluster", "show")
        self.assertEqual(b["self"], "b")
        for key in ("name", "uuid", "nodes", "profile", "portals", "watchdog", "ca_sha256"):
            self.assertEqual(a[key], b[key])
        self.check_files()

    def check_files(self):
        a, b = secrets_of(self.a), secrets_of(self.b)
        self.assertEqual((a["to_peer"], a["from_peer"]), (b["from_peer"], b["to_peer"]))
        self.assertNotEqual(a["to_peer"], a["from_peer"])
        self.assertEqual(self.a.read("etc-corosync/corosync.conf"), self.b.read("etc-corosync/corosync.conf"))
        with open(os.path.join(self.a.corosync, "authkey"), "rb") as left, \
                open(os.path.join(self.b.corosync, "authkey"), "rb") as right:
            self.assertEqual(left.read(), right.read())
        expected = {"etc-hci/secrets.conf": 0o600, "etc-hci/pki": 0o700, "etc-hci/pki/node.key": 0o600,
                    "etc-corosync/authkey": 0o400}
        self.assertEqual({path: self.b.mode(path) for path in expected}, expected)
        self.assertFalse(self.b.exists("etc-hci/pki/ca.key"), "only the first node may issue certificates")
        self.assertNotEqual(self.a.read("etc-hci/pki/node.key"), self.b.read("etc-hci/pki/node.key"))
        state = json.loads(self.a.read("state/join.json"))
        self.assertEqual(state, {"handed_out": True, "joined": True}, "the second node's keys must be dropped")

    def test_a_token_works_once(self):
        self.init()
        invite = self.invite()
        self.assertEqual(self.b.ctl("cluster", "join", invite.address, invite.token)[0], 0)
        self.assertEqual(invite.finish()[0], 0)
        third = Host(os.path.dirname(self.a.base), "c")
        code, _, error = third.ctl("cluster", "join", invite.address, invite.token)
        self.assertEqual(code, 3)
        self.assert_one_sentence(error, "cannot be reached")
        self.assertFalse(third.exists("etc-hci"))
        code, _, error = self.a.ctl("cluster", "invite", "--listen", f"127.0.0.1:{invite.port}")
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "has already joined")
        code, _, error = self.a.ctl("witness", "enroll", "127.0.0.1", invite.token)
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "has already joined", "anew")
        code, _, error = self.b.ctl("cluster", "join", invite.address, invite.token)
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "already belongs")

    def test_wrong_token_then_the_right_one(self):
        self.init()
        invite = self.invite()
        code, _, error = self.b.ctl("cluster", "join", invite.address, with_wrong_secret(invite.token))
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "refused", "not the token")
        self.assertFalse(self.b.exists("etc-hci"))
        self.assertEqual(self.b.ctl("cluster", "join", invite.address, invite.token)[0], 0)
        code, error = invite.finish()
        self.assertEqual(code, 0)
        self.assertIn("wrong token (1 of at most 10)", error)

    def test_guessing_ends_the_invitation(self):
        self.init()
        invite = self.invite()
        for _ in range(10):
            self.assertEqual(self.b.ctl("cluster", "join", invite.address, with_wrong_secret(invite.token))[0], 1)
        code, error = invite.finish()
        self.assertEqual(code, 1)
        self.assertIn("guessing", error)

    def test_wrong_fingerprint(self):
        self.init()
        invite = self.invite()
        _, secret = split_token(invite.token)
        code, _, error = self.b.ctl("cluster", "join", invite.address, make_token(bytes(32), secret))
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "not the host that made this token")
        self.assertFalse(self.b.exists("etc-hci"))

    def test_unreachable_and_mistyped(self):
        token = make_token(bytes(32), bytes(16))
        code, _, error = self.b.ctl("cluster", "join", f"127.0.0.1:{free_port()}", token)
        self.assertEqual(code, 3)
        self.assert_one_sentence(error, "cannot be reached")
        self.assertEqual(self.b.ctl("cluster", "join", "127.0.0.1", token[:-1])[0], 2)
        self.assertEqual(self.b.ctl("cluster", "join", "nodea", token)[0], 2)
        self.assertEqual(self.b.ctl("cluster", "join", "127.0.0.1")[0], 2)

    def test_garbage_does_not_end_the_invitation(self):
        self.init()
        invite = self.invite()
        address = ("127.0.0.1", invite.port)
        socket.create_connection(address).close()
        with socket.create_connection(address) as plain:
            plain.sendall(os.urandom(4096))
        for text in (b"x" * 70000, b"not json\n", b"[1]\n", b'{"method":"rm"}\n', b'{"method":"join","secret":7}\n'):
            self.send_over_tls(address, text)
        self.assertEqual(self.b.ctl("cluster", "join", invite.address, invite.token)[0], 0)
        self.assertEqual(invite.finish()[0], 0)

    def send_over_tls(self, address, text):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection(address) as plain, context.wrap_socket(plain) as stream:
                stream.settimeout(15)
                stream.sendall(text)
                stream.recv(1000)
        except OSError:
            pass

    def test_a_broken_key_is_refused_and_a_retry_works(self):
        self.init()
        invite = self.invite()
        _, secret = split_token(invite.token)
        request = {"method": "join", "secret": secret.hex(), "public_key": "no key"}
        self.send_over_tls(("127.0.0.1", invite.port), json.dumps(request).encode() + b"\n")
        # A joiner that cannot write its files gives up before it confirms; the token is still good then.
        with open(self.b.corosync, "w", encoding="utf-8") as file:
            file.write("a file where the folder should be")
        code, _, error = self.b.ctl("cluster", "join", invite.address, invite.token)
        self.assertEqual(code, 1)
        self.assert_one_sentence(error)
        self.assertFalse(self.b.exists("etc-hci/hci.conf"))
        self.assertFalse(self.b.exists("etc-hci/pki/node.key"))
        os.unlink(self.b.corosync)
        self.assertEqual(self.b.ctl("cluster", "join", invite.address, invite.token)[0], 0)
        self.assertEqual(invite.finish()[0], 0)


class Witness(threading.Thread):
    """Answers one enrolment over TLS as the witness would, with the certificate of another cluster's node."""

    def __init__(self, host, answer):
        super().__init__(daemon=True)
        pki = os.path.join(host.config, "pki")
        chain = os.path.join(host.base, "chain.pem")
        with open(chain, "w", encoding="utf-8") as file:
            file.write(host.read("etc-hci/pki/node.crt") + host.read("etc-hci/pki/ca.crt"))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain, os.path.join(pki, "node.key"))
        der = ssl.PEM_cert_to_DER_cert(host.read("etc-hci/pki/ca.crt"))
        self.token = make_token(hashlib.sha256(der).digest(), bytes(range(16)))
        self.answer, self.request = answer, None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.start()

    def run(self):
        with self.listener, self.listener.accept()[0] as plain, self.context.wrap_socket(plain,
                                                                                         server_side=True) as stream, \
                stream.makefile("rw", encoding="utf-8") as lines:
            self.request = json.loads(lines.readline())
            lines.write(json.dumps(self.answer(self.request)) + "\n")
            lines.flush()


WITNESS_ID = "11111111-2222-4333-8444-555555555555"


def grant(request):
    keys = {node["id"]: {"to_witness": f"{index + 1:02x}" * 32, "from_witness": f"{index + 11:02x}" * 32}
            for index, node in enumerate(request["nodes"])}
    return {"result": {"witness": WITNESS_ID, "keys": keys}}


class WitnessTest(EnrolmentTest):
    def witness(self, answer):
        other = Host(os.path.dirname(self.a.base), "witness")
        self.assertEqual(other.init("witness")[0], 0)
        witness = Witness(other, answer)
        self.addCleanup(witness.join, 5)
        return witness

    def test_both_nodes_get_their_keys(self):
        self.init()
        witness = self.witness(grant)
        code, out, error = self.a.ctl("witness", "enroll", witness.address, witness.token)
        self.assertEqual(code, 0, error)
        self.assertIn("is enrolled", out)
        document = self.a.json("cluster", "show")
        self.assertEqual(document["witness"]["uuid"], WITNESS_ID)
        self.assertTrue(document["witness_enrolled"])
        self.assertEqual(witness.request["cluster"], {"id": document["uuid"], "name": "shop17"})
        self.assertEqual(witness.request["ca"], self.a.read("etc-hci/pki/ca.crt"))
        self.assertEqual(witness.request["secret"], bytes(range(16)).hex())
        invite = self.invite()
        self.assertEqual(self.b.ctl("cluster", "join", invite.address, invite.token)[0], 0)
        self.assertEqual(self.b.json("cluster", "show")["witness"], document["witness"])
        keys = grant(witness.request)["result"]["keys"]
        for host, name in ((self.a, "a"), (self.b, "b")):
            uuid = next(node["uuid"] for node in document["nodes"] if node["name"] == name)
            secrets = secrets_of(host)
            self.assertEqual({key: secrets[key] for key in ("to_witness", "from_witness")}, keys[uuid])

    def test_a_second_witness_is_refused(self):
        self.init()
        witness = self.witness(grant)
        self.assertEqual(self.a.ctl("witness", "enroll", witness.address, witness.token)[0], 0)
        code, _, error = self.a.ctl("witness", "enroll", witness.address, witness.token)
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "already has the witness")

    def test_the_witness_refuses(self):
        self.init()
        witness = self.witness(lambda _: {"error": {"code": "token",
                                                    "message": "the token was used already; make a new one"}})
        code, _, error = self.a.ctl("witness", "enroll", witness.address, witness.token)
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "used already")
        self.assertIsNone(self.a.json("cluster", "show")["witness"])

    def test_an_incomplete_answer_changes_nothing(self):
        self.init()
        before = self.a.read("etc-hci/secrets.conf"), self.a.read("state/join.json")
        witness = self.witness(lambda _: {"result": {"witness": WITNESS_ID, "keys": {}}})
        code, _, error = self.a.ctl("witness", "enroll", witness.address, witness.token)
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "without keys")
        self.assertEqual((self.a.read("etc-hci/secrets.conf"), self.a.read("state/join.json")), before)

    def test_only_on_the_first_node(self):
        code, _, error = self.b.ctl("witness", "enroll", "127.0.0.1", make_token(bytes(32), bytes(16)))
        self.assertEqual(code, 1)
        self.assert_one_sentence(error, "in no cluster yet")


if __name__ == "__main__":
    unittest.main()
