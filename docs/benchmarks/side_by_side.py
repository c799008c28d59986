"""Measure what runs in parallel with training and scoring: python THIS_FILE.

Decoding: training on a folder of JPEG files, which a thread reads ahead, against
training on the same images in memory. Jobs: cross-validation with two joblib jobs
against one. The figures are medians of ratios of two alternating measurements. Images
are random.
"""

import argparse
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import cross_val_score
from speed import Ratio, measure, wanted

import skad

SIDE, N = 256, 64


def write_folder(folder: Path) -> Path:
    """Write smooth colour images, which JPEG takes as it takes photographs."""
    rng = np.random.default_rng(0)
    for i in range(N):
        coarse = rng.integers(60, 200, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        smooth.save(folder / f"{i:03}.jpg", quality=95)
    return folder


def fit(images: object, epochs: int) -> None:
    """Train on images."""
    skad.PatchAutoencoderDetector(epochs=epochs, random_state=0).fit(images)


def validate(images: np.ndarray, labels: np.ndarray, n_jobs: int) -> None:
    """Train and score four times, so many at a time."""
    detector = skad.PatchAutoencoderDetector(epochs=2, random_state=0)
    cross_val_score(detector, images, labels, cv=4, scoring="roc_auc", n_jobs=n_jobs)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's (default: as it is)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", UserWarning)  # thresholds play no part here
    print(f"Threads: {torch.get_num_threads()}\n")
    print("| what | ratio | wanted |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = skad.ImageFolder(write_folder(Path(temporary)))
        images = np.stack(list(folder))
        labels = np.where(np.arange(N) % 4, 1, -1)
        one, two = (partial(validate, images, labels, n) for n in (1, 2))
        read, held = (partial(fit, where, 4) for where in (folder, images))
        for ratio in (
            Ratio("fit on a folder / in memory", read, held, 1.15),
            Ratio("cross-validation, n_jobs=2 / n_jobs=1", two, one, 1.0),
        ):
            value, _ = measure(ratio, args.rounds)
            print(f"| {ratio.name} | {value:.2f} | {wanted(ratio)} |", flush=True)


if __name__ == "__main__":
    main()
