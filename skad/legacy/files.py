"""Which files the calls of the old script read and write, and pictures on screen."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skad.common.files import make_room_for
from skad.common.warnings import warn
from skad.images.decoding import PathLike
from skad.images.finding import find_images

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}


def image_files(path: PathLike) -> list[Path]:
    """List the images of a folder that the old script read, or one file."""
    found = find_images(path)
    files = [file for file in found if file.suffix.lower() in FORMATS]
    suffixes = ", *".join(FORMATS)
    if not files:
        raise ValueError(f"No image in {path}: looked for *{suffixes}. Convert others.")
    if len(files) < len(found):
        other = next(file.name for file in found if file not in files)
        n = len(found) - len(files)
        warn(f"left out {n} image files, as {other}: AD reads *{suffixes}")
    return files


def output_folder(save_path: PathLike, images: list[Path]) -> Path:
    """Make the folder for the pictures; refuse it if they would replace the images."""
    folder = make_room_for(Path(save_path) / images[0].name).parent
    originals = {os.path.realpath(image) for image in images}
    pictures = {os.path.realpath(folder / image.name) for image in images}
    if originals & pictures:
        raise ValueError(
            "save_path must not be the folder of the images, links followed: they "
            f"would be overwritten; got {str(folder)!r}."
        )
    return folder


def show(rgb: NDArray[np.uint8], title: str) -> None:
    """Show a picture where there is a screen and matplotlib is installed."""
    try:
        import matplotlib.pyplot as plt

        if plt.get_backend().lower() == "agg":
            return  # where there is no screen, matplotlib draws into files
        figure, axes = plt.subplots(layout="constrained")
    except ImportError:  # also what a backend raises that finds no screen
        return
    axes.imshow(rgb)
    axes.set(title=title, xticks=[], yticks=[])
    plt.show(block=True)
    plt.close(figure)
