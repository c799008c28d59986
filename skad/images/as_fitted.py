"""Read image files as the images were that a detector was fitted on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skad.images.decoding import Frame, read_frame
from skad.images.folder import ImageFolder


class AsFitted:
    """Reads files at the size of a detector's images, gray or in colour as these are.

    A ValueError says where the detector was fitted on images that no file can hold.
    """

    def __init__(self, detector: Any) -> None:
        shape = tuple(detector.image_shape_in_)
        if len(shape) < 2 or shape[2:] not in ((), (1,), (3,)):
            raise ValueError(
                f"the model was fitted on images of shape {shape}, but files are gray "
                "(height, width) or colour (height, width, 3); pass arrays in Python "
                "instead: skad.load(model).score_samples(X)"
            )
        self.size = shape[:2]
        self.channels = 3 if shape[2:] == (3,) else 1

    def read(self, path: Path) -> Frame:
        """Read a file; a ValueError names one that cannot be read."""
        return read_frame(path, self.size, self.channels)


class _ColourFolder(ImageFolder):
    """Images in colour, from gray files, too."""

    _channels = 3


def folder_as_fitted(detector: Any, files: Iterable[Path]) -> ImageFolder:
    """Return files as a detector reads them, without those that cannot be read."""
    reader = AsFitted(detector)
    if reader.channels == 3:
        return _ColourFolder(files, image_size=reader.size)
    return ImageFolder(files, image_size=reader.size, gray=True)
