"""The state of an unfinished training in a file, to go on from after a stop."""

import io
import os
import time
from contextlib import suppress
from typing import Any, Protocol

import joblib
import torch

from skad._files import make_room_for, write_atomically
from skad._warnings import warn

_SECONDS = 30.0  # from one writing to the next


class Part(Protocol):
    """What changes in training, as torch's modules and optimizers do."""

    def state_dict(self) -> dict[str, Any]:
        """Return all of it that changes: tensors, numbers, str, and lists of them."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Become as it was when the state was taken."""


class OtherTrainingError(ValueError):
    """A checkpoint is of another training."""


class Checkpoint:
    """A file that follows a training.

    Parameters
    ----------
    path : path
        Written now and then; what it holds of the same training is gone on from.
    training : object
        All that decides what the training comes to: joblib must be able to hash it.

    Raises
    ------
    OSError
        If the file cannot be read, or written.
    ValueError
        If it holds something else, or another training.
    """

    def __init__(self, path: str | os.PathLike[str], training: Any) -> None:
        self._path = make_room_for(path)
        self._key = joblib.hash(training)
        self._parts: dict[str, Part] = {}
        self._found = self._read() if self._path.exists() else {}
        self._written = time.monotonic()

    def follow(self, **parts: Part) -> None:
        """Keep these parts, too; bring them to what the file has of them."""
        for name, part in parts.items():
            if name in self._found:
                part.load_state_dict(self._found.pop(name))
        self._parts |= parts

    def keep(self) -> None:
        """Write the parts down, unless that was done half a minute ago or less."""
        if time.monotonic() - self._written < _SECONDS:
            return
        states = {name: part.state_dict() for name, part in self._parts.items()}
        content = io.BytesIO()
        torch.save({"training": self._key, **states}, content)
        try:
            write_atomically(self._path, content.getvalue())
        except OSError as error:  # training is worth more
            warn(
                f"the unfinished training could not be written to {self._path}: "
                f"{error.strerror or error}; it goes on",
            )
        self._written = time.monotonic()

    def remove(self) -> None:
        """Delete the file: the training has come to its end."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        content = io.BytesIO(self._path.read_bytes())
        try:
            found = torch.load(content, "cpu", weights_only=True)  # runs no code
            key = found.pop("training")
        except Exception as error:  # of many kinds, for what is no such file
            raise ValueError(
                f"{self._path} holds no unfinished training of skad; name another file "
                "as checkpoint, or move this one away"
            ) from error
        if key != self._key:
            raise OtherTrainingError(
                f"{self._path} holds the unfinished training of other images, of other "
                "parameters or of another version of skad; to go on with that one, "
                "give the same again; to start anew, delete the file"
            )
        return found
