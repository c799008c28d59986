"""Which files the calls of the old script read, and where their pictures go."""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skad.common.files import make_room_for, write_atomically
from skad.common.warnings import warn
from skad.images.decoding import PathLike
from skad.images.finding import find_images
from skad.network.keras import OLD_SUFFIXES, Pair, find_pair

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}


def find_stored_model(name: str, presets: Iterable[str]) -> Path | Pair | None:
    """Find the model file that a name means; None where it can only be a new model."""
    name = os.path.expanduser(name)
    for path in (Path(name), Path(f"{name}.safetensors")):
        if path.is_file() and path.suffix not in OLD_SUFFIXES:
            return path
    pair = find_pair(name)
    if pair is not None:
        return pair
    names = ", ".join(presets)
    if (
        "/" in name
        or "\\" in name
        or Path(name).suffix in (*OLD_SUFFIXES, ".safetensors")
    ):
        raise FileNotFoundError(
            f"No stored model: looked for {name} and {name}.safetensors, and for the "
            "old script's two files, .json and .h5. To make a new model, give one of "
            f"the names {names}."
        )
    warning = f"Unknown model name {name!r}, neither one of {names} nor a stored model"
    warn(f"{warning}: using AD1.")
    return None


def image_files(path: PathLike) -> list[Path]:
    """List the images of a folder that the old script read, or one file."""
    found = find_images(path)
    files = [file for file in found if file.suffix.lower() in _FORMATS]
    kinds = ", *".join(_FORMATS)
    if not files:
        raise ValueError(f"No image in {path}: looked for *{kinds}. Convert others.")
    others = [file.name for file in found if file.suffix.lower() not in _FORMATS]
    if others:
        names = ", ".join(others[:5]) + ", ..." * (len(others) > 5)
        warn(f"left out {len(others)} image file(s), {names}: AD reads only *{kinds}")
    return files


def output_folder(save_path: PathLike, images: list[Path]) -> Path:
    """Make the folder for the pictures of some images, which is not theirs."""
    folder = make_room_for(Path(save_path) / images[0].name).parent
    originals = {os.path.realpath(image) for image in images}
    pictures = {os.path.realpath(folder / image.name) for image in images}
    apart = originals.isdisjoint(pictures) and not folder.samefile(images[0].parent)
    if not apart:
        raise ValueError(
            "save_path must not be the folder of the images, links followed: they "
            f"would be overwritten; got {str(folder)!r}."
        )
    return folder


def write_picture(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture in the format that its suffix names."""
    kind, content = _FORMATS[path.suffix.lower()], io.BytesIO()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {"compress_level": 1}}
    Image.fromarray(picture).save(content, kind, **options.get(kind, {}))
    write_atomically(path, content.getvalue())
