"""No more threads than the processors that this process may use."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import joblib
import torch

_usable = cache(joblib.cpu_count)  # which asks the system each time


@contextmanager
def within_quota() -> Iterator[None]:
    """Let torch compute with as many threads as it is set to, but no more than pay.

    In a container that may use one processor of sixteen, torch would start sixteen
    threads, which wait for each other. joblib counts the processors that the affinity
    of the process, the quota of its container and LOKY_MAX_CPU_COUNT leave it.
    """
    wanted, usable = torch.get_num_threads(), _usable()
    if wanted <= usable:
        yield
        return
    torch.set_num_threads(usable)
    try:
        yield
    finally:
        torch.set_num_threads(wanted)
