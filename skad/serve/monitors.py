"""One monitor of drift for each model; its state is kept in a file, if wanted."""

import logging
from pathlib import Path
from threading import Lock
from typing import Any

from skad.monitor.monitor import Monitor
from skad.monitor.status import MonitorStatus
from skad.serve.models import Model

_LOG = logging.getLogger(__name__)
_ALPHA = 0.001  # probability of a false alarm, over the life of a monitor …
_LIFE = 100_000  # … of so many images: it keeps 64 bytes of each


class DriftWatch:
    """Watches the images of one model; threads take turns."""

    def __init__(self, model: Model, folder: Path | None) -> None:
        self._detector = model.backend
        self._file = None if folder is None else folder / f"{model.name}.monitor.json"
        self._lock = Lock()
        self._monitor = self._stored() or self._new()
        self._n_saved = self._monitor.n_images

    @property
    def alarm(self) -> bool:
        """Whether there was an alarm."""
        return self._monitor.alarm

    def update(self, score: float, image: Any) -> bool:
        """Watch an image; return whether it raises the alarm."""
        with self._lock:
            if self._monitor.n_images >= _LIFE:
                self._monitor = self._new()
            before = self._monitor.alarm
            return self._monitor.update([score], [image]) and not before

    def status(self) -> MonitorStatus:
        """Return what was found so far."""
        with self._lock:
            return self._monitor.status()

    def restart(self) -> None:
        """Begin anew, once the cause of an alarm is mended."""
        with self._lock:
            self._monitor = self._new()
        self.save()

    def save(self) -> None:
        """Store the state, if it has changed."""
        with self._lock:
            if self._file is not None and self._monitor.n_images != self._n_saved:
                self._monitor.save(self._file)
                self._n_saved = self._monitor.n_images

    def _new(self) -> Monitor:
        # A stream of cross-fitted scores is compared with its own beginning.
        baseline = 50 if self._detector.is_cross_fitted_ else 0
        return Monitor(self._detector, alpha=_ALPHA, baseline=baseline)

    def _stored(self) -> Monitor | None:
        if self._file is None or not self._file.exists():
            return None
        try:
            return Monitor.load(self._file, self._detector)
        except (OSError, ValueError) as error:  # as of a model before this one
            _LOG.warning("the monitor begins anew: %s", error)
            return None
