"""Threads of torch: as many as it is set to, within what the process may use."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed

from skad import PatchAutoencoderDetector, _threads
from skad._threads import within_quota


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


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
    monkeypatch.setattr(_threads, "_usable", lambda: 2)
    images = np.random.default_rng(0).integers(0, 255, (6, 16, 16), dtype=np.uint8)
    seen = set()
    count = torch.nn.Conv2d.forward

    def spy(self, x):
        seen.add(torch.get_num_threads())
        return count(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", spy)
    detector = PatchAutoencoderDetector(4, epochs=1, target_fpr=0.5, random_state=0)
    detector.fit(images)
    assert seen == {2}
    seen.clear()
    detector.anomaly_map(images)
    assert seen == {2}
    assert torch.get_num_threads() == 3


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
