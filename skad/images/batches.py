"""Batches of images, each read while the one before it is being computed with."""

import contextvars
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from skad.common.torch_settings import side_by_side

T = TypeVar("T")
_END: Any = object()


def read_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield items; while one is in use, a thread makes the next.

    No more than these two are held. An error is raised where its item would have come.
    The thread has ended when the last item, an error or `close` has ended this.
    """
    iterator = iter(items)
    # Settings as those of np.errstate belong to a context, and not to a thread.
    context = contextvars.copy_context()

    def make() -> Any:
        return context.run(lambda: next(iterator, _END))

    with ThreadPoolExecutor(1, thread_name_prefix="skad-read-ahead") as pool:
        coming = pool.submit(make)
        while (item := coming.result()) is not _END:
            coming = pool.submit(make)
            yield item


def batches_of(
    images: Any, places: Iterable[np.ndarray]
) -> Generator[np.ndarray, None, None]:
    """Yield the images (k, H, W, C) at each of some arrays (k,) of places.

    Those of a lazy sequence are read ahead.
    """
    batches = (images.take(indices) for indices in places)
    return read_ahead(batches) if images.is_lazy else batches


def one_by_one(images: Any, places: np.ndarray) -> Generator[np.ndarray, None, None]:
    """Yield the image (1, H, W, C) at each of some places (k,), one after the other."""
    return batches_of(images, places[:, np.newaxis])


def batchwise(
    images: Any,
    size: int,
    compute: Callable[[np.ndarray], np.ndarray],
    at_a_time: int,
) -> Iterator[np.ndarray]:
    """Apply a function of batches (k, H, W, C) to all images, `size` in a batch.

    The last batch is filled up, so that what comes out of a computation in float32
    does not depend on what else is in X. Up to so many batches are computed with at a
    time.
    """

    def compute_full(batch: np.ndarray) -> np.ndarray:
        n = len(batch)
        full = batch if n == size else batch[np.resize(np.arange(n), size)]
        return compute(full)[:n]

    n = len(images)
    starts = range(0, n, size)
    places = (np.arange(i, min(i + size, n)) for i in starts)
    at_a_time = min(at_a_time, len(starts))
    with closing(batches_of(images, places)) as batches:
        yield from side_by_side(compute_full, batches, at_a_time)


def groupwise(
    images: Any,
    groups: Iterable[np.ndarray],
    compute: Callable[[int, np.ndarray], T],
    at_a_time: int,
) -> Iterator[T]:
    """Apply a function to the images (k, H, W, C) at each of some arrays of places.

    It is given the number of the array among these, and the images; up to so many are
    computed with at a time.
    """
    with closing(batches_of(images, groups)) as read:
        yield from side_by_side(lambda item: compute(*item), enumerate(read), at_a_time)
