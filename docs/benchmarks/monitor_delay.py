"""Measure how soon the monitor finds another light: python THIS_FILE ROOT MODELS.

ROOT holds data sets as `skad benchmark` takes them, and MODELS the detectors that
`skad benchmark ROOT --models MODELS` has stored. The good test images of each set are
made darker or brighter by some percent.

- "from the first image": all images of the stream are changed. They come in random
  order and each once, since repeated images are no sample of new ones, and are compared
  with the calibration images.
- "after 300 images": a stream drawn with replacement from the unchanged images, of
  which 100 are the baseline, then one from the changed images. Before the change, it is
  exchangeable with itself, whether or not the set's test images are like its training
  images.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np

import skad

CHANGES = (0, -5, -10, -20, 5, 10, 20)  # percent
ORDERS, BASELINE, BEFORE, AFTER = 100, 100, 300, 100
ALPHA = 0.01


def from_the_first(detector, scores, rng):
    """Return the number of images until an alarm, once each in random order."""
    monitor = skad.Monitor(detector, alpha=ALPHA, random_state=rng.integers(2**31))
    monitor.update(rng.permutation(scores))
    return monitor.alarm_at or np.inf


def after_some(detector, unchanged, scores, rng):
    """Return the number of changed images until an alarm; negative if it was false."""
    seed = rng.integers(2**31)
    monitor = skad.Monitor(detector, alpha=ALPHA, baseline=BASELINE, random_state=seed)
    monitor.update(rng.choice(unchanged, BEFORE))
    monitor.update(rng.choice(scores, AFTER))
    return (monitor.alarm_at or np.inf) - BEFORE


def in_words(delays):
    """Return the median delay; the share of runs with an alarm if it is below half."""
    found = [delay for delay in delays if 0 < delay < np.inf]
    if len(found) <= len(delays) / 2:
        return f"{len(found) / len(delays):.0%} found"
    return f"{np.median(delays):.0f}"


def main() -> None:
    """Print a Markdown table for each kind of stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--sets", nargs="+", help="only these (default: all)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of another light: it is meant
    tables: dict[str, list[str]] = {
        "Share flagged": [],
        "Images until an alarm, changed from the first image on": [],
        f"Images until an alarm, changed after {BEFORE}": [],
    }
    for file in sorted(args.models.glob("*-0.safetensors")):
        name = file.name.removesuffix("-0.safetensors")
        if (args.sets and name not in args.sets) or not (args.root / name).is_dir():
            continue
        detector = skad.load(file)
        shape = detector.image_shape_in_
        good = args.root / name / "test" / "good"
        images = skad.read_images(good, shape[:2], gray=len(shape) == 2)
        changed = [
            np.rint(np.clip(images * (1 + change / 100), 0, 255)).astype(np.uint8)
            for change in CHANGES
        ]
        scores = [detector.score_samples(some) for some in changed]
        rng = np.random.default_rng(0)
        flagged = [f"{np.mean(some < detector.offset_):.0%}" for some in scores]
        first = [
            in_words([from_the_first(detector, some, rng) for _ in range(ORDERS)])
            for some in scores
        ]
        later = [
            in_words(
                [after_some(detector, scores[0], some, rng) for _ in range(ORDERS)]
            )
            for some in scores
        ]
        sizes = f"| {name} | {len(detector.calibration_scores_)} | {len(images)} | "
        for rows, cells in zip(tables.values(), (flagged, first, later), strict=True):
            rows.append(sizes + " | ".join(cells) + " |")
    for title, rows in tables.items():
        heads = " | ".join(f"{change:+d} %" if change else "none" for change in CHANGES)
        print(f"\n{title}:\n\n| set | calibration | test | {heads} |")
        print("|---|" + "---:|" * (2 + len(CHANGES)), *rows, sep="\n")


if __name__ == "__main__":
    main()
