"""Search over thresholds without training again for each: `memory` and FrozenEstimator.

    python examples/search_thresholds.py

Eight values of `target_fpr` in three folds, and the refit, would be 25 trainings. The
threshold is no part of the training, so with `memory` there are 4: one for each fold,
one for the refit. Trainings are counted by what is stored, one file each.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.metrics import balanced_accuracy_scorer


def count_trainings(folder):
    return sum(1 for _ in Path(folder).rglob("output.pkl"))


def main(epochs=20, tile_size=64):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=60, n_test=30)
    X = np.concatenate([surfaces.train, surfaces.test])
    y = np.concatenate([np.ones(len(surfaces.train), int), surfaces.y_test])
    # Folds for detectors are not stratified unless one says so.
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    with tempfile.TemporaryDirectory() as memory:
        detector = PatchAutoencoderDetector(
            tile_size // 4,
            epochs=epochs,
            validation_fraction=0.4,
            memory=memory,
            random_state=0,  # without it no training is like another
        )
        search = GridSearchCV(
            detector,
            {"target_fpr": [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]},
            scoring=balanced_accuracy_scorer,
            cv=folds,
        )
        search.fit(X, y)  # images labelled -1 judge; they do not train
        n_by_search = count_trainings(memory)

        # A frozen detector is judged in every fold as it is.
        frozen = FrozenEstimator(search.best_estimator_)
        scores = cross_val_score(
            frozen, X, y, cv=folds, scoring=balanced_accuracy_scorer
        )
        n_by_frozen = count_trainings(memory) - n_by_search
    n_fits = len(search.cv_results_["params"]) * search.n_splits_ + 1
    print(f"best: {search.best_params_}, balanced accuracy {search.best_score_:.2f}")
    print(f"fits by the search: {n_fits}, trainings: {n_by_search}")
    print(f"frozen: balanced accuracy {scores.mean():.2f}, trainings: {n_by_frozen}")
    return search, n_fits, n_by_search, n_by_frozen


if __name__ == "__main__":
    main()
