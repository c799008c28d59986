"""Which files the calls of the old script read and write, and pictures on screen."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skad.common.files import make_room_for
from skad.common.warnings import warn
from skad.images.decoding import PathLike
from skad.images.finding import find_images
from skad.network.keras import OLD_SUFFIXES, Pair, find_pair

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}

# Backends of matplotlib that draw only into files.
_NO_SCREEN = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def find_stored_model(name: str, presets: Iterable[str]) -> Path | Pair | None:
    """Find the stored model that a name means; None makes a new one, AD1."""
    name = os.path.expanduser(name)
    for path in (Path(name), Path(f"{name}.safetensors")):
        if path.is_file() and path.suffix not in OLD_SUFFIXES:
            return path
    pair = find_pair(name)
    if pair is not None:
        return pair
    names = ", ".join(presets)
    suffixes = (*OLD_SUFFIXES, ".safetensors")
    if "/" in name or "\\" in name or Path(name).suffix in suffixes:
        raise FileNotFoundError(
            f"No stored model: looked for {name} and {name}.safetensors, and for the "
            f"old script's .json and .h5. For a new model, use a name: {names}."
        )
    warn(f"Unknown model name {name!r}, not one of {names}: using AD1.")
    return None


def image_files(path: PathLike) -> list[Path]:
    """List the images of a folder that the old script read, or one file."""
    found = find_images(path)
    files = [file for file in found if file.suffix.lower() in FORMATS]
    kinds = ", *".join(FORMATS)
    if not files:
        raise ValueError(f"No image in {path}: looked for *{kinds}. Convert others.")
    if len(files) < len(found):
        others = [file.name for file in found if file not in files]
        warn(f"left out {len(others)} image files, as {others[0]}: AD reads *{kinds}")
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


def show_picture(rgb: NDArray[np.uint8], title: str) -> None:
    """Show a picture where there is a screen and matplotlib is installed."""
    try:
        import matplotlib.pyplot as plt

        if plt.get_backend().lower() in _NO_SCREEN:
            return
        figure, axes = plt.subplots(layout="constrained")
    except ImportError:  # also what a backend raises that finds no screen
        return
    axes.imshow(rgb)
    axes.set(title=title, xticks=[], yticks=[])
    plt.show(block=True)
    plt.close(figure)
