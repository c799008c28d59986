"""Threads of torch: no more than pay, and each with work of its own."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import cache
from typing import TypeVar

import joblib
import torch

T = TypeVar("T")
U = TypeVar("U")
_PIXELS_FOR_THREADS = 2**17  # of a batch in training: fewer are not worth any
_processors = cache(joblib.cpu_count)  # which asks the system each time
_forked = False


def _after_fork() -> None:
    """Compute with one thread in a forked process.

    OpenMP counts on threads that only the parent has, and would wait for them for ever.
    """
    global _forked
    _forked = True
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _usable() -> int:
    return 1 if _forked else _processors()


def check_not_lost(device: torch.device) -> None:
    """Raise a RuntimeError where a fork has lost a GPU that the parent used."""
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise RuntimeError(
            f"device {device} cannot be used in this process: it was forked from one "
            "that had used the GPU already. Start processes by the method 'spawn' or "
            "'forkserver', or use the GPU only in them: see docs/processes.md."
        )


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


def threads_for(n_pixels: int) -> AbstractContextManager[None]:
    """Let torch train in one thread on batches of so few pixels that more do not pay.

    On 16 images of 64 x 64 pixels two threads are no quicker than one, and take twice
    as long where other processes keep the processors busy.
    """
    return one_thread() if n_pixels < _PIXELS_FOR_THREADS else nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone: for many small matrices.

    Several threads share each of them, and meet at its end. That takes longer than the
    matrix itself, and far longer where another process keeps a core busy: all wait,
    spinning, for the thread that is not running.
    """
    wanted = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(wanted)


def side_by_side(
    compute: Callable[[T], U], items: Iterable[T], most: int
) -> Iterator[U]:
    """Apply a function to items, at most so many at a time; results in their order.

    Each item has a share of torch's threads to itself: threads that work on different
    images wait for each other less than threads that work on the same one.
    """
    wanted = torch.get_num_threads()
    threads = min(wanted, _usable())
    n = min(most, threads)
    if n < 2:
        yield from map(within_quota()(compute), items)
        return
    share = (threads // n,)
    try:
        with ThreadPoolExecutor(
            n, "skad-compute", torch.set_num_threads, share
        ) as pool:
            waiting: deque[Future[U]] = deque()
            for item in items:
                # Settings as those of np.errstate belong to a context.
                waiting.append(pool.submit(copy_context().run, compute, item))
                if len(waiting) == n:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:  # when none of the pool's threads can set another number any more
        torch.set_num_threads(wanted)
