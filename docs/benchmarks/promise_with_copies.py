"""Measure the false-alarm rate if images have near copies: python THIS_FILE.

Each repetition draws new parts, adds a changed copy or four frames of each, and fits a
small detector twice: with groups of near copies, and with each image as its own group.
Both then score new parts. The expected time is printed to stderr.
"""

import argparse
import sys
import time
import warnings

import numpy as np
from near_copies import CHANGES
from scipy.ndimage import gaussian_filter

from skad import PatchAutoencoderDetector

N_PARTS, N_NEW, SIDE = 30, 100, 32  # 9 parts calibrate: 10 % is promised exactly
TARGET = 0.1
KINDS = {  # changes, and how many copies a part has of each
    "no copies": ("one bit", 0),
    "one bit": ("one bit", 1),
    "JPEG 90": ("JPEG 90", 1),
    "bursts": ("next frame", 4),
}


def draw_parts(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw different parts: soft patterns, (n, SIDE, SIDE) uint8."""
    fields = gaussian_filter(rng.normal(size=(n, SIDE, SIDE)), (0, 2.5, 2.5))
    return np.clip(128 + 200 * fields, 0, 255).astype(np.uint8)


def trial(kind: str, seed: int, epochs: int) -> tuple[float, float]:
    """Return the shares of new parts that are flagged: as it is, and without groups."""
    rng = np.random.default_rng(seed)
    parts, new = draw_parts(N_PARTS, rng), draw_parts(N_NEW, rng)
    change, n_copies = KINDS[kind]
    copies = [CHANGES[change](part, rng) for _ in range(n_copies) for part in parts]
    X = np.concatenate([parts, *np.array(copies)[:, None]]) if copies else parts
    rates = []
    for groups in (None, range(len(X))):
        detector = PatchAutoencoderDetector(
            8, epochs=epochs, target_fpr=TARGET, random_state=seed, device="cpu"
        )
        labels = detector.fit(X, groups=groups).predict(new)
        rates.append(float(np.mean(labels == -1)))
    return rates[0], rates[1]


def main() -> None:
    """Print a Markdown table: means, and their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of images that have copies
    print("| copies | repetitions | false alarms | each image its own group |")
    print("|---|---:|---:|---:|")
    for kind in args.kinds:
        began, rates = time.monotonic(), []
        for seed in range(args.repetitions):
            rates.append(trial(kind, seed, args.epochs))
            if seed == 0:
                minutes = (time.monotonic() - began) * args.repetitions / 60
                print(f"{kind}: about {minutes:.0f} minutes", file=sys.stderr)
        means, spreads = np.mean(rates, axis=0), np.std(rates, axis=0)
        cells = [
            f"{mean:.1%} ± {spread / np.sqrt(len(rates)):.1%}"
            for mean, spread in zip(means, spreads, strict=True)
        ]
        print(f"| {kind} | {len(rates)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
