"""Torch's threads and global settings, as skad computes with them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

import joblib
import torch

_is_forked = False
_lock = Lock()
_n_training = 0  # trainings under way: all threads share one default dtype
_dtype_before = torch.float32  # the default dtype before the first of them


def _after_fork() -> None:
    """Use one thread: OpenMP would wait for ever for threads of the parent."""
    global _is_forked
    _is_forked = True
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def limit_threads(most: int | None = None) -> Iterator[int]:
    """Let torch use at most so many threads, or as many as the process has processors.

    joblib counts those within its affinity and its container's quota.
    """
    wanted = torch.get_num_threads()
    usable = min(wanted, most or (1 if _is_forked else joblib.cpu_count()))
    torch.set_num_threads(usable)
    try:
        yield usable
    finally:
        torch.set_num_threads(wanted)


def in_order(
    compute: Callable[[Any], Any], items: Iterable[Any], pool: Executor, n_ahead: int
) -> Iterator[Any]:
    """Compute in a pool; yield results in order, with `n_ahead` more under way."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(compute, item))
        if len(waiting) > n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def side_by_side(
    compute: Callable[[Any], Any], items: Iterable[Any], most: int
) -> Iterator[Any]:
    """Compute up to `most` results at a time, in threads that share torch's threads."""
    with limit_threads() as usable:  # to the end: threads of the pool set it, too
        n = min(most, usable)
        if n < 2:
            yield from map(compute, items)
            return
        start = partial(torch.set_num_threads, usable // n)
        with ThreadPoolExecutor(n, "skad-compute", start) as pool:
            yield from in_order(compute, items, pool, n - 1)


@contextmanager
def training_settings() -> Iterator[None]:
    """Compute with gradients, in float32 by default, in as many threads as pay."""
    global _n_training, _dtype_before
    with _lock:
        if not _n_training:
            _dtype_before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _n_training += 1
    grad = torch.enable_grad()
    try:
        with limit_threads(), torch.inference_mode(False), grad, _without_overrides():
            yield
    finally:
        with _lock:
            _n_training -= 1
            if not _n_training:
                torch.set_default_dtype(_dtype_before)


@contextmanager
def inference() -> Iterator[None]:
    """Compute without gradients."""
    with torch.inference_mode(), _without_overrides():
        yield


@contextmanager
def _without_overrides() -> Iterator[None]:
    """Switch off autocast and the default device that a program may have set."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
