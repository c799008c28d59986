"""The state of an unfinished training in a file, to go on from after a stop."""

import io
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch

from skad.common.files import make_room_for, write_atomically
from skad.common.warnings import warn

_SECONDS = 30.0  # from one writing to the next
_MAGIC = b"skad unfinished training 2\n"  # then a SHA-256 of the rest, and the rest


class Part(Protocol):
    """What changes in training, as torch's modules and optimizers do."""

    def state_dict(self) -> dict[str, Any]:
        """Return all of it that changes: tensors, numbers, str, and lists of them."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Become as it was when the state was taken."""


class OtherTrainingError(ValueError):
    """A checkpoint is of another training.

    Attributes
    ----------
    reason : str
        What the other one has and this one has not.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}. To go on with that one, give the same again; to start anew, "
            "delete the file (skad fit does so with --restart)."
        )
        self.reason = reason


class Checkpoint:
    """A file that follows a training.

    The file before it is kept beside it, under a name that ends in ".previous": it is
    gone on from, with a warning, where the newest one is damaged.

    Parameters
    ----------
    path : path
        Written now and then; what it holds of the same training is gone on from.
    parameters : mapping of str to plain values
        What decides what the training comes to, as people know it.
    digests : mapping of str to str or None
        And what is too large for that, by names that people know.

    Attributes
    ----------
    found_at : pathlib.Path or None
        The file that the training goes on from.

    Raises
    ------
    OSError
        If the file cannot be read, or written.
    OtherTrainingError
        If it holds another training.
    ValueError
        If it holds something else, or is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parameters: Mapping[str, Any],
        digests: Mapping[str, str | None],
    ) -> None:
        self._path = make_room_for(path)
        self._training = {"parameters": dict(parameters), "digests": dict(digests)}
        self._parts: dict[str, Part] = {}
        self.found_at: Path | None = None
        self._content: bytes | None = None  # of the newest file that is whole
        self._found = self._find() if self._path.exists() else None
        self._written = time.monotonic()

    def follow(self, **parts: Part) -> None:
        """Keep these parts, too; bring them to what the file has of them."""
        self._parts |= parts
        if self._found is None:
            return
        for name, part in parts.items():
            try:
                part.load_state_dict(self._found[name])
            except Exception as error:  # of many kinds, for what does not fit
                raise ValueError(
                    f"{self.found_at} has no {name} of this training, though it says "
                    "so; delete the file to start anew"
                ) from error

    def keep(self) -> None:
        """Write the parts down, unless that was done half a minute ago or less."""
        if time.monotonic() - self._written < _SECONDS:
            return
        states = {name: part.state_dict() for name, part in self._parts.items()}
        state = io.BytesIO()
        torch.save({"training": self._training, **states}, state)
        content = _MAGIC + sha256(state.getvalue()).digest() + state.getvalue()
        try:
            if self._content is not None:
                write_atomically(_previous(self._path), self._content)
            write_atomically(self._path, content)
            self._content = content
        except OSError as error:  # training is worth more
            warn(
                f"the unfinished training could not be written to {self._path}: "
                f"{error.strerror or error}; it goes on",
            )
        self._written = time.monotonic()

    def remove(self) -> None:
        """Delete the files: the training has come to its end."""
        with suppress(OSError):
            forget(self._path)

    def _find(self) -> dict[str, Any]:
        """Return the newest state that is whole; raise where it is of another."""
        try:
            found, self._content = _read(self._path)
            self.found_at = self._path
        except ValueError as damage:
            self.found_at = _previous(self._path)
            try:
                found, self._content = _read(self.found_at)
            except (OSError, ValueError):
                raise damage from None
            self._check_same(found["training"])
            warn(f"{damage}. Training goes on from the file before it, {self.found_at}")
        self._check_same(found["training"])
        return found

    def _check_same(self, training: dict[str, dict[str, Any]]) -> None:
        """Raise OtherTrainingError, and name what differs."""
        if training == self._training:
            return
        there, here = training["parameters"], self._training["parameters"]
        names = [name for name in there | here if there.get(name) != here.get(name)]
        if names:
            was = ", ".join(f"{name}={there.get(name)}" for name in names)
            now = ", ".join(f"{name}={here.get(name)}" for name in names)
            what = f"with {was}; this call has {now}"
        else:
            there, here = training["digests"], self._training["digests"]
            names = [name for name in there | here if there.get(name) != here.get(name)]
            what = f"with other {names[0]}"
        raise OtherTrainingError(f"{self.found_at} holds an unfinished training {what}")


def forget(path: str | os.PathLike[str]) -> None:
    """Delete an unfinished training, if there is one."""
    path = Path(os.path.expanduser(path))
    path.unlink(missing_ok=True)
    _previous(path).unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return what a file holds, and its bytes; ValueError where it is not whole."""
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        raise ValueError(
            f"{path} holds no unfinished training that this version of skad can read; "
            "name another file as checkpoint, or move this one away"
        )
    start = len(_MAGIC) + sha256().digest_size
    try:
        if sha256(content[start:]).digest() != content[len(_MAGIC) : start]:
            raise ValueError("its checksum is another")
        found = torch.load(io.BytesIO(content[start:]), "cpu", weights_only=True)
        training = found["training"]
        found["training"] = {k: dict(training[k]) for k in ("parameters", "digests")}
    except Exception as error:  # of many kinds, for what is forged
        raise ValueError(
            f"{path} holds an unfinished training that is damaged ({error}); delete "
            "the file to start anew"
        ) from error
    return found, content
