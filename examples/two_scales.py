"""Small scratches and large dents: two detectors joined, or one with two patch sizes
==================================================================================

    python examples/two_scales.py

The old advice was to train two models. Joined, an image is as good as the worse of the
two finds it; their scores are made comparable by those of held-out good images. The
same in one training: `patch_size=(16, 48)`.
"""

import time

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.model_selection import train_test_split

from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.metrics import image_auroc_scorer


class MinimumDetector(OutlierMixin, BaseEstimator):
    """Several detectors as one: the minimum of their standardised scores."""

    def __init__(self, detectors, target_fpr=0.1):
        self.detectors = detectors
        self.target_fpr = target_fpr

    def fit(self, X, y=None):
        good = X if y is None else X[np.asarray(y) == 1]
        # The detectors' own held-out images set scales; these set the threshold.
        training, held_out = train_test_split(good, test_size=0.2, random_state=0)
        self.detectors_ = [clone(d).fit(training) for d in self.detectors]
        scores = np.sort(self.score_samples(held_out))
        k = max(1, int(self.target_fpr * (len(scores) + 1)))
        self.offset_ = scores[k - 1]
        return self

    def score_samples(self, X):
        standardised = [
            (d.score_samples(X) - d.calibration_scores_.mean())
            / d.calibration_scores_.std()
            for d in self.detectors_
        ]
        return np.min(standardised, axis=0)

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) >= 0, 1, -1)


def main(epochs=20, tile_size=96, sizes=(16, 48)):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=60, n_test=40)
    options = {"epochs": epochs, "target_fpr": 0.1, "random_state": 0}
    candidates = {
        "two detectors": MinimumDetector(
            [PatchAutoencoderDetector(size, **options) for size in sizes]
        ),
        "one detector": PatchAutoencoderDetector(sizes, **options),
    }
    results = {}
    for name, candidate in candidates.items():
        start = time.perf_counter()
        candidate.fit(surfaces.train)
        seconds = time.perf_counter() - start
        auroc = image_auroc_scorer(candidate, surfaces.test, surfaces.y_test)
        print(f"{name}: image AUROC {auroc:.3f}, trained in {seconds:.0f} s")
        results[name] = auroc
    return candidates, results


if __name__ == "__main__":
    main()
