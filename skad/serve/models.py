"""The models that are served: loaded, tried, and loaded anew when a file changes."""

import math
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path

import numpy as np

from skad.images.decoding import Reader, reader_for
from skad.serve.actions import Actions, set_actions
from skad.serve.backends import Backend, load_backend
from skad.serve.settings import Settings


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is served."""

    name: str
    path: Path
    backend: Backend
    runtime: str  # "torch" or "onnxruntime"
    reader: Reader  # of files, as the training images were read
    actions: Actions
    checksum: str  # SHA-256 of the file, in hex
    stamp: tuple[int, ...]  # of the file
    loaded: str  # when, ISO 8601
    reload_error: str | None = None  # why the file there now is not served

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image: (H, W) or (H, W, C)."""
        return self.backend.image_shape_in_

    @property
    def threshold(self) -> float:
        """Larger values of the map are anomalous."""
        return -float(self.backend.offset_)


def load_model(name: str, path: Path, settings: Settings) -> Model:
    """Load a model and try it; an OSError or ValueError says what is wrong."""
    stamp = stamp_of(path)
    with path.open("rb") as file:
        checksum = file_digest(file, "sha256").hexdigest()
    backend, dtype, runtime = load_backend(path, settings.device)
    if stamp_of(path) != stamp:
        raise ValueError(f"{path} changed while it was read")
    reader = reader_for(backend.image_shape_in_)
    actions = set_actions(backend, settings.warn_fpr, settings.reject_fpr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a black image is unlike the training images
        (result,) = backend.inspect(np.zeros((1, *backend.image_shape_in_), dtype))
    if not math.isfinite(result.score):
        raise ValueError(f"{path} gives the score {result.score} for a black image")
    loaded = datetime.now(UTC).isoformat(timespec="seconds")
    return Model(name, path, backend, runtime, reader, actions, checksum, stamp, loaded)


def reloaded(model: Model, settings: Settings) -> Model:
    """Return what has replaced a model in its file, or the model with the reason."""
    stamp = stamp_of(model.path)
    try:
        new = load_model(model.name, model.path, settings)
        if new.shape[2:] != model.shape[2:]:
            raise ValueError(
                f"{model.path} is for images of shape {new.shape}, and the model that "
                f"is served for {model.shape}: channels must stay, or start anew"
            )
    except Exception as error:  # whatever a broken file leads to
        return replace(model, reload_error=" ".join(str(error).split()), stamp=stamp)
    return new


def stamp_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written; () if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino
