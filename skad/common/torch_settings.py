"""Torch's threads and global settings, as skad computes with them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import TypeVar

import joblib
import torch

T = TypeVar("T")
U = TypeVar("U")

_is_forked = False
_lock = Lock()
_n_training = 0  # trainings at a time: all threads share one default type
_dtype_before = torch.float32  # the default type before the first of them


def _after_fork() -> None:
    """Use one thread: OpenMP would wait for ever for threads of the parent."""
    global _is_forked
    _is_forked = True
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _n_processors() -> int:
    """Count processors, within the process's affinity and its container's quota."""
    return 1 if _is_forked else joblib.cpu_count()


@contextmanager
def limit_threads(most: int | None = None) -> Iterator[None]:
    """Let torch use at most so many threads; by default, as there are processors.

    One thread is quickest for many small matrices: several wait for each other.
    """
    wanted = torch.get_num_threads()
    torch.set_num_threads(min(wanted, most or _n_processors()))
    try:
        yield
    finally:
        torch.set_num_threads(wanted)


def in_order(
    compute: Callable[[T], U], items: Iterable[T], pool: Executor, n_ahead: int
) -> Iterator[U]:
    """Compute in a pool; yield results in order, `n_ahead` more of them under way."""
    waiting: deque[Future[U]] = deque()
    for item in items:
        waiting.append(pool.submit(compute, item))
        if len(waiting) > n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def side_by_side(
    compute: Callable[[T], U], items: Iterable[T], most: int
) -> Iterator[U]:
    """Compute up to `most` results at a time, in threads; yield them in order.

    The threads share torch's out: those that work on different images wait for each
    other less than those that work on the same one.
    """
    wanted = torch.get_num_threads()
    usable = min(wanted, _n_processors())
    n = min(most, usable)
    if n < 2:
        yield from map(limit_threads()(compute), items)
        return
    share = (usable // n,)
    try:
        with ThreadPoolExecutor(
            n, "skad-compute", torch.set_num_threads, share
        ) as pool:
            yield from in_order(compute, items, pool, n - 1)
    finally:  # when no thread of the pool can set another number any more
        torch.set_num_threads(wanted)


@contextmanager
def training_settings() -> Iterator[None]:
    """Compute with gradients, in float32 by default, in as many threads as pay."""
    with (
        limit_threads(),
        _float32_by_default(),
        torch.inference_mode(False),
        torch.enable_grad(),
        _without_overrides(),
    ):
        yield


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


@contextmanager
def _float32_by_default() -> Iterator[None]:
    global _n_training, _dtype_before
    with _lock:
        if not _n_training:
            _dtype_before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _n_training += 1
    try:
        yield
    finally:
        with _lock:
            _n_training -= 1
            if not _n_training:
                torch.set_default_dtype(_dtype_before)
