"""The monitor of `skad score --monitor`: a file keeps its state from run to run."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.inspection.score_files import Inspected
from skad.monitor.monitor import Monitor

InspectFiles = Callable[[Sequence[Path]], Generator[Inspected, None, None]]


@contextmanager
def monitored(
    path: Path | None, detector: Any, baseline: int | None
) -> Iterator[Monitor | None]:
    """Give the monitor of a file, or a new one, and save it, also after a stop."""
    if path is None:
        if baseline is not None:
            raise ValueError("baseline needs monitor: name the file of its state")
        yield None
        return
    with locked(make_room_for(path)):
        monitor = _open(path, detector, baseline)
        try:
            yield monitor
        finally:
            monitor.save(path)


def watched(inspect_files: InspectFiles, monitor: Monitor | None) -> InspectFiles:
    """Return `inspect_files` that tells a monitor, if there is one, of every image."""
    if monitor is None:
        return inspect_files
    return lambda paths: _tell(monitor, inspect_files(paths))


def _tell(
    monitor: Monitor, inspected: Generator[Inspected, None, None]
) -> Generator[Inspected, None, None]:
    with closing(inspected):
        for path, frame, result in inspected:
            if not isinstance(result, Exception):
                monitor.update([result.score], [frame.image])
            yield path, frame, result


def _open(path: Path, detector: Any, baseline: int | None) -> Monitor:
    if not path.exists():
        return Monitor(detector, baseline=baseline or 0)
    monitor = Monitor.load(path, detector)
    if baseline not in (None, monitor.baseline):
        raise ValueError(
            f"baseline must be {monitor.baseline} or left out, as for the monitor in "
            f"{path}; got {baseline}. Name another file to start a new monitor."
        )
    return monitor
