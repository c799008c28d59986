"""What a report says, as a plain dict of numbers, texts and data URIs."""

import heapq
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.bars import bar
from skad.common.checks import check_whole
from skad.inspection.verdict import InspectionResult
from skad.report.explaining import add_explanations
from skad.report.pictures import map_picture, thumbnail, thumbnail_size
from skad.report.reading import Item, as_source, inspect_each, paths_of
from skad.report.rendering import printable
from skad.threshold.conformal import promise_in_words

_MAX_REGIONS = 1000  # in the table of a report
_MAX_REGIONS_OF_IMAGE = 20

Report = dict[str, Any]
Image = dict[str, Any]  # what a report says of one
Key = tuple[bool, bool, float, int]  # the larger, the rather a picture is kept
Heap = list[tuple[Key, Image]]


def collect(
    detector: Any,
    images: Any,
    y: Any = None,
    *,
    max_pictures: int,
    n_to_mark: int,
    n_to_explain: int,
    good: Any,
    random_state: int | None,
    verbose: int = 0,
) -> Report:
    """Inspect images, and collect what a report says of them.

    Every image counts; pictures are kept of a random sample to mark, then of the
    anomalous images, the worst first, then of a random sample of the others.
    """
    threshold = _check_threshold(detector)
    _check_numbers(max_pictures, n_to_mark, n_to_explain)
    source = as_source(images)
    labels = _check_labels(y, len(source))
    ranks = np.random.default_rng(random_state).permutation(len(source))
    items = inspect_each(detector, source)
    base = _common_folder(map(str, paths_of(source)))
    scored: list[tuple[float, int]] = []  # anomaly score and label of each image
    unreadable: list[dict[str, str]] = []
    kept: Heap = []
    with bar(total=len(source), unit="image", shown=bool(verbose)) as progress:
        for i, (item, label, rank) in enumerate(
            zip(items, labels.tolist(), ranks.tolist(), strict=True)
        ):
            name, to_mark = _name(item, i, base), rank < n_to_mark
            try:
                result = _result(item)
                order = -result.score if result.is_anomaly else -rank
                key = (to_mark, result.is_anomaly, order, -i)
                make = partial(_image, item, result, name, label, to_mark)
                _keep(kept, max_pictures, key, make)
                scored.append((-result.score, label))
            except (OSError, ValueError) as error:
                unreadable.append({"name": name, "reason": printable(str(error))})
            progress.update()
    if not scored:
        raise ValueError(f"no image can be read; the first: {unreadable[0]['reason']}")
    kept.sort(key=lambda pair: -pair[1]["score"])
    pictured = [image for _, image in kept]
    worst = [(key[-1], one) for key, one in kept if one["verdict"] == "anomalous"]
    to_explain = [(one["path"] or source[-i], one) for i, one in worst[:n_to_explain]]
    add_explanations(detector, to_explain, good)
    n_anomalous = sum(score > threshold for score, _ in scored)
    return {
        "threshold": threshold,
        "promise": promise_in_words(detector),
        "holds": not detector.is_cross_fitted_,  # no rate is promised of such scores
        "calibration": (-detector.calibration_scores_[::-1]).tolist(),
        "scored": scored,
        "has_labels": bool(labels.any()),
        "n_anomalous": n_anomalous,
        "n_not_shown": n_anomalous - sum(one["score"] > threshold for one in pictured),
        "images": pictured,
        "regions": _regions(pictured),
        "n_regions": sum(image["n_regions"] for image in pictured),
        "unreadable": unreadable,
    }


def _check_threshold(detector: Any) -> float:
    threshold = detector.pixel_threshold_  # raises where there is none
    if not np.isfinite(threshold):
        raise ValueError(f"offset_ must be finite; got {detector.offset_}.")
    return threshold


def _check_numbers(max_pictures: int, n_to_mark: int, n_to_explain: int) -> None:
    check_whole("max_pictures", max_pictures, 1)
    check_whole("n_to_mark", n_to_mark, 0)
    check_whole("n_to_explain", n_to_explain, 0)
    if n_to_mark > max_pictures:
        raise ValueError(
            f"max_pictures must be at least n_to_mark, {n_to_mark}; got "
            f"{max_pictures}. Raise it, or lower n_to_mark."
        )


def _keep(heap: Heap, most: int, key: Key, make: Callable[[], Image]) -> None:
    """Make an image and keep it, unless as many with larger keys are kept."""
    if len(heap) < most:
        heapq.heappush(heap, (key, make()))
    elif key > heap[0][0]:
        heapq.heapreplace(heap, (key, make()))


def _result(item: Item) -> InspectionResult:
    if isinstance(item.result, Exception):
        raise item.result
    return item.result


def _image(
    item: Item, result: InspectionResult, name: str, label: int, to_mark: bool
) -> Image:
    """Return what the gallery shows of an image."""
    rgb = item.draw(thumbnail_size(item.size))
    return {
        "name": name,
        "path": item.path,
        "thumbnail": thumbnail(rgb),
        "height": rgb.shape[0],
        "width": rgb.shape[1],
        "map": map_picture(result.anomaly_map),
        "score": -result.score,
        "p_value": result.p_value,
        "verdict": result.verdict,
        "label": label,
        "to_mark": to_mark,
        "n_regions": len(result.regions),
        "regions": [r._asdict() for r in result.regions[:_MAX_REGIONS_OF_IMAGE]],
        "notes": "",  # further text about this image
        "nearest": "",  # a picture of the nearest good image
    }


def _regions(images: list[Image]) -> list[dict[str, Any]]:
    """List the regions of all pictures, the highest peaks first."""
    found = [
        region | {"name": image["name"], "place": place}
        for place, image in enumerate(images)
        for region in image["regions"]
    ]
    return heapq.nlargest(_MAX_REGIONS, found, key=lambda region: region["peak"])


def _check_labels(y: Any, n: int) -> NDArray[np.int_]:
    labels = np.zeros(n, int) if y is None else np.asarray(y)
    known = set(map(str, labels.ravel().tolist())) <= {"1", "-1", "0"}
    if labels.shape != (n,) or not known:
        raise ValueError(
            "y must hold +1 (good), -1 (anomalous) or 0 (no label), one for each of "
            f"the {n} images; got shape {labels.shape} with the values "
            f"{sorted(set(map(str, labels.ravel().tolist())))[:9]}."
        )
    return labels.astype(int)


def _common_folder(paths: Iterable[str]) -> str:
    folders = {os.path.dirname(path) for path in paths}
    try:
        return os.path.commonpath(folders)
    except ValueError:  # there is none
        return ""


def _name(item: Item, i: int, base: str) -> str:
    """Return a short name to show."""
    if not item.path:
        return f"image {i}"
    return printable(os.path.relpath(item.path, base) if base else item.path)
