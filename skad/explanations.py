"""Why an image has its score: the evidence at the peak, and good patches like it.

Imports `detectors` and what is below.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import check_whole
from skad.images.finding import find_images
from skad.images.folder import as_fitted, folder_as_fitted
from skad.images.inputs import as_image
from skad.inspection.regions import Box, Size, scaled_box
from skad.scoring.anomaly_map import AnomalyMapper
from skad.scoring.evidence import evidence_at_peak, nearest_patches, patch_at

__all__ = ["Explanation", "GoodPatch", "explain", "explain_images"]

_MOST_NAMED = 3  # branches, in the sentence …
_LEAST = 0.1  # … with at least this share


@dataclass(frozen=True, slots=True)
class GoodPatch:
    """The patch of a good image that is most like the one at the peak.

    `index` is the image's place among the good ones, and `path` its file, None for
    arrays. `distance`, >= 0, is between features; 0 means equal. `bbox` is (row_min,
    col_min, row_max, col_max), half-open, in pixels of the file or the array, whose
    (height, width) is `size`.
    """

    index: int
    path: Path | None
    distance: float
    bbox: Box
    size: Size


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """Why an image has its score; ``str(explanation)`` says it in plain words.

    `score` is minus the peak of the `anomaly_map`; `threshold` is the detector's
    `pixel_threshold_`. `peak` is (row, column), `patch` the box around it that is
    compared with good images, None where the detector has no features to compare, and
    `region` the box of the anomalous region with the peak, None where the image is
    good. Boxes are (row_min, col_min, row_max, col_max), half-open; all are in pixels
    of the image as given, whose (height, width) is `size`.

    `evidence` maps the branches to their shares of the map at the peak, which add up to
    1, largest first; NaN where the map is 0. `branch_scores` maps them to their
    calibrated scores there, >= 0; ``exp(-score)`` is about the share of good
    pixels that reach one. `nearest` are patches of good images, nearest first.
    """

    score: float
    threshold: float
    peak: tuple[int, int]
    patch: Box | None
    region: Box | None
    evidence: dict[str, float]
    branch_scores: dict[str, float]
    nearest: list[GoodPatch]
    size: Size
    anomaly_map: NDArray[np.float32] = field(repr=False)

    def __str__(self) -> str:
        """Say it in plain words."""
        row, column = self.peak
        text = f"Peak {-self.score:.3g} (threshold {self.threshold:.3g})"
        text += f" at row {row}, column {column}."
        (first, share), *others = self.evidence.items()
        if not math.isnan(share):
            text += f" {100 * share:.0f} % of it comes from the {first}"
            named = [pair for pair in others[: _MOST_NAMED - 1] if pair[1] >= _LEAST]
            text += "".join(f", {100 * part:.0f} % from the {k}" for k, part in named)
            text += "."
        for patch in self.nearest[:1]:
            name = patch.path or f"good image {patch.index}"
            at = f"row {patch.bbox[0]}, column {patch.bbox[1]}"
            text += f" The closest good patch is in {name}, from {at}."
        return text


def explain(
    detector: Any, image: Any, good: Any = None, *, n_nearest: int = 3
) -> Explanation:
    """Explain the score of one image, and find good patches like the one at its peak.

    The anomaly map joins its branches so that ``log(1 + map)`` is a sum: of each branch
    the weighted ``log(1 + calibrated score)``, and what the image as a whole adds. The
    share of a branch is its part of this sum at the peak.

    Patches are compared by features from the detector, at any place in the good images:
    those of its pretrained encoder or, without one, of its network at stride 8.

    Parameters
    ----------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        Fitted. The second has one branch, its reconstruction error.
    image : array-like of shape (H, W) or (H, W, C), or path
        One image, as the detector takes them, or its file.
    good : array-like of shape (n, H, W) or (n, H, W, C), ImageFolder or path, \
default=None
        Good images to search, such as those that it was fitted on, or their folder. A
        model holds no images. None: none are searched.
    n_nearest : int, default=3
        Number of good images to return the nearest patch of, at least 1.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        If there is not one image, if it or the good ones are unlike those of `fit` or
        not finite, if there are no good images, or if `good` is given for a detector
        that has no features of patches.
    NotFittedError
        If the detector is not fitted, or has no threshold yet.
    FileNotFoundError
        If a path does not exist.

    Examples
    --------
    >>> import skad
    >>> good = np.random.default_rng(0).integers(90, 110, (70, 32, 32), dtype=np.uint8)
    >>> detector = skad.PatchAutoencoderDetector(8, epochs=15, random_state=0).fit(good)
    >>> bad = good[7].copy()
    >>> bad[10:16, 20:26] = 250
    >>> explanation = skad.explain(detector, bad, good)
    >>> max(explanation.evidence, key=explanation.evidence.get)
    'segmentation decoder'
    >>> [patch.distance > 0 for patch in explanation.nearest]
    [True, True, True]
    """
    return explain_images(detector, [image], good, n_nearest=n_nearest)[0]


def explain_images(
    detector: Any, images: Iterable[Any], good: Any = None, *, n_nearest: int = 3
) -> list[Explanation]:
    """Explain several images as `explain` does one; good images are searched once."""
    check_whole("n_nearest", n_nearest, 1)
    if good is not None and not isinstance(detector.fitted.mapper, AnomalyMapper):
        raise ValueError(
            f"good must be None: a {type(detector).__name__} has no features that "
            "patches could be compared by. Leave it out."
        )
    found = [_explain(detector, image) for image in images]
    if good is None or not found:
        return [explanation for explanation, _ in found]
    nearest = _search(detector, [features for _, features in found], good)
    return [
        replace(explanation, nearest=patches[:n_nearest])
        for (explanation, _), patches in zip(found, nearest, strict=True)
    ]


def _explain(detector: Any, image: Any) -> tuple[Explanation, Any]:
    """Explain an image, and return the features of the patch at its peak."""
    pixels, size = _one_image(detector, image)
    X = pixels[np.newaxis]
    fitted, images = detector._check_images(X)
    mapper, batch = fitted.mapper, images.take(np.arange(1))
    (result,) = detector.inspect(X)
    of_map = result.anomaly_map.shape
    size = size or of_map
    at, parts, scores = evidence_at_peak(mapper, batch)
    total = sum(parts.values())
    shares = {k: part / total if total > 0 else math.nan for k, part in parts.items()}
    row, column = (
        int((place + 0.5) * side / of_mapper)
        for place, side, of_mapper in zip(at, size, batch.shape[1:3], strict=True)
    )
    features = patch = None
    if isinstance(mapper, AnomalyMapper):
        features, box = patch_at(mapper, batch, at)
        patch = scaled_box(box, mapper.preparation.working_size, size)
    explanation = Explanation(
        score=result.score,
        threshold=detector.pixel_threshold_,
        peak=(row, column),
        patch=patch,
        region=next((scaled_box(r.bbox, of_map, size) for r in result.regions), None),
        evidence=dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        branch_scores=scores,
        nearest=[],
        size=size,
        anomaly_map=result.anomaly_map,
    )
    return explanation, features


def _one_image(detector: Any, image: Any) -> tuple[NDArray, Size | None]:
    """Return an image as an array and, of a file, its size."""
    if isinstance(image, str | os.PathLike):
        frame = as_fitted(detector).read(image)
        return frame.image, frame.size
    pixels, shape = as_image(image, 0), detector.image_shape_in_
    n_axes = [len(s) - (s[2:] == (1,)) for s in (pixels.shape, shape)]
    if n_axes[0] != n_axes[1]:
        raise ValueError(
            f"image must be one image, of shape {shape} as those of the fit, or the "
            f"path of its file; got shape {pixels.shape}. Pass X[0] of several images."
        )
    return pixels, None


def _search(detector: Any, features: Sequence[Any], good: Any) -> list[list[GoodPatch]]:
    """Return, for each of some features, the nearest patch of each good image."""
    if isinstance(good, str | os.PathLike):
        good = folder_as_fitted(detector, find_images(good))
    try:
        fitted, images = detector._check_images(good)
        found = list(nearest_patches(fitted.mapper, features, images))
    except ValueError as error:
        raise ValueError(f"good: {error}") from error
    n, same = len(found), images.format.image_shape
    paths = getattr(good, "paths", n * [None])
    sizes = getattr(good, "frame_sizes", images.given_shapes or n * [same])
    working = fitted.mapper.preparation.working_size
    patches = [
        [
            GoodPatch(i, path, distance, scaled_box(box, working, size[:2]), size[:2])
            for distance, box in of_image
        ]
        for i, (path, of_image, size) in enumerate(
            zip(paths, found, sizes, strict=True)
        )
    ]
    by_distance = attrgetter("distance")
    return [sorted(each, key=by_distance) for each in zip(*patches, strict=True)]
