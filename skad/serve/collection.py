"""Original image files that people have marked, in folders for the next training."""

import io
import re
from collections import OrderedDict
from pathlib import Path, PurePath
from threading import Lock
from typing import NamedTuple

from PIL import Image

from skad.common.files import write_atomically
from skad.images.pillow import FORMATS
from skad.serve.errors import Refused
from skad.serve.schema import Verdict

LABELS = ("good", "bad")
_MOST = 256_000_000  # bytes of files in memory
_LONGEST = 60  # characters of a name that a client has sent


class Original(NamedTuple):
    """A file as it came, and what was said about it."""

    data: bytes
    verdict: Verdict


class Collection:
    """The last files, and those of them that are marked.

    A marked file goes into `folder`/good or `folder`/bad; with several models, into
    such folders of each.
    """

    def __init__(self, folder: Path, models: list[str], most_files: int) -> None:
        several = len(models) > 1
        self._folders = {name: folder / name if several else folder for name in models}
        for parent in self._folders.values():
            for label in LABELS:
                (parent / label).mkdir(parents=True, exist_ok=True)
        self._most_files = most_files
        self._originals: OrderedDict[str, Original] = OrderedDict()  # by id
        self._size = 0  # bytes
        self._marked: dict[str, Path] = {}  # by id
        self._lock = Lock()  # of marks

    def keep(self, original: Original) -> None:
        """Keep a file in memory for a while, so that it can be marked."""
        self._originals[original.verdict.id] = original
        self._size += len(original.data)
        while len(self._originals) > self._most_files or self._size > _MOST:
            _, oldest = self._originals.popitem(last=False)
            self._size -= len(oldest.data)

    def original(self, id: str) -> Original:
        """Return a file that is kept."""
        if id not in self._originals:
            raise Refused(404, "the file of this image is no longer kept")
        return self._originals[id]

    def mark(self, original: Original, label: str) -> Path:
        """Write a file into the folder of a label, and take it out of the other."""
        verdict = original.verdict
        path = self._folders[verdict.model] / label / _name_of(original)
        with self._lock:
            before = self._marked.get(verdict.id, path)
            try:
                write_atomically(path, original.data)
                if before != path:
                    before.unlink(missing_ok=True)
            except OSError as error:
                raise Refused(503, f"{path}: {error.strerror}") from None
            self._marked[verdict.id] = path
        return path

    def unmark(self, id: str) -> None:
        """Remove the file of a mark."""
        with self._lock:
            path = self._marked.get(id)
            if path is None:
                raise Refused(
                    404, "this image has no mark from this run of the service"
                )
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise Refused(503, f"{path}: {error.strerror}") from None
            del self._marked[id]


def _name_of(original: Original) -> str:
    """Return a name that is safe in any folder, and its own: time, id, source."""
    verdict = original.verdict
    stem = PurePath(verdict.source or "").stem
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", stem)[:_LONGEST].strip("_")
    time = re.sub(r"\D", "", verdict.time[:19])
    kind = Image.open(io.BytesIO(original.data), formats=FORMATS).format or "png"
    parts = [time, verdict.id, safe] if safe else [time, verdict.id]
    return f"{'-'.join(parts)}.{kind.lower()}"
