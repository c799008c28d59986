"""Image files, read as the images were that a detector was fitted on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.images.decoding import Frame, as_colour, read_frame
from skad.images.finding import is_shape_of_files


class AsFitted:
    """Reads files: gray or colour, resized to the images of a detector.

    Parameters
    ----------
    detector : fitted detector of skad's

    Raises
    ------
    ValueError
        If it was fitted on images that cannot come from files.
    """

    def __init__(self, detector: Any) -> None:
        shape = tuple(detector.image_shape_in_)
        if not is_shape_of_files(shape):
            raise ValueError(
                f"the model was fitted on images of shape {shape}, but files are gray "
                "(height, width) or colour (height, width, 3); pass arrays in Python "
                "instead: skad.load(model).score_samples(X)"
            )
        self.size = shape[:2]
        self._colour = shape[2:] == (3,)

    def read(self, path: Path) -> Frame:
        """Read a file; a ValueError names one that cannot be read."""
        frame = read_frame(path, self.size, gray=not self._colour)
        return frame._replace(image=as_colour(frame.image)) if self._colour else frame


class FilesAsFitted:
    """Files as a lazy sequence of images; those that cannot be read are left out.

    Parameters
    ----------
    detector : fitted detector of skad's
    files : iterable of pathlib.Path

    Attributes
    ----------
    paths : list of pathlib.Path
        Those that can be read.

    Raises
    ------
    ValueError
        If none can be read, or the detector's images cannot come from files.

    Warns
    -----
    UserWarning
        Where files are left out.
    """

    def __init__(self, detector: Any, files: Iterable[Path]) -> None:
        self._reader = AsFitted(detector)
        self.paths: list[Path] = []
        reasons: list[str] = []
        for path in files:
            try:
                self._reader.read(path)
                self.paths.append(path)
            except (OSError, ValueError) as error:
                reasons.append(str(error))
        if not self.paths:
            raise ValueError(f"no image can be read; the first: {reasons[0]}")
        if reasons:
            n = len(reasons) + len(self.paths)
            warn(f"{len(reasons)} of {n} files are left out; the first: {reasons[0]}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> NDArray:
        """Return an image, (H, W) or (H, W, 3)."""
        return self._reader.read(self.paths[i]).image
