"""A forked process has one thread: those of the parent's OpenMP are not in it."""

import os
import subprocess
import sys

import pytest
import torch

from skad.detectors.parameters import resolve_device

PROGRAM = """
import multiprocessing, pickle, signal, sys
import numpy as np, torch, skad

parent, child, path = sys.argv[1:]
torch.set_num_threads(2)
images = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
detector = skad.PatchAutoencoderDetector(8, epochs=1, target_fpr=0.5, random_state=0)
if parent == "load":
    detector = skad.load(path)
else:
    detector.fit(images)
    skad.save(detector, path)
scores = detector.score_samples(images) if parent == "score" else None

def work():
    signal.alarm(100)  # ends what hangs
    loaded = skad.load(path)
    if scores is not None:
        np.testing.assert_allclose(loaded.score_samples(images), scores, rtol=1e-5)
    if child == "fit":
        loaded.fit(images)
    torch.set_num_threads(2)  # as a program may that does not know
    detector.anomaly_map(images)
    skad.load(path)
    pickle.loads(pickle.dumps(detector))
    print("done", flush=True)

fork = multiprocessing.get_context("fork").Process(target=work)
fork.start()
fork.join()
assert torch.get_num_threads() == 2
sys.exit(fork.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_forked_processes_score_and_fit(tmp_path):
    """Also where the parent has computed with two threads, whatever it was."""
    for parent, child in (("score", "fit"), ("load", "score")):
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM, parent, child, str(tmp_path / "model")],
            env={**os.environ, "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (found.returncode, found.stdout) == (0, "done\n"), found.stderr


def test_a_gpu_that_a_fork_has_lost_is_an_error_with_the_remedy(monkeypatch):
    """Here there may be no GPU: what torch says of it is all that is imitated."""
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("auto", "cuda", "cuda:1"):
        with pytest.raises(RuntimeError, match=r"forked.*'spawn' or 'forkserver'"):
            resolve_device(device)
    assert resolve_device("cpu") == "cpu"
