"""Compare the monitor's bets with two of the literature: python THIS_FILE.

Normal scores shift by some standard deviations after some scores without drift. Each
cell: the median number of scores after the shift until the martingale reaches 20, that
is, until an alarm at alpha = 0.05.
"""

import argparse
import math
from array import array

import numpy as np

from skad.monitor.martingale import (
    first_capital,
    insert_and_rank,
    log_factors,
    log_martingale,
    next_capital,
)

M, LONGEST = 60, 400  # calibration scores; scores after the shift


def monitor(p):
    """Return the logarithms of the monitor's martingale for p-values (runs, n)."""
    capital = np.tile(first_capital(), (len(p), 1))
    for n in range(1, p.shape[1] + 1):
        capital = next_capital(capital, log_factors(p[:, n - 1]), n)
        yield log_martingale(capital, n)


def simple_mixture(p):
    """Mix the same powers, begun at step 1 only (Vovk et al. 2003, both sides)."""
    capital = np.full((len(p), 100), -math.log(100))
    e = np.tile((np.arange(50) + 0.5) / 50, 2)
    for one in p.T:
        log_p = np.repeat([np.log(one), np.log1p(-one)], 50, axis=0).T
        capital = capital + np.log(e) + (e - 1) * log_p
        yield np.logaddexp.reduce(capital, axis=1)


def simple_jumper(p):
    """Bet 1 + e (p - 1/2), e in {-1, 0, 1}, and jump with 0.01 (Vovk et al. 2021)."""
    capital, jump = np.full((len(p), 3), 1 / 3), 0.01
    for one in p.T:
        capital = (1 - jump) * capital + jump * capital.mean(axis=1, keepdims=True)
        capital = capital * (1 + np.array([-1, 0, 1]) * (one[:, None] - 0.5))
        yield np.log(capital.sum(axis=1))


def main() -> None:
    """Print a Markdown table of delays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    rng, bets = np.random.default_rng(0), (monitor, simple_mixture, simple_jumper)
    print("| scores before | shift | monitor | simple mixture | simple jumper |")
    print("|---:|---:|---:|---:|---:|")
    for before in (0, 100, 2000):
        for shift in (0.5, 1, 2, 3):
            p = np.empty((runs, before + LONGEST))
            for row in p:
                scores = rng.normal(size=before + LONGEST)
                scores[before:] -= shift
                pool = array("d", np.sort(rng.normal(size=M)))
                row[:] = [insert_and_rank(pool, s, rng.random()) for s in scores]
            cells = []
            for bet in bets:
                is_high = np.array(list(bet(p))) >= math.log(20)  # steps, runs
                is_high = is_high[:, ~is_high[:before].any(axis=0)]  # no false alarm
                delays = np.where(
                    is_high.any(axis=0), is_high.argmax(axis=0) - before + 1, np.inf
                )
                median = np.median(delays)
                cells.append(f"{median:.0f}" if median < np.inf else f"> {LONGEST}")
            print(f"| {before} | {shift} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
