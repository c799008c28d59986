"""The service over time: full queues, stops, reloads, watched folders, slow clients."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import numpy as np
import pytest
from serving import defective, noise, png, save_model, serving, until

from skad.serve.worker import Worker


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Model files: one, another of gray images, and one of colour."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"one": {}, "other": {"scale": 5}, "colour": {"channels": (3,)}}
    return {
        name: save_model(folder / f"{name}.onnx", **kind)
        for name, kind in kinds.items()
    }


@contextmanager
def held(server, name="one"):
    """Let a model wait until the event that this gives is set."""
    backend, go, batches = server.service.models[name].backend, Event(), []
    inspect = backend.inspect

    def wait(images):
        batches.append(len(images))
        assert go.wait(20)
        return inspect(images)

    backend.inspect = wait
    try:
        yield go, batches
    finally:
        go.set()


def replace(path, by):
    part = path.with_suffix(".part")
    part.write_bytes(by if isinstance(by, bytes) else by.read_bytes())
    part.rename(path)


# --- The queue --------------------------------------------------------------------


def test_what_waits_is_inspected_together_and_a_full_queue_refuses(files):
    images = [noise(seed) for seed in range(5)]
    alone = [-np.abs(image - 100.0).max() / 10 for image in images]
    with (
        serving(files["one"], queue=6) as (client, server),
        held(server) as (go, batches),
        ThreadPoolExecutor(6) as pool,
    ):

        def post(image):
            return client.post("/v1/inspect", content=png(image))

        first = pool.submit(post, images[0])
        until(lambda: batches)
        others = [pool.submit(post, image) for image in [*images[1:], defective()]]
        until(lambda: len(server.service._worker._jobs) == 5)
        assert "skad_queue_length 6.0" in client.get("/metrics").text
        refused = post(images[0])
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        go.set()
        answers = [answer.result().json() for answer in [first, *others]]
    assert batches == [1, 5]
    assert [answer["score"] for answer in answers[:5]] == alone
    assert answers[5]["action"] == "reject"


def test_a_verdict_that_takes_too_long_is_given_up(files):
    with serving(files["one"], timeout=0.2) as (client, server):
        with held(server):
            late = client.post("/v1/inspect", content=png(noise(0)))
            assert (late.status_code, late.json()["error"][:19]) == (
                504,
                "there is no verdict",
            )
        server.service.settings.__dict__["timeout"] = 20
        assert client.post("/v1/inspect", content=png(noise(0))).status_code == 200
        assert server.service.n_under_way == 0


class Picky:
    """A backend that refuses a batch with a 9 in it."""

    def inspect(self, images):
        if any(image.max() == 9 for image in images):
            raise ValueError("no")
        return [int(image.max()) for image in images]


def test_an_image_that_fails_spoils_no_other_of_its_batch():
    worker, backend = Worker(), Picky()
    with worker._changed:  # so that all are there before it looks
        results = [worker.submit(backend, np.full((2, 2), i)) for i in (1, 9, 3)]
        results[2].cancel()
        worker.submit(backend, np.ones((2, 2)))
        assert len(worker._jobs) == 3  # what was given up takes no memory
    assert results[0].result(20) == 1
    assert isinstance(results[1].exception(20), ValueError)
    worker.close()
    assert results[2].cancelled()


# --- Stops ------------------------------------------------------------------------


def test_a_stop_answers_what_is_under_way_and_refuses_more(files):
    with (
        serving(files["one"]) as (client, server),
        held(server) as (go, batches),
        ThreadPoolExecutor(2) as pool,
        client.stream("GET", "/v1/events") as events,
    ):
        under_way = pool.submit(client.post, "/v1/inspect", content=png(noise(0)))
        until(lambda: batches)
        server.handle_exit(15, None)
        more = client.post("/v1/inspect", content=png(noise(0)))
        assert (more.status_code, more.json()["error"]) == (503, "the service stops")
        assert client.get("/readyz").status_code == 503
        go.set()
        verdict = under_way.result().json()
        assert verdict["verdict"] == "good"
        told = [line for line in events.iter_lines() if line.startswith("data: ")]
        assert [json.loads(line[6:])["id"] for line in told] == [verdict["id"]]


# --- Clients ----------------------------------------------------------------------


def connect(server):
    host, _, port = server.address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), 20)


def test_small_packets_are_sent_at_once(files):
    with serving(files["one"]) as (client, server):
        client.get("/healthz")
        (connection,) = server.server_state.connections
        link = connection.transport.get_extra_info("socket")
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_slow_body_is_given_up_and_dropped_connections_leave_nothing(files):
    head = (
        b"POST /v1/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
    )
    with serving(files["one"], body_timeout=0.5) as (client, server):
        for _ in range(5):
            with connect(server) as dropped:
                dropped.sendall(head + b"some")
        with connect(server) as slow:
            slow.sendall(head + b"some")
            answer = slow.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"a body must arrive within 0.5 seconds; got 4 bytes" in answer
        until(lambda: server._guard.n_active == 0)
        assert client.post("/v1/inspect", content=png(noise(0))).status_code == 200


def test_a_slow_listener_loses_the_oldest_and_is_told_how_many(files):
    with serving(files["one"]) as (client, server):
        events = server.service.events
        with client.stream("GET", "/v1/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": skad serve"
            publish = lambda: [events.publish("verdict", str(i)) for i in range(300)]  # noqa: E731
            server._loop.call_soon_threadsafe(publish)
            told = [next(lines) for _ in range(8)]
        assert told[1:7] == ["event: lost", 'data: {"count": 44}', "", *told[4:6], ""]
        assert told[4:6] == ["event: verdict", "data: 44"]
        until(lambda: len(events) == 0)


# --- Models -----------------------------------------------------------------------


def test_a_replaced_model_is_loaded_and_a_broken_one_is_not(files, tmp_path):
    path = tmp_path / "part.onnx"
    replace(path, files["one"])
    with serving(path) as (client, _):

        def models():
            return client.get("/v1/models").json()[0]

        def score():
            answer = client.post("/v1/inspect", content=png(noise(9))).json()
            return answer["checksum"], answer["score"]

        before = score()
        assert before[1] == -1
        for wrong, words in (
            (b"broken", "not an ONNX file"),
            (files["colour"], "channels must stay"),
        ):
            replace(path, wrong)
            until(lambda words=words: words in (models()["reload_error"] or ""))
            assert client.get("/readyz").json()["models_not_reloaded"] == ["part"]
            assert score() == before
        replace(path, files["other"])
        until(lambda: models()["reload_error"] is None)
        assert score()[0] == models()["checksum"] != before[0]
        assert score()[1] == -2
        metrics = client.get("/metrics").text
        assert 'skad_model_reloads_total{model="part",result="failed"} 2.0' in metrics
        assert 'skad_model_reloads_total{model="part",result="loaded"} 1.0' in metrics


# --- The watched folder -----------------------------------------------------------


def test_new_images_of_a_folder_are_inspected_once_they_are_whole(files, tmp_path):
    folder = tmp_path / "camera"
    folder.mkdir()
    (folder / "old.png").write_bytes(png(noise(0)))
    with serving(files["one"], files["other"], watch=folder, watch_model="other") as (
        client,
        _,
    ):

        def seen():
            return {v["source"]: v for v in client.get("/v1/verdicts").json()}

        def watched():
            new = len(list(folder.iterdir()))
            (folder / f"{new}.png").write_bytes(png(noise(1)))
            return seen()

        until(watched)
        slow = png(defective())
        with (folder / "slow.png").open("wb", buffering=0) as file:
            for start in range(0, len(slow), len(slow) // 4):
                file.write(slow[start : start + len(slow) // 4])
                Event().wait(0.1)
        (tmp_path / "moved.png").write_bytes(png(noise(2)))
        os.rename(tmp_path / "moved.png", folder / "moved.png")
        (folder / "broken.png").write_bytes(b"no image")
        (folder / "notes.txt").write_text("no image")
        until(lambda: {"slow.png", "moved.png"} <= seen().keys())
        unreadable = "skad_watched_files_unreadable_total 1.0"
        until(lambda: unreadable in client.get("/metrics").text)
        assert not {"old.png", "broken.png", "notes.txt"} & seen().keys()
        assert seen()["slow.png"]["action"] == "reject"
        assert seen()["slow.png"]["model"] == "other"
