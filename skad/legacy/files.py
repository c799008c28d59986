"""Which files the calls of the old script read and write, and pictures on screen."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skad.common.files import make_room_for
from skad.common.warnings import warn
from skad.detectors.base import ImageDetector
from skad.detectors.dense import DenseAutoencoderDetector
from skad.images.decoding import PathLike
from skad.images.finding import find_images
from skad.model_io.model_file import load
from skad.network.keras import OLD_SUFFIXES, find_pair

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}


def stored_model(name: str, presets: Iterable[str]) -> ImageDetector | None:
    """Load the stored model that a name means; None: there is none, so make AD1."""
    name = os.path.expanduser(name)
    for path in (Path(name), Path(f"{name}.safetensors")):
        if path.is_file() and path.suffix not in OLD_SUFFIXES:
            return load(path)
    pair = find_pair(name)
    if pair is not None:
        return DenseAutoencoderDetector(pair[1], random_state=0).read_model()
    names, suffix = ", ".join(presets), Path(name).suffix
    if "/" in name or "\\" in name or suffix in (*OLD_SUFFIXES, ".safetensors"):
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
    suffixes = ", *".join(FORMATS)
    if not files:
        raise ValueError(f"No image in {path}: looked for *{suffixes}. Convert others.")
    if len(files) < len(found):
        n_other = len(found) - len(files)
        warn(f"left out {n_other} image files in {path}: AD reads *{suffixes}")
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
