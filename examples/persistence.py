"""Store a fitted detector and load it again: skad.save, and joblib
================================================================

    python examples/persistence.py

Files of `skad.save` are data: loading one runs no code, whoever made it. A joblib file
is a pickle, which may run anything: load only your own. It holds whole pipelines.
"""

import tempfile
from pathlib import Path

import joblib
import numpy as np

import skad
from skad.datasets import load_surfaces


def main(epochs=20, tile_size=64):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=40, n_test=10)
    detector = skad.PatchAutoencoderDetector(
        tile_size // 4, epochs=epochs, target_fpr=0.1, random_state=0
    ).fit(surfaces.train)
    expected = detector.score_samples(surfaces.test)
    copies = {}
    with tempfile.TemporaryDirectory() as folder:
        as_data, as_pickle = Path(folder) / "a.safetensors", Path(folder) / "a.joblib"
        skad.save(detector, as_data)
        joblib.dump(detector, as_pickle)
        copies["skad.load"] = skad.load(as_data)
        copies["joblib.load"] = joblib.load(as_pickle)
        sizes = [path.stat().st_size for path in (as_data, as_pickle)]
    for (name, copy), size in zip(copies.items(), sizes, strict=True):
        same = np.array_equal(copy.score_samples(surfaces.test), expected)
        print(f"{name}: {size / 1e6:.1f} MB, scores are the same: {same}")
    return detector, copies, surfaces.test


if __name__ == "__main__":
    main()
