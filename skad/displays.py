"""Displays as in scikit-learn: computed arrays in, a plot out.

Imports `explanations` and `overlays`; loads matplotlib only to draw.
"""

import math
import os
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.explanations import Explanation, explain
from skad.inspection.regions import Box, Size, scaled_box
from skad.overlays import as_map, hottest_value, read_picture, to_rgb_uint8

__all__ = ["AnomalyMapDisplay", "ExplanationDisplay"]

# Colour-blind people tell them apart: M. Okabe, K. Ito, 2008.
_VERMILION, _SKY_BLUE = "#D55E00", "#56B4E9"
_AROUND = 2  # boxes, that are shown on each side of one


class AnomalyMapDisplay:
    """Image and anomaly map side by side.

    The colours of the map run from 0 to twice the threshold, or to the map's maximum if
    that is larger. Create a display with :meth:`from_estimator`, or from computed
    arrays.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        The image, as :func:`skad.overlays.to_rgb_uint8` takes it.
    anomaly_map : array-like of shape (H, W)
        Its anomaly map, higher = more anomalous.
    threshold : float
        Pixels with larger map values are anomalous.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of two matplotlib Axes, of the image and of the map
    image_, map_ : matplotlib AxesImage
    outline_ : matplotlib ContourSet, or None where nothing is anomalous
    colorbar_ : matplotlib Colorbar
    threshold_line_ : matplotlib Line2D, in the colour bar

    Examples
    --------
    >>> display = AnomalyMapDisplay(np.ones((3, 4)), np.eye(3, 4), threshold=1.5)
    >>> display.plot().axes_[0].get_title()
    'good: peak 1, threshold 1.5'
    """

    def __init__(self, image: ArrayLike, anomaly_map: ArrayLike, threshold: float):
        self.image = image
        self.anomaly_map = anomaly_map
        self.threshold = threshold

    @classmethod
    def from_estimator(
        cls, detector, image: ArrayLike, *, ax=None
    ) -> "AnomalyMapDisplay":
        """Compute the anomaly map of one image, (H, W) or (H, W, C), and draw it.

        The detector has `anomaly_map(X)` and `pixel_threshold_`; `ax` as in `plot`.
        """
        pixels = np.asarray(image)
        anomaly_map = detector.anomaly_map(pixels[np.newaxis])[0]
        return cls(pixels, anomaly_map, detector.pixel_threshold_).plot(ax)

    def plot(self, ax=None) -> "AnomalyMapDisplay":
        """Draw the image with outlines, and the map with its threshold; return self.

        `ax` are two Axes to draw on; None creates a figure. Raises ValueError if shapes
        differ, or the map or the threshold is not finite; ImportError without
        matplotlib.
        """
        plt = _pyplot(type(self).__name__)
        threshold = _finite("threshold", self.threshold)
        rgb, values = to_rgb_uint8(self.image), as_map(self.anomaly_map)
        if values.shape != rgb.shape[:2]:
            rule = f"anomaly_map must have the shape of the image, {rgb.shape[:2]}"
            raise ValueError(f"{rule}; got {values.shape}. Resize it.")
        if ax is None:
            _, ax = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        if np.shape(ax) != (2,):
            raise ValueError(
                f"ax must be two Axes, as of plt.subplots(1, 2); got {ax}."
            )
        self.axes_ = np.asarray(ax, dtype=object)
        self.figure_ = self.axes_[0].figure
        for axes in self.axes_:
            axes.set(xticks=[], yticks=[])
        found = values > threshold
        verdict, peak = "anomalous" if found.any() else "good", values.max()
        title = f"{verdict}: peak {peak:.3g}, threshold {threshold:.3g}"
        self.axes_[0].set_title(title)
        self.image_ = self.axes_[0].imshow(rgb)
        self.axes_[0].autoscale(False)  # the outline does not move its limits
        self.outline_ = _outline(self.axes_[0], found) if found.any() else None
        self._draw_map(values, threshold)
        return self

    def _draw_map(self, values: NDArray, threshold: float) -> None:
        axes = self.axes_[1]
        low = min(0.0, threshold, values.min())
        high = max(hottest_value(threshold), values.max())
        axes.set_title("anomaly map")
        self.map_ = axes.imshow(values, cmap="viridis", vmin=low, vmax=high)
        # An inset keeps the bar at the map's height in whatever axes were given.
        bar = axes.inset_axes([1.03, 0.0, 0.05, 1.0])
        self.colorbar_ = self.figure_.colorbar(self.map_, cax=bar)
        self.threshold_line_ = bar.axhline(threshold, color=_VERMILION, linewidth=3)


class ExplanationDisplay:
    """An explanation: image and map, the evidence, and the nearest good patches.

    The upper row has the image, its anomaly map and the evidence at the peak. Below are
    the patch at the peak and the good patches that are most like it, in frames, with
    what is around them.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        The image, of its anomaly map's size.
    explanation : Explanation
        As :func:`skad.explain` returns it.
    good_images : sequence of array-like of shape (H, W) or (H, W, C)
        The images of ``explanation.nearest``.

    Attributes
    ----------
    figure_ : matplotlib Figure
    map_display_ : AnomalyMapDisplay, of the image and its map
    bars_ : matplotlib BarContainer, one bar a branch, the largest at the top
    patch_axes_ : list of matplotlib Axes
        Of the patch at the peak, then of each good one; empty without good images.
    """

    def __init__(self, image: ArrayLike, explanation: Explanation, good_images=()):
        self.image = image
        self.explanation = explanation
        self.good_images = good_images

    @classmethod
    def from_estimator(
        cls, detector, image, good=None, *, n_nearest: int = 3
    ) -> "ExplanationDisplay":
        """Explain one image, and draw it; arguments and errors as in `skad.explain`."""
        found = explain(detector, image, good, n_nearest=n_nearest)
        if isinstance(image, str | os.PathLike):
            image = read_picture(image, found.anomaly_map.shape)
        good_images = [
            np.asarray(good[one.index])
            if one.path is None
            else read_picture(one.path, one.size)
            for one in found.nearest
        ]
        return cls(image, found, good_images).plot()

    def plot(self) -> "ExplanationDisplay":
        """Draw everything in a new figure; return self.

        Raises ImportError without matplotlib.
        """
        plt, found = _pyplot(type(self).__name__), self.explanation
        n = len(self.good_images)
        self.figure_ = plt.figure(figsize=(13, 8 if n else 4), layout="constrained")
        upper, *lower = self.figure_.subfigures(1 + bool(n), 1, squeeze=False)[:, 0]
        *pair, bars = upper.subplots(1, 3)
        display = AnomalyMapDisplay(self.image, found.anomaly_map, found.threshold)
        self.map_display_ = display.plot(pair)
        names = [name.replace(" at ", "\nat ") for name in found.evidence]
        self.bars_ = bars.barh(names, list(found.evidence.values()), color=_SKY_BLUE)
        bars.bar_label(self.bars_, fmt=lambda share: f"{100 * share:.0f} %", padding=2)
        bars.invert_yaxis()
        bars.set(title="evidence at the peak", xticks=[], xmargin=0.2)
        bars.spines[["top", "right", "bottom"]].set_visible(False)
        self.patch_axes_ = list(lower[0].subplots(1, 1 + n)) if n else []
        if n and found.patch is not None:
            self._draw_patches(found.patch)
        return self

    def _draw_patches(self, patch: Box) -> None:
        found = self.explanation
        boxes = [(patch, found.size), *((one.bbox, one.size) for one in found.nearest)]
        names = [
            f"{one.path.name if one.path else f'good image {one.index}'}\n"
            f"distance {one.distance:.2g}"
            for one in found.nearest
        ]
        titles, images = ["at the peak", *names], [self.image, *self.good_images]
        each = zip(self.patch_axes_, titles, images, boxes, strict=True)
        for axes, title, pixels, (box, size) in each:
            rgb = to_rgb_uint8(pixels)
            axes.imshow(rgb)
            axes.set(xticks=[], yticks=[], title=title)
            _frame(axes, scaled_box(box, size, rgb.shape[:2]), rgb.shape[:2])


def _frame(axes: Any, box: Box, size: Size) -> None:
    """Frame a box of an image of this (height, width), and show what is around it."""
    top, left, bottom, right = box
    rectangle = import_module("matplotlib.patches").Rectangle
    corner, style = (left - 0.5, top - 0.5), {"fill": False, "edgecolor": _SKY_BLUE}
    axes.add_patch(rectangle(corner, right - left, bottom - top, lw=2, **style))
    beside = _AROUND * max(bottom - top, right - left)
    rows = min(size[0], bottom + beside) - 0.5, max(0, top - beside) - 0.5
    columns = max(0, left - beside) - 0.5, min(size[1], right + beside) - 0.5
    axes.set(xlim=columns, ylim=rows)


def _pyplot(name: str) -> Any:
    try:
        return import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(
            f"{name} needs matplotlib. Install it: pip install matplotlib."
        ) from error


def _finite(name: str, value: Any) -> float:
    if not (isinstance(value, Real) and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number; got {value!r}.")
    return float(value)


def _outline(axes: Any, region: NDArray) -> Any:
    """Draw the outline of a (H, W) bool region, closed also at the image's border."""
    height, width = region.shape
    style = {"colors": _VERMILION, "linewidths": 1.5}
    frame = (-1, width, -1, height)  # the centres of the outermost pixels
    return axes.contour(np.pad(region, 1), levels=[0.5], extent=frame, **style)
