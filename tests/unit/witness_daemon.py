#!/usr/bin/env python3
"""Does hci-witnessd, as a process, tell people, show its figures, admit clusters and bring a backup back as it says?"""
import contextlib
import http.server
import json
import os
import queue
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request

from cli_testing import Host, free_port, scratch

WITNESSD = os.environ.get("HCI_WITNESSD", "hci-witnessd")
LOAD = os.environ.get("WITNESS_LOAD", "witness_load")
PATIENCE_S = 60


class Witness:
    """The daemon in folders of its own; ready when the constructor returns."""

    def __init__(self, base, config=""):
        self.base = base
        os.makedirs(base, exist_ok=True)
        self.state, self.run = os.path.join(base, "state"), os.path.join(base, "run")
        self.config = os.path.join(base, "witnessd.conf")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(config)
        self.port = free_port()
        self.process = None

    def command(self, *words):
        return [WITNESSD, "--state", self.state, "--run", self.run, *words]

    def start(self):
        self.log = open(os.path.join(self.base, "log"), "ab")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            address = os.path.join(self.base, "notify")
            ready.bind(address)
            ready.settimeout(1)
            self.process = subprocess.Popen(
                self.command("--config", self.config, "--listen", f"127.0.0.1:{self.port}"), stderr=self.log,
                env={**os.environ, "NOTIFY_SOCKET": address})
            try:
                while self.process.poll() is None:
                    with contextlib.suppress(TimeoutError):
                        assert b"READY=1" in ready.recv(4096)
                        return self
            finally:
                os.unlink(address)
        raise AssertionError(self.said())

    def said(self):
        with open(os.path.join(self.base, "log"), encoding="utf-8") as file:
            return file.read()

    def wait_for(self, words):
        until = time.monotonic() + PATIENCE_S
        while words not in self.said():
            assert self.process.poll() is None and time.monotonic() < until, self.said()
            time.sleep(0.02)

    def errand(self, *words):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=PATIENCE_S)
        return done.returncode, done.stdout, done.stderr

    def call(self, method, params=None):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(os.path.join(self.run, "witnessd.sock"))
            stream.sendall(json.dumps({"id": 1, "method": method, "params": params or {}}).encode() + b"\n")
            with stream.makefile() as lines:
                return json.loads(lines.readline())["result"]

    def end(self, how=signal.SIGTERM):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(30) if self.process is not None else 0
        self.log.close()
        return code


class Hook(http.server.ThreadingHTTPServer):
    """A web service that takes alerts; answers with each of `statuses` in turn, then 200."""

    def __init__(self, statuses=(), tls=None):
        self.alerts, self.requests, self.statuses = queue.Queue(), [], list(statuses)
        super().__init__(("127.0.0.1", 0), HookHandler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that does not trust us goes away

    def close(self):
        self.shutdown()
        self.server_close()


class HookHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.server.requests.append((status, self.headers, body))
        self.send_response(status)
        self.end_headers()
        if status == 200:
            self.server.alerts.put(body)

    def log_message(self, *words):
        pass


class WitnessTest(unittest.TestCase):
    def setUp(self):
        context = scratch()
        self.base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def hook(self, *words, **more):
        hook = Hook(*words, **more)
        self.addCleanup(hook.close)
        return hook

    def witness(self, config="", name="witness", clusters=0):
        witness = Witness(os.path.join(self.base, name), config)
        if clusters:
            subprocess.run([LOAD, "--make", witness.state, str(clusters)], check=True)
        witness.start()
        self.addCleanup(witness.end)
        return witness


class AlertTest(WitnessTest):
    def test_a_test_alert_reaches_webhook_and_hook(self):
        hook = self.hook(statuses=[500])
        heard = os.path.join(self.base, "heard")
        script = os.path.join(self.base, "hook.sh")
        with open(script, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\necho "$* ($(env | grep -c SECRET))" > {heard}.new\ncat >> {heard}.new\n'
                       f'mv {heard}.new {heard}\n')
        os.chmod(script, 0o700)
        os.mkfifo(heard + ".pipe")
        os.environ["SECRET_OF_THE_TEST"] = "1"
        self.addCleanup(os.environ.pop, "SECRET_OF_THE_TEST")
        with open(script, "a", encoding="utf-8") as file:
            file.write(f"echo done > {heard}.pipe\n")
        witness = self.witness(f'webhook = "http://127.0.0.1:{hook.server_port}/x?key=hidden"\n'
                               f'webhook_header = "Authorization: Bearer sesame"\nhook = "{script}"\n')
        code, out, error = witness.errand("--alert-test")
        self.assertEqual((code, error), (0, ""))
        self.assertIn("to the webhook, to the hook", out)
        alert = hook.alerts.get(timeout=PATIENCE_S)
        self.assertEqual([status for status, _, _ in hook.requests], [500, 200], "a refusal is tried again")
        self.assertEqual((alert["kind"], alert["state"]), ("test", "raised"))
        self.assertEqual(hook.requests[1][1]["Authorization"], "Bearer sesame")
        with open(heard + ".pipe", encoding="utf-8") as pipe:
            pipe.read()
        with open(heard, encoding="utf-8") as file:
            words, document = file.read().split("\n", 1)
        self.assertEqual(words, "test raised   (0)")
        self.assertEqual(json.loads(document), alert)
        self.assertEqual(witness.end(), 0)
        said = witness.said()
        self.assertIn("answered with HTTP status 500", said)
        self.assertIn("this is a test of the alerts", said)
        for secret in ("hidden", "sesame"):
            self.assertNotIn(secret, said)

    def test_a_web_service_that_cannot_prove_its_name_hears_nothing(self):
        other = self.witness(name="other")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(os.path.join(other.state, "pki/witness.crt"), os.path.join(other.state, "pki/witness.key"))
        hook = self.hook(tls=tls)
        witness = self.witness(f'webhook = "https://127.0.0.1:{hook.server_port}/"')
        witness.errand("--alert-test")
        witness.wait_for("was not delivered")
        self.assertIn("certificate", witness.said())
        self.assertEqual(hook.requests, [])

    def test_a_hook_that_fails_is_said(self):
        witness = self.witness('hook = "/bin/false"')
        witness.errand("--alert-test")
        witness.wait_for("was not delivered")
        self.assertIn("'/bin/false': ended with code 1", witness.said())
        self.assertEqual(witness.end(), 0, "what waits for its next try does not keep the daemon")

    def test_dark_sites_are_told(self):
        hook = self.hook()
        witness = self.witness(f'dark_after = 1\nlost_after = 1\nwebhook = "http://127.0.0.1:{hook.server_port}"', clusters=25)
        alerts = [hook.alerts.get(timeout=PATIENCE_S) for _ in range(20)]
        self.assertEqual(len({alert["site"] for alert in alerts}), 20)
        for alert in alerts:
            self.assertEqual((alert["kind"], alert["state"], alert["node"]), ("site_dark", "raised", ""))
            self.assertIn(f"site '{alert['site']}' is dark: neither node 'a' nor 'b' has been heard since {alert['since']}",
                          alert["text"])
        # So many at once have a cause near the witness: the journal has them all, people are not called 25 times.
        for number in range(25):
            witness.wait_for(f"site 'site{number:05}' is dark")
        self.assertLess(hook.alerts.qsize(), 5)
        self.assertEqual({tuple(cluster["alerts"]) for cluster in witness.call("status")["clusters"]}, {("site_dark",)})

    def test_a_node_that_is_lost_is_told_and_what_it_leaves(self):
        hook = self.hook()
        witness = self.witness('dark_after = 600\nlost_after = 2\ndegraded_after = 1\n'
                               f'webhook = "http://127.0.0.1:{hook.server_port}"', clusters=2)
        load = subprocess.run([LOAD, "127.0.0.1", str(witness.port), str(witness.process.pid), "2", "0.5"],
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(load.returncode, 0, load.stderr)
        figures = json.loads(load.stdout)
        self.assertEqual(figures["witness.clusters"], 2)
        heard = [hook.alerts.get(timeout=PATIENCE_S) for _ in range(2)]
        self.assertEqual({alert["kind"] for alert in heard}, {"node_lost", "degraded"})
        for alert in heard:
            self.assertIn("4 of 4 groups", alert["text"])
            self.assertIn("safe", alert["text"])
        self.assertEqual({alert["node"] for alert in heard if alert["kind"] == "node_lost"}, {"b"})


class ConfigTest(WitnessTest):
    def test_a_wrong_line_is_said_without_its_secrets(self):
        for line, part in (("dark_after = 0", "must be 1 to"), ("dark_atfer = 1", "line 1"),
                           ('webhook = "ftp://sesame@host"', "must begin with https://"),
                           ('hook = "notify.sh"', "absolute path"), ('metrics = "9203"', "must be ADDRESS:PORT"),
                           ('webhook = "https://sesame', "correct the line"),
                           (f'webhook_header = "{"sesame" * 100}"', "at most 511 characters")):
            with self.subTest(line):
                path = os.path.join(self.base, "bad.conf")
                with open(path, "w", encoding="utf-8") as file:
                    file.write(line)
                done = subprocess.run([WITNESSD, "--state", self.base, "--run", self.base, "--config", path],
                                      capture_output=True, text=True, timeout=PATIENCE_S)
                self.assertEqual(done.returncode, 1)
                self.assertIn(part, done.stderr)
                self.assertNotIn("sesame", done.stderr)


class FiguresTest(WitnessTest):
    def test_prometheus_reads_them(self):
        port = free_port()
        witness = self.witness(f'metrics = "127.0.0.1:{port}"', clusters=3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(5):
                stranger.sendto(b"x" * 200, ("127.0.0.1", witness.port))
        values = {}
        while values.get("hci_witness_clusters") != 3 or values['hci_witness_refused_total{reason="foreign"}'] < 5:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
                text = answer.read().decode()
            time.sleep(0.02)
            values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                      if not line.startswith("#")}
        self.assertEqual(values['hci_witness_refused_total{reason="foreign"}'], 5)
        self.assertGreater(values["hci_witness_store_bytes"], 0)
        self.assertEqual(values['hci_witness_commit_seconds_bucket{le="+Inf"}'], values["hci_witness_commit_seconds_count"])
        named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        self.assertEqual({name.split("{")[0].removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
                          for name in values}, named)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/secrets", timeout=PATIENCE_S)
        refused.exception.close()
        self.assertEqual(refused.exception.code, 404)


class EnrolmentTest(WitnessTest):
    def enrol(self, witness, name, token):
        host = Host(self.base, name)
        self.assertEqual(host.init(name)[0], 0)
        return host.ctl("witness", "enroll", f"127.0.0.1:{witness.port}", token)

    def test_strangers_at_the_door_keep_nobody_out(self):
        witness = self.witness()
        with contextlib.ExitStack() as doors:
            for number in range(20):  # silent ones, from two addresses; those beyond four of an address are shown out
                stranger = doors.enter_context(socket.socket())
                stranger.bind((f"127.0.0.{2 + number % 2}", 0))
                stranger.connect(("127.0.0.1", witness.port))
                if number % 5 == 0:
                    stranger.sendall(os.urandom(300))
            token = witness.call("token.new")["token"]
            code, _, error = self.enrol(witness, "shop17", token)
            self.assertEqual(code, 0, error)
            code, _, error = self.enrol(witness, "shop18", token)
            self.assertEqual(code, 1)
            self.assertIn("already used", error)
        status = witness.call("status")
        self.assertEqual([cluster["name"] for cluster in status["clusters"]], ["shop17"])

    def test_a_token_survives_a_kill_and_a_cluster_too(self):
        witness = self.witness()
        token = witness.call("token.new")["token"]
        witness.end(signal.SIGKILL)
        witness.start()
        code, _, error = self.enrol(witness, "shop17", token)
        self.assertEqual(code, 0, error)
        witness.end(signal.SIGKILL)
        witness.start()
        self.assertEqual(witness.call("status")["cluster_count"], 1)
        code, _, error = witness.errand("--forget", "shop17")
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(witness.call("status")["cluster_count"], 0)
        code, _, error = witness.errand("--forget", "shop17")
        self.assertEqual(code, 1)
        self.assertIn("cluster 'shop17': is not enrolled here", error)


    def test_a_node_gets_new_keys(self):
        witness = self.witness()
        host = Host(self.base, "shop17")
        self.assertEqual(host.init("shop17")[0], 0)
        code, _, error = host.ctl("witness", "enroll", f"127.0.0.1:{witness.port}", witness.call("token.new")["token"])
        self.assertEqual(code, 0, error)
        before = dict(line.split(" = ") for line in host.read("etc-hci/secrets.conf").splitlines() if " = " in line)
        token = witness.call("token.new")["token"]
        code, out, error = host.ctl("witness", "rekey", token)
        self.assertEqual((code, error), (0, ""))
        self.assertIn("has new keys for the witness", out)
        after = dict(line.split(" = ") for line in host.read("etc-hci/secrets.conf").splitlines() if " = " in line)
        self.assertEqual({key for key in before if before[key] != after[key]}, {"to_witness", "from_witness"})
        self.assertEqual(host.mode("etc-hci/secrets.conf"), 0o600)
        code, _, error = host.ctl("witness", "rekey", token)
        self.assertEqual(code, 1)
        self.assertIn("already used", error)


class BackupTest(WitnessTest):
    def test_a_restored_store_knows_all_and_grants_nothing(self):
        witness = self.witness(clusters=50)
        copy = os.path.join(self.base, "copy.db")
        code, out, error = witness.errand("--backup", copy)
        self.assertEqual((code, error), (0, ""))
        self.assertIn("grants nothing until", out)
        self.assertEqual(stat.S_IMODE(os.stat(copy).st_mode), 0o600)
        self.assertFalse(os.path.exists(os.path.join(witness.state, "backup.db")))
        self.assertFalse(any(cluster["restored"] for cluster in witness.call("status")["clusters"]))
        code, _, error = witness.errand("--restore", copy)
        self.assertEqual(code, 1)
        self.assertIn("move it away", error)
        witness.end()
        other = Witness(os.path.join(self.base, "other"))
        code, out, error = other.errand("--restore", copy)
        self.assertEqual((code, error), (0, ""))
        other.start()
        self.addCleanup(other.end)
        clusters = other.call("status")["clusters"]
        self.assertEqual(len(clusters), 50)
        self.assertTrue(all(cluster["restored"] for cluster in clusters))

    def test_a_damaged_backup_is_refused(self):
        witness = self.witness(clusters=50)
        copy = os.path.join(self.base, "copy.db")
        self.assertEqual(witness.errand("--backup", copy)[0], 0)
        with open(copy, "r+b") as file:
            data = file.read()
            at = data.index(b"site00007")
            file.seek(at)
            file.write(b"site00008")
        other = Witness(os.path.join(self.base, "other"))
        code, _, error = other.errand("--restore", copy)
        self.assertEqual(code, 1)
        self.assertIn("is damaged", error)
        self.assertEqual(os.listdir(other.state), [])
        code, _, error = other.errand("--restore", copy + ".missing")
        self.assertEqual(code, 1)
        self.assertIn("cannot be read", error)

    def test_a_damaged_store_does_not_start(self):
        witness = self.witness(clusters=5)
        witness.end()
        path = os.path.join(witness.state, "witness.db")
        with open(path, "r+b") as file:
            data = file.read()
            file.seek(data.index(b"site00003"))
            file.write(b"sitf")
        with self.assertRaises(AssertionError):
            witness.start()
        self.assertIn("is damaged; nothing is granted from it", witness.said())


if __name__ == "__main__":
    unittest.main()
