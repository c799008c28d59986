"""Compare fit and score beside busy processes with a fair share: python THIS_FILE.

Beside b busy processes, t threads on p processors get their fair share if they take
max(1, (t + b) / p) times as long as alone. Each round measures alone, beside one and
beside two busy processes; the figure is the median over rounds of the measured time
divided by that of the fair share. Run it on an idle machine. With --check, the exit
code is 1 if a figure exceeds 1.5.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import joblib
import numpy as np

from skad import PatchAutoencoderDetector  # before torch: it says how threads wait

LIMIT = 1.5
BUSY = (1, 2)
SECONDS = 90  # no round begins later; busy processes end by themselves in twice that
NEVER_RESTS = (
    f"import time\nend = time.time() + {2 * SECONDS}\nwhile time.time() < end: pass"
)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Keep n processes busy meanwhile."""
    command = [sys.executable, "-S", "-c", NEVER_RESTS]
    processes = [subprocess.Popen(command) for _ in range(n)]
    try:
        if n:
            time.sleep(0.5)  # until all of them run
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds(what: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def fair(n_busy: int, n_threads: int) -> float:
    """Return how many times as long a fair share makes it take."""
    return max(1.0, (n_threads + n_busy) / joblib.cpu_count())


def measure(
    jobs: dict[str, Callable[[], object]], rounds: int, n_threads: int
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Return seconds, and how many times those of a fair share, of every round."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    began = time.perf_counter()
    for _ in range(rounds):
        if time.perf_counter() - began > SECONDS:
            break
        alone = {name: seconds(job) for name, job in jobs.items()}
        for n in BUSY:
            with busy(n):
                for name, job in jobs.items():
                    took = seconds(job)
                    ratio = took / alone[name] / fair(n, n_threads)
                    found.setdefault((name, n), []).append((took, ratio))
        for name in jobs:
            found.setdefault((name, 0), []).append((alone[name], 1.0))
    return found


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--epochs", type=int, default=1, help="of the fit")
    parser.add_argument("--threads", type=int, help="torch's (default: as it is)")
    parser.add_argument("--check", action="store_true", help="fail beyond the limit")
    args = parser.parse_args()

    import torch  # after skad, as a program that uses skad does

    if args.threads:
        torch.set_num_threads(args.threads)
    n_threads = min(torch.get_num_threads(), joblib.cpu_count())
    shape = (40, args.side, args.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    detector = PatchAutoencoderDetector(
        epochs=args.epochs, target_fpr=0.5, random_state=0
    )
    jobs = {
        f"fit, 40 images, epochs={args.epochs}": lambda: detector.fit(images),
        "score_samples, 120 images": lambda: detector.score_samples(
            np.concatenate([images] * 3)
        ),
    }
    print(f"Threads: {n_threads}, processors: {joblib.cpu_count()}")
    first = {name: seconds(job) for name, job in jobs.items()}
    print(
        "First call: " + ", ".join(f"{k}: {v:.2f} s" for k, v in first.items()) + "\n"
    )
    found = measure(jobs, args.rounds, n_threads)
    print("| what | busy processes | seconds | / fair share | wanted |")
    print("|---|---:|---:|---:|---:|")
    beyond = 0
    for (name, n), rows in sorted(found.items()):
        took, ratio = (statistics.median(column) for column in zip(*rows, strict=True))
        beyond += ratio > LIMIT
        print(f"| {name} | {n} | {took:.2f} | {ratio:.2f} | ≤ {LIMIT} |")
    sys.exit(1 if args.check and beyond else 0)


if __name__ == "__main__":
    main()
