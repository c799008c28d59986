"""Measure scores of images without a part: python THIS_FILE ROOT --models FOLDER.

ROOT holds categories in MVTec AD layout, FOLDER the detectors that
`skad benchmark ROOT --models FOLDER` has saved. The empty image has one colour: the
median of the outermost pixels of the good training images, which is the background.
"""

import argparse
from pathlib import Path

import numpy as np

import skad
from skad.benchmark import find_categories, load_category


def empty_image(images: np.ndarray) -> np.ndarray:
    """One image (1, H, W[, C]) of the colour that the edges of images (n, ...) have."""
    edge = np.ones(images.shape[1:3], bool)
    edge[1:-1, 1:-1] = False
    colour = np.median(images[:, edge], axis=(0, 1)).astype(images.dtype)
    return np.broadcast_to(colour, (1, *images.shape[1:]))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    print("| category | seed | anomaly | threshold | found |\n|---|---:|---:|---:|---|")
    for folder in find_categories(args.root, args.categories):
        empty = empty_image(np.asarray(load_category(folder).train))
        for path in sorted(args.models.glob(f"{folder.name}-*.safetensors")):
            detector = skad.load(path)
            anomaly = -detector.score_samples(empty)[0]
            threshold = detector.pixel_threshold_
            found = "yes" if anomaly > threshold else "no"
            seed = path.stem.removeprefix(f"{folder.name}-")
            values = f"{anomaly:.1f} | {threshold:.1f} | {found}"
            print(f"| {folder.name} | {seed} | {values} |", flush=True)


if __name__ == "__main__":
    main()
