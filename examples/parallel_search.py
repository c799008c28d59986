"""A search in two processes that do not fight for the processor's cores
=====================================================================

    python examples/parallel_search.py

joblib starts each worker with its share of the cores, by an environment variable that
torch reads when it is imported there. The scorer reports what torch makes of it. On a
GPU, n_jobs=1 is the better choice: the workers would share it.
"""

import os

import joblib
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.metrics import image_auroc_scorer


def auroc_and_threads(detector, X, y):
    return {
        "auroc": image_auroc_scorer(detector, X, y),
        "threads": torch.get_num_threads(),
        "process": os.getpid(),
    }


def main(epochs=20, tile_size=64, n_jobs=2):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=40, n_test=20)
    X = np.concatenate([surfaces.train, surfaces.test])
    y = np.concatenate([np.ones(len(surfaces.train), int), surfaces.y_test])
    search = GridSearchCV(
        PatchAutoencoderDetector(
            epochs=epochs, target_fpr=0.2, random_state=0, device="cpu"
        ),
        {"patch_size": [tile_size // 8, tile_size // 3]},
        scoring=auroc_and_threads,
        refit="auroc",
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(X, y)
    results = search.cv_results_
    threads, processes = (
        np.concatenate([results[f"split{i}_test_{what}"] for i in (0, 1)]).astype(int)
        for what in ("threads", "process")
    )
    print(f"best: {search.best_params_}, image AUROC {search.best_score_:.3f}")
    print(f"cores: {joblib.cpu_count()}, processes: {len(set(processes))}, ", end="")
    print(f"threads of each: {max(threads)}")
    return search, threads, processes


if __name__ == "__main__":
    main()
