"""Measure how the time of training and scoring grows: python THIS_FILE --figure FILE.

Varies one quantity at a time. Every round measures each of its values in turn, in this
process; the figure is the median over rounds, relative to the smallest value. The
exponent is the slope of a line through the logarithms: 1 if twice as much takes twice
as long. Images are random, because the time does not depend on them.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from speed import seconds

from skad import PatchAutoencoderDetector

SIDE, N, CHANNELS = 128, 100, 3  # of the images, where they are not varied
EPOCHS = 4


class Growth(NamedTuple):
    """What is varied, and the images and patch sizes that each value means."""

    name: str
    values: tuple[int, ...]
    shape: Callable[[int], tuple[int, int, int, int]]
    patch_size: Callable[[int], int | tuple[int, ...]] = lambda value: 40


GROWTHS = (
    Growth("images", (100, 200, 400, 800), lambda n: (n, SIDE, SIDE, CHANNELS)),
    Growth(
        "pixels of an image",
        (64**2, 128**2, 256**2, 512**2),
        lambda pixels: (N, int(pixels**0.5), int(pixels**0.5), CHANNELS),
    ),
    Growth("channels", (1, 3, 12, 48), lambda c: (N, SIDE, SIDE, c)),
    Growth(
        "patch sizes",
        (1, 2, 4, 8),
        lambda n: (N, SIDE, SIDE, CHANNELS),
        lambda n: tuple(range(40, 40 - 4 * n, -4)),
    ),
)


def measure(growth: Growth, rounds: int) -> np.ndarray:
    """Return the medians (values, 2) of the seconds of `fit` and `score_samples`."""
    rng = np.random.default_rng(0)
    times: list[list[list[float]]] = [[] for _ in growth.values]
    for _ in range(rounds):
        for value, found in zip(growth.values, times, strict=True):
            images = rng.integers(0, 256, growth.shape(value), dtype=np.uint8)
            detector = PatchAutoencoderDetector(
                growth.patch_size(value), epochs=EPOCHS, random_state=0
            )
            calls = (
                partial(detector.fit, images),
                partial(detector.score_samples, images),
            )
            found.append([seconds(call) for call in calls])
    return np.array([np.median(found, axis=0) for found in times])


def exponents(growth: Growth, times: np.ndarray) -> list[float]:
    """Fit the slope of log(seconds) over log(value): of `fit` and `score_samples`."""
    x = np.log(growth.values)
    return [float(np.polyfit(x, np.log(column), 1)[0]) for column in times.T]


def draw(results: list[tuple[Growth, np.ndarray]], path: Path) -> None:
    """Draw all growths, with both axes logarithmic."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(12, 3), sharey=True)
    for ax, (growth, times) in zip(axes, results, strict=True):
        for column, name in zip(times.T, ("fit", "score_samples"), strict=True):
            ax.loglog(growth.values, column / column[0], "o-", label=name)
        straight = np.array(growth.values) / growth.values[0]
        ax.loglog(growth.values, straight, ":", color="gray", label="linear")
        ax.set_xlabel(growth.name)
        ax.set_xticks(growth.values, map(str, growth.values), fontsize="small")
        ax.minorticks_off()
    axes[0].set_ylabel("time, relative")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Print a Markdown table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figure", type=Path, metavar="FILE")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # thresholds play no part here
    print("| what | times as many | fit | score_samples |\n|---|---:|---:|---:|")
    results = []
    for growth in GROWTHS:
        times = measure(growth, args.rounds)
        for value, row in zip(growth.values, times / times[0], strict=True):
            many = value / growth.values[0]
            print(
                f"| {growth.name}: {value} | {many:g} | {row[0]:.2f} | {row[1]:.2f} |"
            )
        fit, score = exponents(growth, times)
        print(f"| **exponent** | | {fit:.2f} | {score:.2f} |", flush=True)
        results.append((growth, times))
    if args.figure:
        draw(results, args.figure)


if __name__ == "__main__":
    main()
