"""Torch's threads: as many as it is set to, within what the process may use."""

import os
import subprocess
import sys
import threading
import time

import joblib
import numpy as np
import pytest
import torch

from skad import PatchAutoencoderDetector, load, save
from skad.common.torch_settings import limit_threads, side_by_side


@pytest.fixture
def three_threads(threads_as_before, monkeypatch):
    torch.set_num_threads(3)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)


@pytest.mark.parametrize(("processors", "threads"), [(2, 2), (16, 3)])
def test_threads_are_no_more_than_the_processors(
    monkeypatch, three_threads, processors, threads
):
    monkeypatch.setattr(joblib, "cpu_count", lambda: processors)
    with pytest.raises(ZeroDivisionError), limit_threads():
        assert torch.get_num_threads() == threads
        _ = 1 / 0
    assert torch.get_num_threads() == 3
    with limit_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_threads_wait_without_keeping_a_processor_busy():
    """Unless the environment says how they wait."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    others = {k: v for k, v in os.environ.items() if k not in names}
    code = "import os, skad; print(os.environ.get('GOMP_SPINCOUNT', ''))"
    for given, spins in [({}, "1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "")]:
        command, environment = [sys.executable, "-c", code], {**others, **given}
        found = subprocess.check_output(command, env=environment, text=True)
        assert found.strip() == spins


@pytest.mark.parametrize(
    ("most", "processors", "at_a_time", "share"),
    [(1, 16, 1, 3), (2, 16, 2, 1), (8, 1, 1, 1)],
)
def test_work_and_threads_are_shared_out(
    monkeypatch, three_threads, most, processors, at_a_time, share
):
    monkeypatch.setattr(joblib, "cpu_count", lambda: processors)
    busy, most_busy, threads = set(), [0], set()

    def compute(item):
        busy.add(item)
        time.sleep(0.02)
        most_busy[0] = max(most_busy[0], len(busy))
        threads.add(torch.get_num_threads())
        busy.remove(item)
        return 2 * item

    assert list(side_by_side(compute, range(12), most)) == list(range(0, 24, 2))
    assert most_busy == [at_a_time]
    assert threads == {share}
    assert torch.get_num_threads() == 3


def test_a_thread_that_starts_late_changes_nothing_afterwards(
    monkeypatch, three_threads
):
    """Torch's number of threads is in part one for the process."""
    order, set_num_threads = [], torch.set_num_threads

    def slow_in_the_pool(n):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.1)
        set_num_threads(n)
        order.append(n)

    monkeypatch.setattr(torch, "set_num_threads", slow_in_the_pool)
    results = side_by_side(lambda item: 1 / (item - 1), range(9), 3)
    assert next(results) == -1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert order[-1] == 3
    assert len(order) > 1
    assert not [t for t in threading.enumerate() if t.name.startswith("skad-compute")]


def test_verdicts_do_not_depend_on_the_number_of_threads(tmp_path, threads_as_before):
    """Trainings with as many threads are equal to the bit, scores but for rounding."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (9, 64, 64), dtype=np.uint8)
    settings = {"epochs": 1, "batch_size": 16, "target_fpr": 0.5, "random_state": 0}
    torch.set_num_threads(2)
    detector, other = (
        PatchAutoencoderDetector(**settings).fit(images[:4]) for _ in "ab"
    )
    scores = detector.score_samples(images)
    np.testing.assert_array_equal(other.score_samples(images), scores)
    detector.offset_ = float(np.median(scores))
    save(detector, tmp_path / "model")
    found = []
    for n_threads in (2, 1):
        torch.set_num_threads(n_threads)
        found.append(load(tmp_path / "model").decision_function(images))
    scale = abs(detector.offset_)
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5 * scale)
    far = np.abs(found[0]) > 1e-5 * scale
    assert 4 < far.sum() < 9
    assert (np.sign(found)[:, far] == np.sign(found[0])[far]).all()
