"""Metadata routing on and off: groups of images that must not be torn apart
=========================================================================

    python examples/metadata_routing.py

Images of one part look alike, so a part belongs wholly to training or to testing. The
groups reach the splitter either way. With routing on, they reach the detector, too, if
it asks for them: then no part both trains it and sets its threshold.
"""

import numpy as np
import sklearn
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate

from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.metrics import image_auroc_scorer

SCORERS = {"auroc": image_auroc_scorer, "balanced_accuracy": "balanced_accuracy"}


class WatchedGroupKFold(GroupKFold):
    """Tell of groups that are on both sides of a split."""

    def split(self, X, y=None, groups=None):
        for train, test in super().split(X, y, groups):
            torn = set(groups[train]) & set(groups[test])
            self.torn_ = getattr(self, "torn_", set()) | torn
            yield train, test


def search(detector, X, y, parts, sizes):
    folds = WatchedGroupKFold(2)
    found = GridSearchCV(
        detector,
        {"patch_size": sizes},
        scoring=SCORERS,
        refit="balanced_accuracy",
        cv=folds,
        error_score="raise",
    ).fit(X, y, groups=parts)
    print(f"  parts on both sides: {folds.torn_ or 'none'}")
    print(f"  best: {found.best_params_}, balanced accuracy {found.best_score_:.3f}")
    return found


def main(epochs=20, tile_size=64, sizes=(8, 16)):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=40, n_test=20)
    X = np.concatenate([surfaces.train, surfaces.test])
    y = np.concatenate([np.ones(len(surfaces.train), int), surfaces.y_test])
    parts = np.arange(len(X)) // 2  # two images of each
    detector = PatchAutoencoderDetector(epochs=epochs, target_fpr=0.2, random_state=0)
    searches = {}
    before = sklearn.get_config()["enable_metadata_routing"]
    try:
        for routing in (False, True):
            sklearn.set_config(enable_metadata_routing=routing)
            print(f"metadata routing {'on' if routing else 'off'}:")
            if routing:
                detector.set_fit_request(groups=True)
            searches[routing] = search(detector, X, y, parts, list(sizes))
        try:
            cross_validate(detector, X, y, params={"sample_weight": np.ones(len(X))})
        except TypeError as error:
            print(f"  weights: {str(error).splitlines()[0]}")
    finally:
        sklearn.set_config(enable_metadata_routing=before)
    return searches


if __name__ == "__main__":
    main()
