"""What must survive: verdicts on disk, the webhook's spool, the monitors' state."""

import asyncio
import json
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import pytest
from serving import SIDE, abuse, defective, noise, png, save_model, serving, until

from skad.cli.main import main
from skad.serve import webhook
from skad.serve.journal import FILE, Journal


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "part.onnx")


@pytest.fixture
def receiver(monkeypatch):
    """A server that takes webhooks: `got` bodies, `answers` its next statuses."""
    monkeypatch.setattr(webhook, "_FIRST_PAUSE", 0.05)
    got, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = answers.pop(0) if answers else 200
            if status == 200:
                got.append(json.loads(body))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.got, server.answers = got, answers
        server.url = f"http://127.0.0.1:{server.server_port}/hook"
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def inspect(client, image):
    return client.post("/v1/inspect", content=png(image)).json()


def stored(folder):
    with sqlite3.connect(folder / FILE) as file:
        rows = file.execute("SELECT verdict FROM verdicts ORDER BY number").fetchall()
    file.close()
    return [json.loads(row[0]) for row in rows]


def test_the_webhook_gets_what_it_wants_in_order_whatever_it_answered(
    model, tmp_path, receiver
):
    receiver.answers[:] = [500, 302, 200, 404]
    settings = {"state": tmp_path, "webhook": receiver.url}
    with serving(model, **settings) as (client, _):
        answers = [inspect(client, image) for image in (noise(0), defective())]
        answers += [inspect(client, defective(seed)) for seed in (1, 2, 3)]
        until(lambda: len(receiver.got) == 4)
        until(lambda: "skad_webhooks_waiting 0.0" in client.get("/metrics").text)
    assert receiver.got == answers[1:]  # not the good one
    assert stored(tmp_path) == answers


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(model, tmp_path):
    nobody = "http://127.0.0.1:9/"
    with serving(model, state=tmp_path, webhook=nobody, spool=3) as (client, _):
        for seed in range(5):
            inspect(client, defective(seed))
        metrics = client.get("/metrics").text
    assert "skad_webhooks_dropped_total 2.0" in metrics
    assert "skad_webhooks_waiting 3.0" in metrics
    assert len(stored(tmp_path)) == 5


def test_a_verdict_that_cannot_be_written_down_is_not_answered(model, tmp_path):
    answered, image = [], png(defective())
    with serving(model, state=tmp_path) as (client, server):
        full = "PRAGMA max_page_count = 8"  # of 4096 bytes
        server.service.journal._file.execute(full)
        for _ in range(200):
            answer = client.post("/v1/inspect", content=image)
            if answer.status_code != 200:
                break
            answered.append(answer.json())
        assert answer.status_code == 503
        assert "cannot be written down" in answer.json()["error"]
    assert len(answered) > 5
    assert stored(tmp_path) == answered


def test_the_log_keeps_the_newest_and_what_waits(tmp_path):
    async def write():
        journal = Journal(tmp_path, 10, 100, lambda n: None)
        await asyncio.gather(*(journal.append(str(i), i < 3) for i in range(1000)))
        await journal.delivered((await journal.oldest_waiting())[0])
        oldest = await journal.oldest_waiting()
        journal.close()
        return oldest, journal.n_waiting

    with ThreadPoolExecutor(1) as pool:  # here, the tests of pages may have a loop
        found = pool.submit(asyncio.run, write()).result()
    assert found == ((2, "1"), 2)
    assert stored(tmp_path) == [0, 1, 2, *range(990, 1000)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"webhook": "ftp://a"}, "webhook must be an http"),
        ({"webhook": "http://a"}, "add --state"),
        ({"queue": 0}, "queue must be at least 1; got 0"),
        ({"warn_fpr": 2}, "warn_fpr must be above 0 and below 1; got 2"),
        ({"token": "short"}, "at least 8 characters"),
        ({"watch": Path("absent")}, "watch must be a folder; got absent"),
    ],
)
def test_wrong_settings_are_refused(model, settings, words):
    with pytest.raises(ValueError, match=words), serving(model, **settings):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.onnx", "--name", "a", "b"], "name must be given once for each model"),
        (["a.onnx", "b/a.safetensors"], "name must differ between models; got a, a"),
        (["my part.onnx"], "got 'my part'. Pass other names"),
        (["absent.onnx"], "absent.onnx: No such file"),
        (["absent.onnx", "--port", "70000"], "from 0 to 65535; got 70000"),
        (["absent.onnx", "--host", "1.2.3.4"], "name another --host or --port"),
        (["part.onnx", "--state", "."], "verdicts.sqlite cannot be used: file is not"),
    ],
)
def test_a_wrong_start_is_one_line(
    model, tmp_path, capsys, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part.onnx").write_bytes(model.read_bytes())
    (tmp_path / FILE).write_text(50 * "no data base")
    assert main(["serve", "--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("skad: error: ")
    assert words in error
    assert len(error.splitlines()) == 1


def test_drift_is_told_kept_and_begun_anew(model, tmp_path):
    with serving(model, state=tmp_path) as (client, _):
        for seed in range(40):
            inspect(client, np.full((SIDE, SIDE), 130 + seed % 3, np.uint8))

        def found():
            return client.get("/v1/models").json()[0]["drift"]

        until(lambda: found()["n_images"] == 40)
        drift = found()
        assert (drift["alarm"], drift["direction"]) == (True, "lower")
        assert 'skad_drift_alarm{model="part"} 1.0' in client.get("/metrics").text
    with serving(model, state=tmp_path) as (client, _):
        assert client.get("/v1/models").json()[0]["drift"] == drift
        anew = client.delete("/v1/models/part/drift").json()["drift"]
        assert (anew["alarm"], anew["n_images"]) == (False, 0)


# --- Killed -----------------------------------------------------------------------


def test_every_answered_verdict_survives_a_kill_and_is_delivered_in_order(
    model, tmp_path, receiver
):
    options = ("--state", tmp_path, "--webhook-on", "all", "--webhook")
    process, address = abuse.start([model], *options, "http://127.0.0.1:9/")
    answers = []

    def post_for_ever(seed):
        with httpx.Client(base_url=f"http://{address}", timeout=20) as client:
            while True:
                try:
                    answers.append(inspect(client, noise(seed)))
                except httpx.HTTPError:
                    return

    with ThreadPoolExecutor(4) as pool:
        for seed in range(4):
            pool.submit(post_for_ever, seed)
        until(lambda: len(answers) > 50)
        process.kill()
    process.wait(20)
    written = [one["id"] for one in stored(tmp_path)]
    assert {one["id"] for one in answers} <= set(written)
    process, address = abuse.start([model], *options, receiver.url)
    until(lambda: len(receiver.got) == len(written))
    assert [one["id"] for one in receiver.got] == written
    with httpx.Client(base_url=f"http://{address}") as client:
        assert inspect(client, noise(0))["action"] == "accept"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
