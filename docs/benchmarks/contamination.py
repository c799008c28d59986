"""Measure the effect of bad images among the good ones: python THIS_FILE ROOT.

ROOT holds categories in MVTec AD layout. A growing share of defective test images is
added, unlabelled, to the good training images; the same images are removed from every
test. Parameters are the defaults; in the last two columns, `target_fpr` is raised by
the share of bad images.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np

from skad import PatchAutoencoderDetector
from skad.benchmark import (
    Category,
    figures_of_images,
    figures_of_pixels,
    find_categories,
    load_category,
)

SHARES = (0.0, 0.01, 0.02, 0.05)  # of the training images
COLUMNS = (
    "category",
    "bad",
    "image AUROC",
    "AU-PRO",
    "false alarms",
    "detected",
    "raised: false alarms",
    "raised: detected",
)


def trial(category: Category, share: float, seed: int) -> list[float]:
    """Train with this share of bad images, test on images that are never planted."""
    n_good = len(category.train)
    most, n = (round(s * n_good / (1 - s)) for s in (max(SHARES), share))
    order = np.random.default_rng(seed).permutation(np.flatnonzero(category.y == -1))
    train = np.concatenate([category.train, category.test[order[:n]]])
    tested = np.setdiff1d(np.arange(len(category.y)), order[:most])
    detector = PatchAutoencoderDetector(random_state=seed).fit(train)
    maps = detector.anomaly_map(category.test[tested])
    scores = -maps.max(axis=(1, 2)).astype(float)
    masks = [category.masks[i] for i in tested]
    rates = []
    for target in (detector.target_fpr, detector.target_fpr + share):
        offset = detector.retarget(target).offset_
        images = figures_of_images(category.y[tested], scores, offset)
        rates += [images["false_alarm_rate"], images["detection_rate"]]
    return [images["image_auroc"], figures_of_pixels(masks, maps)["au_pro"], *rates]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # few images for the promise
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * (len(COLUMNS) - 1))
    for folder in find_categories(args.root, args.categories):
        category = load_category(folder)
        for share in SHARES:
            means = np.mean([trial(category, share, s) for s in args.seeds], axis=0)
            cells = " | ".join(f"{mean:.3f}" for mean in means)
            print(f"| {category.name} | {share:.0%} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
