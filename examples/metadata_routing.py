"""Metadata routing on and off: groups of images that must not be torn apart.

    python examples/metadata_routing.py

Images of one shift look alike, so a shift belongs wholly to training or to testing. The
groups reach the splitter either way; the detector itself asks for no metadata.
"""

import numpy as np
import sklearn
from sklearn.model_selection import GridSearchCV, GroupKFold

from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.metrics import balanced_accuracy_scorer, image_auroc_scorer


def main(epochs=20, tile_size=64):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=40, n_test=20)
    X = np.concatenate([surfaces.train, surfaces.test])
    y = np.concatenate([np.ones(len(surfaces.train), int), surfaces.y_test])
    shifts = np.arange(len(X)) % 4
    detector = PatchAutoencoderDetector(
        tile_size // 4, epochs=epochs, target_fpr=0.2, random_state=0
    )
    best_scores = {}
    for routing in (False, True):
        with sklearn.config_context(enable_metadata_routing=routing):
            search = GridSearchCV(
                detector,
                {"batch_size": [16]},
                scoring={
                    "auroc": image_auroc_scorer,
                    "balanced_accuracy": balanced_accuracy_scorer,
                },
                refit="auroc",
                cv=GroupKFold(2),
                error_score="raise",
            ).fit(X, y, groups=shifts)
        best_scores[routing] = search.best_score_
        state = "on" if routing else "off"
        print(f"metadata routing {state}: image AUROC {search.best_score_:.3f}")
    return search, best_scores


if __name__ == "__main__":
    main()
