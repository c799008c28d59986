"""A forked process has one thread: those of the parent's OpenMP are not in it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, pickle, signal, sys
import numpy as np, torch, skad

torch.set_num_threads(2)
images = np.random.default_rng(0).integers(0, 255, (4, 64, 64), dtype=np.uint8)
detector = skad.PatchAutoencoderDetector(8, epochs=1, target_fpr=0.5, random_state=0)
skad.save(detector.fit(images), sys.argv[1])
scores = detector.score_samples(images)

def work():
    signal.alarm(100)  # ends what hangs
    torch.set_num_threads(2)  # as a program may that does not know
    loaded = skad.load(sys.argv[1])
    np.testing.assert_allclose(loaded.score_samples(images), scores, rtol=1e-5)
    pickle.loads(pickle.dumps(detector)).anomaly_map(images)
    loaded.fit(images)
    print("done", flush=True)

fork = multiprocessing.get_context("fork").Process(target=work)
fork.start()
fork.join()
assert torch.get_num_threads() == 2
sys.exit(fork.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_process_loads_scores_and_fits(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "model")],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (found.returncode, found.stdout) == (0, "done\n"), found.stderr
