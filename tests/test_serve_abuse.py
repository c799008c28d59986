"""The service under abuse: docs/benchmarks/serve_abuse.py, with less of each."""

from contextlib import ExitStack, closing
from http.client import HTTPConnection

import psutil
import pytest
from serving import abuse, save_model

ALLOWED = {0, 200, 400, 404, 405, 408, 413, 422}  # 0: what came was no HTTP


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A service of two models: their files, its process and its address."""
    folder = tmp_path_factory.mktemp("models")
    files = [save_model(folder / f"{name}.onnx") for name in ("tiny", "tiny2")]
    process, address = abuse.start(files, "--body-timeout", "1", "--state", folder)
    yield files, process, address
    process.kill()
    process.wait()


def ask(address):
    """Return the status and the verdict of a good image, but for id and time."""
    with closing(HTTPConnection(address, timeout=20)) as link:
        status, verdict = abuse.post(link, abuse.picture(0), "tiny")
    return status, {k: v for k, v in verdict.items() if k not in ("id", "time")}


def test_fuzzed_requests_change_nothing(served):
    _, process, address = served
    before = ask(address)
    abuse.fuzz(address, 200, seed=1)
    memory = psutil.Process(process.pid).memory_info().rss
    statuses = abuse.fuzz(address, 800)
    assert set(statuses) <= ALLOWED
    assert min(statuses[200], statuses[413], statuses[422]) > 20
    assert psutil.Process(process.pid).memory_info().rss < memory + 150e6
    assert ask(address) == before


def test_slow_and_dropped_clients_take_nobody_s_place(served):
    _, _, address = served
    head = b"POST /v1/inspect?model=tiny HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as stack:  # the queue has 64 places
        slow = [stack.enter_context(abuse.connect(address)) for _ in range(150)]
        for i, link in enumerate(slow):
            whole = head + b"Content-Length: 9\r\n\r\nx"
            link.sendall(whole if i % 2 == 0 else head[: 10 + i // 4])
        assert ask(address)[0] == 200
        for link in slow[:50]:
            link.close()
        answers = {link.recv(12) for link in slow[50::2]}
        assert answers == {b"HTTP/1.1 408"}
    with closing(HTTPConnection(address, timeout=20)) as link:
        link.request("GET", "/metrics")
        assert b"skad_queue_length 0.0" in link.getresponse().read()


def test_models_are_replaced_under_load(served, tmp_path):
    files, _, address = served
    sources = [save_model(tmp_path / f"{scale}", scale=scale) for scale in (5, 8)]

    def act():
        abuse.replace_models(files, sources, 3, 2.2)

    verdicts, others = abuse.under_load(address, ("tiny", "tiny2"), act)
    assert others == []
    for name in ("tiny", "tiny2"):
        own = [one for one in verdicts if one["model"] == name]
        assert len({one["checksum"] for one in own}) == 3  # and none for the nonsense
