"""A ROC curve in which every image is scored by a detector that never saw it
==========================================================================

    python examples/roc_curve.py [PICTURE]

`cross_val_predict` gives no labels to `fit` here: with method="decision_function" it
replaces labels by 0 and 1, and wants an attribute `classes_` that outlier detectors
do not have. So the anomalous images are taken out of the training folds beforehand.
"""

import sys

import numpy as np
from sklearn.metrics import RocCurveDisplay
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.metrics import detection_rate_at_fpr


def folds_that_train_on_good_images(X, y, n_splits=3):
    folds = StratifiedKFold(n_splits, shuffle=True, random_state=0).split(X, y)
    return [(train[y[train] == 1], test) for train, test in folds]


def main(epochs=20, tile_size=64, picture=None):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=45, n_test=30)
    X = np.concatenate([surfaces.train, surfaces.test])
    y = np.concatenate([np.ones(len(surfaces.train), int), surfaces.y_test])
    scores = cross_val_predict(
        PatchAutoencoderDetector(
            tile_size // 4, epochs=epochs, target_fpr=0.1, random_state=0
        ),
        X,
        cv=folds_that_train_on_good_images(X, y),
        method="decision_function",
    )
    # Higher = more normal, and +1 = good: a ROC curve of finding good images.
    curve = RocCurveDisplay.from_predictions(y, scores, name="cross-validated")
    # Or of finding anomalous ones, as one usually draws it: both signs turned.
    found = RocCurveDisplay.from_predictions(-y, -scores, ax=curve.ax_, name="defects")
    print(f"area under the curve: {curve.roc_auc:.3f}, {found.roc_auc:.3f}")
    print(f"found at 5 % false alarms: {detection_rate_at_fpr(y, scores):.2f}")
    if picture is not None:
        curve.figure_.savefig(picture)
    return y, scores, curve, found


if __name__ == "__main__":
    main(picture=sys.argv[1] if len(sys.argv) > 1 else None)
