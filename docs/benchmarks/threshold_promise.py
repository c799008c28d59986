"""Measure the promise of the threshold on exchangeable scores: python THIS_FILE.

Each repetition draws m calibration scores and 200 new good scores from one heavy-tailed
distribution, sets the threshold on the former and counts false alarms among the latter.
"""

import warnings

import numpy as np

from skad.metrics import wilson_interval
from skad.threshold.conformal import conformal_rank, conformal_threshold

REPETITIONS = 5000
NEW_IMAGES = 200


def false_alarms(m: int, target_fpr: float, rng: np.random.Generator) -> np.ndarray:
    """Share of new good images that are flagged, for every repetition."""
    rates = np.empty(REPETITIONS)
    for i in range(REPETITIONS):
        scores = -rng.lognormal(size=m + NEW_IMAGES)
        rates[i] = np.mean(scores[m:] < conformal_threshold(scores[:m], target_fpr))
    return rates


def main() -> None:
    """Print a Markdown table."""
    warnings.simplefilter("ignore")  # where the promise is coarser: it is in the table
    rng = np.random.default_rng(0)
    print("| held-out images | target | promised | false alarms | 95 % interval |")
    print("| --- | --- | --- | --- | --- |")
    for m in (9, 19, 42, 63, 200):
        for target in (0.01, 0.05, 0.1):
            promised = max(conformal_rank(m, target), 1) / (m + 1)
            rates = false_alarms(m, target, rng)
            # as for one image a repetition: those of one repetition share a threshold
            low, high = wilson_interval(round(rates.mean() * REPETITIONS), REPETITIONS)
            print(
                f"| {m} | {target:.0%} | {promised:.2%} | {rates.mean():.2%} "
                f"| {low:.2%} to {high:.2%} |"
            )


if __name__ == "__main__":
    main()
