"""Measure detectors of few good images: python THIS_FILE ROOT [--n-images 10 20].

ROOT holds categories in MVTec AD layout. From the good images of each, some are drawn;
a detector with an encoder and without training learns from these alone, with split and
with cross-fitted calibration. All other good images, those for training as well as
those for the test, tell how many are flagged; the defective ones, how many are found.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np

from skad import PatchAutoencoderDetector
from skad.benchmark import find_categories, load_category
from skad.metrics import image_auroc_score

CALIBRATIONS = ("split", "cross")


def main() -> None:
    """Print a Markdown table: means over the draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--n-images", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--target-fpr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    print("| category | images | calibration | image AUROC | flagged good | found |")
    print("|---|---:|---|---:|---:|---:|")
    for folder in find_categories(args.root, args.categories):
        category = load_category(folder)
        train, test = np.asarray(category.train), np.asarray(category.test)
        for n in args.n_images:
            for calibration in CALIBRATIONS:
                rows = []
                for seed in args.seeds:
                    order = np.random.RandomState(seed).permutation(len(train))
                    detector = PatchAutoencoderDetector(
                        encoder="efficientnet-lite0",
                        epochs=0,
                        calibration=calibration,
                        target_fpr=args.target_fpr,
                        random_state=seed,
                    )
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)  # of few images
                        detector.fit(train[order[:n]])
                        scores = detector.score_samples(test)
                        rest = detector.predict(train[order[n:]][:60]) == -1
                    flagged = scores < detector.offset_
                    good = np.concatenate([flagged[category.y == 1], rest])
                    auroc = image_auroc_score(category.y, scores)
                    rows.append((auroc, good.mean(), flagged[category.y == -1].mean()))
                cells = " | ".join(f"{mean:.3f}" for mean in np.mean(rows, 0))
                print(f"| {folder.name} | {n} | {calibration} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
