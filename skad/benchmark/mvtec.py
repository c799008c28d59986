"""Data sets in the layout of MVTec AD: categories of good and defective images."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skad.common.checks import as_mask
from skad.common.warnings import warn
from skad.images.decoding import PathLike, read_image, reader_of
from skad.images.finding import find_images, is_image_name
from skad.images.folder import survey_files
from skad.images.resizing import Size

_LAYOUT = "ROOT/CATEGORY/train/good, .../test/good and .../test/DEFECT"


class Category(NamedTuple):
    """The images of one category, with their labels and masks.

    Attributes
    ----------
    name : str
    train : ndarray of shape (n_train, H, W[, C])
        Good images.
    test : ndarray of shape (n_test, H, W[, C])
    y : ndarray of shape (n_test,)
        Labels of the test images: +1 good, -1 anomalous.
    kinds : ndarray of str of shape (n_test,)
        "good", or the name of the defect.
    masks : list of n_test bool arrays of shape (H, W), or None
        True where the image is defective. None if an anomalous image has no mask.
    """

    name: str
    train: NDArray
    test: NDArray
    y: NDArray
    kinds: NDArray
    masks: list[NDArray[np.bool_]] | None


def find_categories(root: PathLike, names: Iterable[str] | None = None) -> list[Path]:
    """List the categories in a folder, or the folder itself if it is one.

    `names` are those wanted, in this order; None = all. Raises FileNotFoundError if
    there is no such folder, and ValueError if it holds none, or not one of a name.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    found = {
        folder.name: folder
        for folder in [root.resolve(), *sorted(root.iterdir())]
        if (folder / "train" / "good").is_dir() and (folder / "test").is_dir()
    }
    if not found:
        raise ValueError(f"no category in the folder {root}: it must hold {_LAYOUT}")
    wanted = list(found if names is None else dict.fromkeys(names))
    for name in wanted:
        if name not in found:
            raise ValueError(f"no category {name!r}; there are {', '.join(found)}")
    return [found[name] for name in wanted]


def load_category(path: PathLike, image_size: int | Size | None = None) -> Category:
    """Read the images and masks of a category.

    `path` is a folder with ``train/good``, ``test/good`` and ``test/DEFECT``. Masks are
    in ``ground_truth/DEFECT``, named like their image, or with ``_mask`` appended. A
    warning names the first anomalous image that has none.

    Images of several sizes are resized to `image_size`, an int or (height, width), and
    masks by nearest neighbour; images of one size stay as they are. Raises ValueError
    if there is no test image, a file cannot be read, a mask has another size than its
    image, or sizes differ and `image_size` is None.
    """
    path = Path(path)
    files = [file for file in sorted((path / "test").glob("*/*")) if _is_image(file)]
    if not files:
        raise ValueError(f"no test image in {path / 'test'}: it must hold {_LAYOUT}")
    good = find_images(path / "train" / "good")
    reader, all_files = reader_of(image_size, False), [*good, *files]
    survey = survey_files(all_files, reader, keep=True, strict=True)
    if image_size is not None and len(set(survey.sizes)) == 1:
        survey = survey_files(all_files, reader_of(None, False), keep=True, strict=True)
    sizes = dict(zip(survey.paths, survey.sizes, strict=True))
    height, width = survey.images.shape[1:3]
    kinds = np.array([file.parent.name for file in files])
    masks, unmasked = [], []
    for file, kind in zip(files, kinds, strict=True):
        mask_file = _mask_of(file, path)
        mask = np.zeros((height, width), dtype=bool)
        if mask_file is not None:
            mask = _read_mask(mask_file, sizes[file], (height, width))
        elif kind != "good":
            unmasked.append(file)
        masks.append(mask)
    if unmasked:
        warn(
            f"no pixel metrics: {len(unmasked)} anomalous image(s) have no mask in "
            f"ground_truth, the first is {unmasked[0]}"
        )
    return Category(
        path.name,
        survey.images[: len(good)],
        survey.images[len(good) :],
        np.where(kinds == "good", 1, -1),
        kinds,
        None if unmasked else masks,
    )


def fingerprint(path: Path) -> str:
    """Sum up the names and contents of a category's images in 16 hex digits."""
    digest = hashlib.sha256()
    for file in filter(_is_image, sorted(path.glob("*/*/*"))):
        digest.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _is_image(file: Path) -> bool:
    return is_image_name(file) and file.is_file()


def _mask_of(file: Path, category: Path) -> Path | None:
    folder = category / "ground_truth" / file.parent.name
    named = {found.stem: found for found in folder.glob("*") if _is_image(found)}
    return named.get(f"{file.stem}_mask", named.get(file.stem))


def _read_mask(file: Path, frame: Size, size: Size) -> NDArray[np.bool_]:
    """Read the mask of an image file of this (height, width) at another size."""
    mask = as_mask(read_image(file, gray=True))
    if mask.shape != frame:
        raise ValueError(
            f"a mask must have the size of its image, {frame[0]} x {frame[1]}; {file} "
            f"has {mask.shape[0]} x {mask.shape[1]}"
        )
    return np.asarray(
        Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
    )
