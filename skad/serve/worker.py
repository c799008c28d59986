"""One thread that inspects: images that wait for one model are inspected together."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.serve.backends import Backend

_AT_ONCE = 16  # images


@dataclass(eq=False)
class _Job:
    backend: Backend
    image: NDArray[Any]  # (H, W) or (H, W, C)
    result: Future[Any] = field(default_factory=Future)


class Worker:
    """Inspects images in the order in which they come."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._changed = Condition()
        self._stops = False
        self._thread = Thread(target=self._run, name="skad-inspect", daemon=True)
        self._thread.start()

    def submit(self, backend: Backend, image: NDArray[Any]) -> Future[Any]:
        """Let an image be inspected; it may be given up by cancelling its future."""
        job = _Job(backend, image)
        with self._changed:
            waiting = [one for one in self._jobs if not one.result.cancelled()]
            self._jobs = deque([*waiting, job])
            self._changed.notify()
        return job.result

    def close(self) -> None:
        """Inspect what waits, then stop."""
        with self._changed:
            self._stops = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            jobs = [job for job in jobs if job.result.set_running_or_notify_cancel()]
            _inspect(jobs)

    def _next(self) -> list[_Job]:
        """Wait for jobs; return some that one call can do, [] at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stops)
            if not self._jobs:
                return []
            first = self._jobs[0]
            alike = [job for job in self._jobs if _are_alike(job, first)][:_AT_ONCE]
            for job in alike:
                self._jobs.remove(job)
            return alike


def _are_alike(one: _Job, other: _Job) -> bool:
    # Integers are scaled by their type: no batch may mix 8 and 16 bits.
    return one.backend is other.backend and one.image.dtype == other.image.dtype


def _inspect(jobs: list[_Job]) -> None:
    """Set the results of jobs; where a batch fails, each is tried alone."""
    if not jobs:
        return
    try:
        results = jobs[0].backend.inspect(np.stack([job.image for job in jobs]))
    except Exception as error:
        if len(jobs) == 1:
            jobs[0].result.set_exception(error)
        else:
            for job in jobs:
                _inspect([job])
        return
    for job, result in zip(jobs, results, strict=True):
        job.result.set_result(result)
