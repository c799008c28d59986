"""A display as in scikit-learn: computed arrays in, a plot out.

Imports `overlays`; loads matplotlib only to draw.
"""

import math
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.overlays import as_map, hottest_value, to_rgb_uint8

__all__ = ["AnomalyMapDisplay"]

_VERMILION = "#D55E00"  # colour-blind people tell it apart: M. Okabe, K. Ito, 2008


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
        plt = _pyplot()
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


def _pyplot() -> Any:
    try:
        return import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(
            "AnomalyMapDisplay needs matplotlib. Install it: pip install matplotlib."
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
