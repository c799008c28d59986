"""Measure how often the monitor raises false alarms: python THIS_FILE.

Each run draws new calibration scores and a stream of scores of the same distribution,
and counts as a false alarm if the martingale ever reaches 1 / alpha. For comparison,
the same bets on p-values against the calibration scores alone, which are no martingale.
"""

import argparse
import math
from array import array

import numpy as np
from scipy.stats import binomtest

from skad.monitor.martingale import (
    first_capital,
    insert_and_rank,
    log_factors,
    log_martingale,
    next_capital,
)

ALPHAS = (0.05, 0.01)
BLOCK = 100  # runs at a time


def p_values(calibration, scores, rng):
    """Rank scores (n,) among the calibration and earlier ones; and among it alone."""
    u, pool = rng.random(len(scores)), array("d", calibration)
    pairs = zip(scores.tolist(), u.tolist(), strict=True)
    growing = [insert_and_rank(pool, score, one) for score, one in pairs]
    fixed = (np.searchsorted(calibration, scores) + u) / (len(calibration) + 1)
    return np.array([growing, fixed])


def highest(p):
    """Return the highest logarithm of the martingale for p-values (..., n)."""
    capital = np.broadcast_to(first_capital(), (*p.shape[:-1], len(first_capital())))
    most = np.zeros(p.shape[:-1])
    for n in range(1, p.shape[-1] + 1):
        capital = next_capital(capital, log_factors(p[..., n - 1]), n)
        most = np.maximum(most, log_martingale(capital, n))
    return most


def main() -> None:
    """Print a Markdown table: shares of runs with an alarm, and 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| calibration images | alpha | false alarms | p-values of these alone |")
    print("|---:|---:|---:|---:|")
    for m in (19, 60):
        most = []
        for _ in range(args.runs // BLOCK):
            scores = -rng.gamma(4, size=(BLOCK, m + args.steps))
            p = [p_values(np.sort(one[:m]), one[m:], rng) for one in scores]
            most.append(highest(np.stack(p, axis=1)))  # 2, BLOCK
        growing, fixed = np.concatenate(most, axis=1)
        for alpha in ALPHAS:
            k, other = (
                int((some >= -math.log(alpha)).sum()) for some in (growing, fixed)
            )
            low, high = binomtest(k, len(growing)).proportion_ci()
            share = f"{k / len(growing):.1%} ({low:.1%} to {high:.1%})"
            print(
                f"| {m} | {alpha:.0%} | {share} | {other / len(fixed):.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
