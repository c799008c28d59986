"""Measure the promise of the threshold on exchangeable images: python THIS_FILE.

A small detector is fitted once, to noise. Each repetition draws m calibration images
and 200 new ones without replacement from a pool of noise, calibrates with the former
and counts false alarms among the latter.
"""

import argparse
import warnings

import numpy as np

from skad import PatchAutoencoderDetector

SIDE, POOL, NEW_IMAGES = 16, 4000, 200
TARGETS = (0.01, 0.05, 0.1)


def noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw images (n, SIDE, SIDE), uint8; some have more contrast than others."""
    contrast = rng.uniform(10, 30, (n, 1, 1))
    values = 128 + contrast * rng.normal(size=(n, SIDE, SIDE))
    return values.clip(0, 255).astype(np.uint8)


def main() -> None:
    """Print a Markdown table: means, and their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    repetitions = parser.parse_args().repetitions
    warnings.simplefilter("ignore")  # where the promise is coarser: it is in the table
    rng = np.random.default_rng(0)
    detector = PatchAutoencoderDetector(4, epochs=5, random_state=0, device="cpu")
    detector.fit(noise(40, rng))
    pool = noise(POOL, rng)
    scores = detector.score_samples(pool)
    print("| calibration images | target | promised | false alarms |")
    print("|---:|---:|---:|---:|")
    for m in (9, 42, 200):
        rates = np.empty((repetitions, len(TARGETS)))
        for i in range(repetitions):
            drawn = rng.choice(POOL, m + NEW_IMAGES, replace=False)
            detector.calibrate(pool[drawn[:m]], groups=range(m))
            for k, target in enumerate(TARGETS):
                offset = detector.retarget(target).offset_
                rates[i, k] = np.mean(scores[drawn[m:]] < offset)
        errors = rates.std(axis=0) / np.sqrt(repetitions)
        for k, target in enumerate(TARGETS):
            promised = detector.retarget(target).promised_fpr_
            found = f"{rates[:, k].mean():.2%} ± {errors[k]:.2%}"
            print(f"| {m} | {target:.0%} | {promised:.2%} | {found} |", flush=True)


if __name__ == "__main__":
    main()
