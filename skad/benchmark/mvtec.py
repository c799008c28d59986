"""Data sets in the layout of MVTec AD: categories of good and defective images."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import as_mask, has_more_than_two_values
from skad.common.warnings import warn
from skad.images.decoding import PathLike, read_image
from skad.images.finding import find_images, is_image_name
from skad.images.folder import ImageReader

_LAYOUT = "ROOT/CATEGORY/train/good, .../test/good and .../test/DEFECT"


class Category(NamedTuple):
    """The images of one category, with their labels and masks."""

    name: str
    train: NDArray  # (n_train, H, W) or (n_train, H, W, 3), all good
    test: NDArray  # (n_test, H, W) or (n_test, H, W, 3)
    y: NDArray  # (n_test,): +1 good, -1 anomalous
    kinds: NDArray  # (n_test,) of str: names of the folders, good or that of a defect
    masks: list[NDArray[np.bool_]] | None  # (H, W) each; None where one is missing
    unmasked: list[Path]  # anomalous images without a mask


def find_categories(root: PathLike, names: Iterable[str] | None = None) -> list[Path]:
    """List the categories of a data set.

    Parameters
    ----------
    root : path
        A folder of categories, or one category.
    names : iterable of str, default=None
        Those that are wanted; None means all.

    Returns
    -------
    list of pathlib.Path
        The folders that hold ``train/good`` and ``test``: those that are wanted, each
        once in this order, or all, sorted by name.

    Raises
    ------
    FileNotFoundError
        If `root` is not a folder.
    ValueError
        If there is no category in it, or one that is wanted is not.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    candidates = [root.resolve(), *sorted(root.iterdir())]
    found = [
        folder
        for folder in candidates
        if (folder / "train" / "good").is_dir() and (folder / "test").is_dir()
    ]
    if not found:
        raise ValueError(f"no category in the folder {root}: it must hold {_LAYOUT}")
    if names is None:
        return found
    named = {folder.name: folder for folder in found}
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in named]
    if unknown:
        raise ValueError(f"no category {unknown[0]!r}; there are {', '.join(named)}")
    return [named[name] for name in wanted]


def load_category(path: PathLike) -> Category:
    """Read one category into memory.

    Parameters
    ----------
    path : path
        A folder with ``train/good``, ``test/good``, ``test/DEFECT``, and the masks
        in ``ground_truth/DEFECT``, named as their image or with ``_mask`` behind.

    Returns
    -------
    category : Category
        Images as in the files; in a mask, what is above half of its largest value is
        anomalous.

    Raises
    ------
    ValueError
        If there is no test image, one cannot be read, images differ in size, or a
        mask has another size than its image.

    Warns
    -----
    UserWarning
        Where masks hold more than two values.
    """
    path = Path(path)
    reader = ImageReader()
    files = [file for file in sorted((path / "test").glob("*/*")) if _is_image(file)]
    if not files:
        raise ValueError(f"no test image in {path / 'test'}: it must hold {_LAYOUT}")
    test = reader.transform(files)  # (n_test, H, W) or (n_test, H, W, 3)
    kinds = np.array([file.parent.name for file in files])
    y = np.where(kinds == "good", 1, -1)
    masks: list[NDArray[np.bool_]] = []
    unmasked: list[Path] = []
    unclear: list[Path] = []  # masks
    for file, label in zip(files, y, strict=True):
        mask = np.zeros(test.shape[1:3], dtype=bool)
        if label == -1:
            mask_file = _find_mask(path / "ground_truth" / file.parent.name, file.stem)
            if mask_file is None:
                unmasked.append(file)
            else:
                pixels = _read_mask(mask_file, mask.shape)
                mask = as_mask(pixels)
                unclear += [mask_file] * has_more_than_two_values(pixels)
        masks.append(mask)
    if unclear:
        warn(
            f"{len(unclear)} mask(s) hold more than two values, the first is "
            f"{unclear[0]}: pixels above half of the largest value count as anomalous. "
            "Save masks with two values, as PNG and not as JPEG."
        )
    train = reader.transform(find_images(path / "train" / "good"))
    known = None if unmasked else masks
    return Category(path.name, train, test, y, kinds, known, unmasked)


def _is_image(file: Path) -> bool:
    return is_image_name(file) and file.is_file()


def _find_mask(folder: Path, stem: str) -> Path | None:
    if not folder.is_dir():
        return None
    named = {file.stem: file for file in sorted(folder.iterdir()) if _is_image(file)}
    return named.get(f"{stem}_mask", named.get(stem))


def _read_mask(file: Path, shape: tuple[int, ...]) -> NDArray:
    mask = read_image(file, gray=True)
    if mask.shape != shape:
        raise ValueError(
            f"a mask must have the size of its image, {shape[0]} x {shape[1]} (height "
            f"x width); {file} has {mask.shape[0]} x {mask.shape[1]}"
        )
    return mask


def fingerprint(path: Path) -> str:
    """Sum up the names and contents of a category's images in 16 hex digits."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*/*/*")):
        if is_image_name(file):
            digest.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0")
        if _is_image(file):
            with suppress(OSError), file.open("rb") as opened:  # the run will name it
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]
