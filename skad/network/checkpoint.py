"""The state of an unfinished training in a file, to resume from after a stop."""

import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch

from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.common.warnings import warn

_SECONDS = 30.0  # from one write to the next
_MAGIC = b"skad unfinished training 2\n"  # then a SHA-256 of the rest, and the rest


class OtherTrainingError(ValueError):
    """A checkpoint is of another training; `reason` says what differs."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}. To go on with that one, give the same again; to start anew, "
            "delete the file (skad fit does so with --restart)."
        )
        self.reason = reason


class Checkpoint:
    """A file that follows a training; the file before it is kept as "….previous".

    The parameters and digests are what determines the result of the training, named as
    users know it. `found_at` is the file that it resumes from, if any. Raises
    OtherTrainingError where that is of another training, a ValueError where it is
    damaged or something else, an OSError where it cannot be read or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parameters: Mapping[str, Any],
        digests: Mapping[str, str | None],
    ) -> None:
        self._path = make_room_for(path)
        self._training = {"parameters": dict(parameters), "digests": dict(digests)}
        self._parts: dict[str, Any] = {}
        self.found_at: Path | None = None
        self._found = self._find()
        self._written = time.monotonic()

    def follow(self, **parts: Any) -> None:
        """Save these parts, too, which have a `state_dict`; restore them if found."""
        self._parts |= parts
        if self._found is not None:
            for name, part in parts.items():
                part.load_state_dict(self._found[name])

    def save(self) -> None:
        """Write the parts to the file, unless the last write was just now."""
        if time.monotonic() - self._written < _SECONDS:
            return
        states = {name: part.state_dict() for name, part in self._parts.items()}
        buffer = io.BytesIO()
        torch.save({"training": self._training, **states}, buffer)
        content = buffer.getvalue()
        try:
            if self._path.exists():
                self._path.replace(_previous(self._path))
            write_atomically(self._path, _MAGIC + sha256(content).digest() + content)
        except OSError as error:  # training is worth more
            warn(
                f"the unfinished training could not be written to {self._path}: "
                f"{error.strerror or error}; it goes on",
            )
        self._written = time.monotonic()

    def _find(self) -> dict[str, Any] | None:
        """Return the newest state that is not damaged, if there is one."""
        damage: ValueError | None = None
        for path in (self._path, _previous(self._path)):
            if not path.exists():
                continue
            try:
                found = _read(path)
            except ValueError as error:
                damage = damage or error
                continue
            self.found_at = path
            self._check_same(found["training"])
            if damage is not None:
                warn(f"{damage}. Training resumes from the file before it, {path}")
            return found
        if damage is not None:
            raise damage
        return None

    def _check_same(self, training: dict[str, dict[str, Any]]) -> None:
        """Raise OtherTrainingError, and name what differs."""
        there, here = training["parameters"], self._training["parameters"]
        names = [name for name in there | here if there.get(name) != here.get(name)]
        was, now = (
            ", ".join(f"{name}={values.get(name)}" for name in names)
            for values in (there, here)
        )
        what = f"with {was}; this call has {now}"
        if not names:
            there, here = training["digests"], self._training["digests"]
            names = [name for name in there | here if there.get(name) != here.get(name)]
            what = f"with other {', '.join(names)}"
        if names:
            raise OtherTrainingError(
                f"{self.found_at} holds an unfinished training {what}"
            )


class HeldCheckpoint(NamedTuple):
    """A checkpoint's path in a block of `hold`."""

    path: Path


@contextmanager
def hold(
    checkpoint: str | os.PathLike[str] | HeldCheckpoint | None,
) -> Iterator[HeldCheckpoint | None]:
    """Lock a checkpoint; delete it at the end of the block, unless that fails.

    What is held already is left to the block around.
    """
    if checkpoint is None or isinstance(checkpoint, HeldCheckpoint):
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


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _read(path: Path) -> dict[str, Any]:
    """Return what a file holds; ValueError where it is damaged or something else."""
    content = path.read_bytes()
    start = len(_MAGIC) + sha256().digest_size
    digest = sha256(content[start:]).digest()
    if content[:start] != _MAGIC + digest:
        raise ValueError(
            f"{path} holds no unfinished training that this version of skad can read, "
            "or a damaged one; delete it to start anew, or name another file as "
            "checkpoint"
        )
    return torch.load(io.BytesIO(content[start:]), "cpu", weights_only=True)
