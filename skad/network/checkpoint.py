"""The state of an unfinished training in a file, to resume from after a stop."""

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch

from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.common.warnings import warn

_SECONDS = 30.0  # from one write to the next
_MAGIC = b"skad unfinished training 3\n"  # then a SHA-256 of the rest, and the rest
_START = len(_MAGIC) + sha256().digest_size


class OtherTrainingError(ValueError):
    """A checkpoint is of another training."""


class HeldCheckpoint(NamedTuple):
    """A checkpoint's path in a block of `hold`."""

    path: Path


@contextmanager
def hold(
    checkpoint: str | os.PathLike[str] | HeldCheckpoint,
) -> Iterator[HeldCheckpoint]:
    """Lock a checkpoint and, after the block, delete it; a held one stays as it is."""
    if isinstance(checkpoint, HeldCheckpoint):
        yield checkpoint
        return
    path = make_room_for(checkpoint)
    with locked(path):
        yield HeldCheckpoint(path)
        with suppress(OSError):
            forget(path)


def forget(path: str | os.PathLike[str]) -> None:
    """Delete an unfinished training, if there is one."""
    path = Path(os.path.expanduser(path))
    path.unlink(missing_ok=True)
    _previous(path).unlink(missing_ok=True)


class Checkpoint:
    """A file that follows a training; the file before it is kept as "….previous".

    The parameters and digests are what determines the result of the training, named as
    users know it. `found` is the state to resume from, `found_at` the file that it is
    from, if any. Raises OtherTrainingError if that is of another training, a ValueError
    if it is damaged or something else, an OSError if it cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        parameters: Mapping[str, Any],
        digests: Mapping[str, str | None],
    ) -> None:
        self._path = path
        self._training = {"parameters": dict(parameters), "digests": dict(digests)}
        self.found_at: Path | None = None
        self.found = self._find()
        self._written = time.monotonic()

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state, unless the last write was just now."""
        if time.monotonic() - self._written < _SECONDS:
            return
        buffer = io.BytesIO()
        torch.save({"training": self._training, **state()}, buffer)
        content = buffer.getvalue()
        try:
            if self._path.exists():
                self._path.replace(_previous(self._path))
            write_atomically(self._path, _MAGIC + sha256(content).digest() + content)
        except OSError as error:  # training is worth more
            warn(
                f"the unfinished training could not be written to {self._path}: "
                f"{error.strerror or error}; training continues"
            )
        self._written = time.monotonic()

    def _find(self) -> dict[str, Any]:
        """Return the newest state that is not damaged, if there is one."""
        damaged = []
        for path in filter(Path.exists, (self._path, _previous(self._path))):
            content = path.read_bytes()
            if content[:_START] != _MAGIC + sha256(content[_START:]).digest():
                damaged.append(
                    f"{path} is damaged, or no unfinished training of this version of "
                    "skad"
                )
                continue
            found = torch.load(io.BytesIO(content[_START:]), "cpu", weights_only=True)
            if difference := _difference(found["training"], self._training):
                raise OtherTrainingError(
                    f"{path} holds an unfinished training {difference}. To resume "
                    "that one, give the same again; to start over, delete the file "
                    "(skad fit does so with --restart)."
                )
            if damaged:
                warn(f"{damaged[0]}; training resumes from the file before it, {path}")
            self.found_at = path
            return found
        if damaged:
            raise ValueError(
                f"{damaged[0]}; delete it to start over, or name another checkpoint"
            )
        return {}


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Tell how a stored training differs from this one; "" if it is the same."""

    def names(what: str) -> list[str]:
        return [n for n, value in here[what].items() if there[what].get(n) != value]

    if differing := names("parameters"):
        was, now = (
            ", ".join(
                f"{name}={training['parameters'].get(name)}" for name in differing
            )
            for training in (there, here)
        )
        return f"with {was}; this call has {now}"
    differing = names("digests")
    return f"with other {', '.join(differing)}" if differing else ""


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")
