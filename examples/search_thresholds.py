"""Search over thresholds on a labelled Test folder, without training for each
===========================================================================

    python examples/search_thresholds.py [FOLDER]

FOLDER holds good images in `train/good` and `test/good`, anomalous ones in the other
folders in `test`. Without it, tiles of a photographed brick wall are written there.
Four values of `target_fpr` in two folds, and the refit, would be 9 trainings. The
threshold is no part of the training, so with `memory` there are 3: one for each fold,
one for the refit. A detector that is to be judged on the Test folder must not have seen
it: a fourth training has `train` alone. Trainings are counted by what is stored, one
file each.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from skad import ImageReader, PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.images import find_images


class AtThreshold(OutlierMixin, BaseEstimator):
    """A fitted detector with another threshold: there is nothing to train."""

    def __init__(self, detector, offset=0.0):
        self.detector = detector
        self.offset = offset

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        return np.where(self.detector.score_samples(X) >= self.offset, 1, -1)


def write_surfaces(root, tile_size):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=60, n_test=30)
    folders = {
        "train/good": surfaces.train,
        "test/good": surfaces.test[surfaces.y_test == 1],
        "test/defect": surfaces.test[surfaces.y_test == -1],
    }
    for name, tiles in folders.items():
        (root / name).mkdir(parents=True)
        for i, tile in enumerate(tiles):
            Image.fromarray(tile).save(root / name / f"{i:03}.png")


def labelled_files(root):
    """List the images of all folders in this one, and label them by the folder."""
    folders = sorted(folder for folder in Path(root).iterdir() if folder.is_dir())
    files = [file for folder in folders for file in find_images(folder)]
    return files, np.array([1 if f.parent.name == "good" else -1 for f in files])


def count_trainings(folder):
    return sum(1 for _ in Path(folder).rglob("output.pkl"))


def search_thresholds(files, y, detector):
    pipeline = Pipeline([("read", ImageReader(gray=True)), ("detect", detector)])
    search = GridSearchCV(
        pipeline,
        {"detect__target_fpr": [0.1, 0.2, 0.3, 0.4]},
        scoring="balanced_accuracy",
        # Folds for detectors are not stratified unless one says so.
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
        error_score="raise",
    )
    # Images labelled -1 judge; they do not train.
    search.fit(files, y)
    print(f"best: {search.best_params_}, balanced accuracy {search.best_score_:.2f}")
    return search


def search_frozen(pipeline, test, y_test):
    """Search over thresholds of a detector that is judged as it is."""
    offsets = np.quantile(pipeline.score_samples(test), np.linspace(0.1, 0.8, 8))
    search = GridSearchCV(
        AtThreshold(FrozenEstimator(pipeline)),
        {"offset": offsets},
        scoring="balanced_accuracy",
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(test, y_test)
    print(f"frozen: best {search.best_params_['offset']:.2f}, ", end="")
    print(f"balanced accuracy {search.best_score_:.2f}")
    return search


def calibrate(pipeline, test, y_test):
    """Try every threshold at once: no search is needed where all images may judge."""
    images = pipeline["read"].transform(test)
    found = pipeline["detect"].calibrate(images, y_test).labelled_threshold_
    print(f"calibrate: best {found.offset:.2f}, balanced accuracy {found.value:.2f}")
    low, high = found.detection_interval
    print(f"  defects found: {found.detection_rate:.0%} ({low:.0%} to {high:.0%})")
    low, high = found.false_alarm_interval
    print(f"  false alarms: {found.false_alarm_rate:.0%} ({low:.0%} to {high:.0%})")
    return found


def main(epochs=20, tile_size=64, root=None):
    with tempfile.TemporaryDirectory() as temporary:
        if root is None:
            root = Path(temporary) / "surfaces"
            write_surfaces(root, tile_size)
        memory = Path(temporary) / "trainings"
        detector = PatchAutoencoderDetector(
            tile_size // 4,
            epochs=epochs,
            validation_fraction=0.4,
            memory=memory,
            random_state=0,  # without it no training is like another
        )
        train, y_train = labelled_files(f"{root}/train")
        test, y_test = labelled_files(f"{root}/test")
        y = np.concatenate([y_train, y_test])
        search = search_thresholds([*train, *test], y, detector)
        n_fits = len(search.cv_results_["params"]) * search.n_splits_ + 1
        n_trainings = [count_trainings(memory)]
        print(f"fits by the search: {n_fits}, trainings: {n_trainings[0]}")
        pipeline = clone(search.best_estimator_).fit(train, y_train)
        frozen = search_frozen(pipeline, test, y_test)
        found = calibrate(pipeline, test, y_test)
        n_trainings.append(count_trainings(memory) - n_trainings[0])
        print(f"trainings for these two: {n_trainings[1]}")
    return search, frozen, found, n_fits, n_trainings


if __name__ == "__main__":
    main(root=sys.argv[1] if len(sys.argv) > 1 else None)
