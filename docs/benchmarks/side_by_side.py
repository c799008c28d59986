"""Measure what runs beside training and scoring: python THIS_FILE.

Decoding: training from a folder of JPEG files, which a thread reads ahead, against
training on the same images in memory. Jobs: a cross-validation with two jobs of joblib
against the same with one. The figures are medians of ratios of two times, measured in
turn. Images are random.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import cross_val_score

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


def ratio(of: Callable[[], object], to: Callable[[], object], rounds: int) -> float:
    """Return the median over the rounds of the ratio of two times."""
    of(), to()
    return statistics.median(_seconds(of) / _seconds(to) for _ in range(rounds))


def _seconds(what: Callable[[], object]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


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
        decoding = ratio(partial(fit, folder, 4), partial(fit, images, 4), args.rounds)
    print(f"| fit on a folder / in memory | {decoding:.2f} | ≤ 1.15 |", flush=True)
    labels = np.where(np.arange(N) % 4, 1, -1)
    one, two = (partial(validate, images, labels, n) for n in (1, 2))
    jobs = ratio(two, one, args.rounds)
    print(f"| cross-validation, n_jobs=2 / n_jobs=1 | {jobs:.2f} | ≤ 1 |")


if __name__ == "__main__":
    main()
