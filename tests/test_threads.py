"""Threads of torch: as many as it is set to, within what the process may use."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed

from skad import PatchAutoencoderDetector, load, save
from skad.common import threads as _threads
from skad.common.threads import side_by_side, threads_for, within_quota
from skad.network import synthetic_anomalies as _defects


@pytest.fixture
def three_threads(threads_as_before):
    torch.set_num_threads(3)


@pytest.mark.parametrize(("usable", "threads"), [(1, 1), (2, 2), (3, 3), (16, 3)])
def test_threads_are_no_more_than_the_usable_processors(
    monkeypatch, three_threads, usable, threads
):
    monkeypatch.setattr(_threads, "_usable", lambda: usable)
    with within_quota():
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_threads_are_given_back_after_an_error(monkeypatch, three_threads):
    monkeypatch.setattr(_threads, "_usable", lambda: 1)
    with pytest.raises(ZeroDivisionError), within_quota():
        _ = 1 / 0
    assert torch.get_num_threads() == 3


def test_training_and_scoring_keep_within_the_quota(monkeypatch, three_threads):
    """What consists of many small steps has one thread: several wait at each end."""
    small = (
        (torch.linalg, "cholesky"),
        (torch, "cholesky_solve"),
        (_defects, "place"),
        (torch.optim.Muon, "step"),
    )
    monkeypatch.setattr(_threads, "_usable", lambda: 2)
    monkeypatch.setattr(_threads, "_PIXELS_FOR_THREADS", 0)
    images = np.random.default_rng(0).integers(0, 255, (6, 16, 16), dtype=np.uint8)
    seen = {}

    def spy(owner, name):
        call = getattr(owner, name)

        def counted(*args, **kwargs):
            seen.setdefault(name, set()).add(torch.get_num_threads())
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    spy(torch.nn.Conv2d, "forward")
    for owner, name in small:
        spy(owner, name)
    detector = PatchAutoencoderDetector(4, epochs=1, target_fpr=0.5, random_state=0)
    detector.fit(images)
    # Training shares a batch; what is learned from the maps has an image a thread.
    assert seen.pop("forward") == {1, 2}
    assert seen == {name: {1} for _, name in small}
    seen.clear()
    detector.anomaly_map(images[:1])
    assert seen["forward"] == {2}
    assert torch.get_num_threads() == 3


def test_small_batches_have_one_thread(three_threads):
    with threads_for(16 * 64 * 64):
        assert torch.get_num_threads() == 1
    with threads_for(16 * 128 * 128):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ""),
    ],
)
def test_threads_wait_without_keeping_a_processor_busy(given, spins):
    """Unless the environment says how they wait."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    others = {k: v for k, v in os.environ.items() if k not in names}
    code = "import os, skad; print(os.environ.get('GOMP_SPINCOUNT', ''))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**others, **given},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == spins


def test_the_processors_are_those_that_joblib_counts():
    """As it does for a container's quota; here its own variable stands for that."""
    code = "from skad import _threads; print(_threads._usable())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LOKY_MAX_CPU_COUNT": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(found.stdout) == 1


def test_jobs_of_joblib_share_the_processors():
    """A worker's torch gets its share, as joblib's workers limit their threads."""
    with Parallel(n_jobs=2, backend="loky", inner_max_num_threads=1) as parallel:
        assert parallel(delayed(torch.get_num_threads)() for _ in range(4)) == [1] * 4


# Several images at a time, each with its share of the threads.


@pytest.mark.parametrize(
    ("most", "usable", "at_a_time", "share"),
    [(1, 16, 1, 3), (2, 16, 2, 1), (8, 16, 3, 1), (8, 2, 2, 1), (8, 1, 1, 1)],
)
def test_work_and_threads_are_shared_out(
    monkeypatch, three_threads, most, usable, at_a_time, share
):
    monkeypatch.setattr(_threads, "_usable", lambda: usable)
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


def test_threads_that_come_later_have_all_again(monkeypatch, three_threads):
    monkeypatch.setattr(_threads, "_usable", lambda: 16)
    list(side_by_side(lambda item: item, range(4), 3))
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [3]


def test_a_thread_that_starts_late_changes_nothing_afterwards(
    monkeypatch, three_threads
):
    """Torch's number of threads is in part one for the process."""
    monkeypatch.setattr(_threads, "_usable", lambda: 16)
    order, set_num_threads = [], torch.set_num_threads

    def slow_in_the_pool(n):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.1)
        set_num_threads(n)
        order.append(n)

    monkeypatch.setattr(torch, "set_num_threads", slow_in_the_pool)
    results = side_by_side(lambda item: item, range(9), 3)
    next(results)
    results.close()
    assert order[-1] == 3
    assert len(order) > 1


def test_an_error_comes_where_its_result_would_have(monkeypatch, three_threads):
    monkeypatch.setattr(_threads, "_usable", lambda: 16)
    results = side_by_side(lambda item: 1 / (item - 3), range(9), 2)
    assert [next(results) for _ in range(3)] == [-1 / 3, -1 / 2, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("skad-compute")]


def test_what_is_given_up_ends(monkeypatch, three_threads):
    monkeypatch.setattr(_threads, "_usable", lambda: 16)
    results = side_by_side(lambda item: item, iter(range(1000)), 2)
    assert next(results) == 0
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("skad-compute")]
    assert torch.get_num_threads() == 3


def test_settings_of_numpy_hold_in_every_thread(monkeypatch, three_threads):
    monkeypatch.setattr(_threads, "_usable", lambda: 16)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        list(side_by_side(lambda item: np.ones(1) / item, [np.zeros(1)] * 2, 2))


def some_images(n, side):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, side, side), dtype=np.uint8)


def test_a_loaded_model_gives_equal_verdicts_with_any_number_of_threads(
    tmp_path, three_threads
):
    """Where the decision is not within rounding of 0: 1e-5 of the threshold."""
    images = some_images(9, 128)
    settings = {"epochs": 1, "batch_size": 32, "target_fpr": 0.5, "random_state": 0}
    detector = PatchAutoencoderDetector(**settings).fit(images[:4])
    detector.offset_ = float(np.median(detector.score_samples(images)))
    save(detector, tmp_path / "model")
    found = []
    for n_threads in (3, 2, 1):
        torch.set_num_threads(n_threads)
        found.append(load(tmp_path / "model").decision_function(images))
    scale = abs(detector.offset_)
    np.testing.assert_allclose(found, found[:1] * 3, rtol=0, atol=1e-5 * scale)
    far = np.abs(found[0]) > 1e-5 * scale
    assert 4 < far.sum() < 9
    assert (np.sign(found)[:, far] == np.sign(found[0])[far]).all()


def test_equal_trainings_with_as_many_threads_are_equal_to_the_bit(threads_as_before):
    torch.set_num_threads(2)
    settings = {"epochs": 1, "batch_size": 32, "target_fpr": 0.5, "random_state": 0}
    images = some_images(6, 128)
    first, second = (PatchAutoencoderDetector(**settings).fit(images) for _ in "ab")
    np.testing.assert_array_equal(
        first.anomaly_map(images), second.anomaly_map(images), strict=True
    )
    assert first.offset_ == second.offset_
