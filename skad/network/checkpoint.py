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
_MAGIC = b"skad unfinished training 5\n"  # then a SHA-256 of the rest, and the rest


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
            path.unlink(missing_ok=True)


class Checkpoint:
    """A file that follows a training.

    `training` is what determines the result of the training, named as users know it.
    `found` is the state to resume from, empty if there is no file. Raises a ValueError
    if that is of another training, damaged or something else, an OSError if it cannot
    be read.
    """

    def __init__(self, path: Path, training: Mapping[str, Any]) -> None:
        self.path = path
        self._training = dict(training)
        self.found = self._find() if path.exists() else {}
        self._written = time.monotonic()

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state, unless the last write was just now."""
        if time.monotonic() - self._written < _SECONDS:
            return
        buffer = io.BytesIO()
        torch.save({"training": self._training, **state()}, buffer)
        content = buffer.getvalue()
        try:
            write_atomically(self.path, _MAGIC + sha256(content).digest() + content)
        except OSError as error:  # training is worth more
            warn(f"{error}: training continues, and cannot be resumed from there")
        self._written = time.monotonic()

    def _find(self) -> dict[str, Any]:
        content = self.path.read_bytes()
        start = len(_MAGIC) + sha256().digest_size
        if content[:start] != _MAGIC + sha256(content[start:]).digest():
            raise ValueError(
                f"{self.path} is damaged, or no unfinished training of this version of "
                "skad; delete it to start over, or name another checkpoint"
            )
        found = torch.load(io.BytesIO(content[start:]), "cpu", weights_only=True)
        there, here = found["training"], self._training
        for name, value in here.items():
            if there.get(name) != value:
                raise ValueError(
                    f"{self.path} holds an unfinished training with {name}="
                    f"{there.get(name)}; this call has {name}={value}. To resume that "
                    "one, give the same again; to start over, delete the file."
                )
        return found
