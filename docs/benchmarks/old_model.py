"""Compare a model of the old script with a new detector: python THIS_FILE ROOT.

ROOT holds old_model/, a model that the old script trained on the good images of
data/mvtec_bottle, and that set. The old model is read as it is; the new detector is
trained on the same images with its default parameters, which takes minutes.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from skad import DenseAutoencoderDetector, PatchAutoencoderDetector
from skad.benchmark import Category, figures_of_pixels, load_category
from skad.metrics import image_auroc_score


def in_gray(images: np.ndarray) -> np.ndarray:
    """Turn colour images (n, H, W, 3) into gray ones (n, H, W), as files are read."""
    return np.stack([np.asarray(Image.fromarray(i).convert("L")) for i in images])


def figures(maps: np.ndarray, category: Category) -> str:
    """One line of the table, from the maps of the test images."""
    scores = -maps.max(axis=(1, 2)).astype(float)
    pixels = figures_of_pixels(category.masks, maps)
    image_auroc = image_auroc_score(category.y, scores)
    return f"{image_auroc:.3f} | {pixels['pixel_auroc']:.3f} | {pixels['au_pro']:.3f} |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--old-only", action="store_true", help="train nothing")
    args = parser.parse_args()
    category = load_category(args.root / "data" / "mvtec_bottle")
    old = DenseAutoencoderDetector(args.root / "old_model" / "model")
    old.fit(in_gray(category.train))
    known = -np.median(old.calibration_scores_)
    fresh = -np.median(old.score_samples(in_gray(category.test[category.y == 1])))
    print(
        "Median of the largest error in good images: "
        f"{known:.3f} where the old model was trained on them, {fresh:.3f} where not.\n"
    )
    print("| model | image AUROC | pixel AUROC | AU-PRO |\n|---|---:|---:|---:|")
    maps = old.anomaly_map(in_gray(category.test))
    print(f"| the old script's | {figures(maps, category)}", flush=True)
    if args.old_only:
        return
    new = PatchAutoencoderDetector(random_state=0, verbose=1).fit(category.train)
    maps = new.anomaly_map(category.test)
    print(f"| newly trained | {figures(maps, category)}")


if __name__ == "__main__":
    main()
