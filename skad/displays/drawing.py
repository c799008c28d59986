"""What the displays draw with; matplotlib is loaded only when something is drawn."""

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import as_float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NO_SCREEN = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # matplotlib's


def pyplot(feature: str) -> Any:
    """Import matplotlib.pyplot; without it, say what needs it and how to install it."""
    try:
        return import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(
            f"{feature} needs matplotlib to draw, which is not installed. "
            "Install it: pip install matplotlib."
        ) from error


def show_picture(rgb: NDArray[np.uint8], title: str, *, feature: str) -> None:
    """Show a picture where there is a screen and matplotlib is installed."""
    try:
        plt = pyplot(feature)
        if plt.get_backend().lower() in _NO_SCREEN:
            return
        figure, axes = plt.subplots(layout="constrained")
    except ImportError:  # also what a backend raises that finds no screen
        return
    axes.imshow(rgb)
    axes.set(title=title, xticks=[], yticks=[])
    plt.show(block=True)
    plt.close(figure)


def finite(name: str, value: Any) -> float:
    """Return a number that can be drawn as a float."""
    if not (math.isfinite(as_float(value))):
        raise ValueError(f"{name} must be a finite number; got {value!r}.")
    return float(value)


def two_axes(plt: Any, ax: "Axes | NDArray | None") -> NDArray:
    """Two Axes in an array: new ones, the given ones, or the halves of a given one."""
    if ax is None:
        return plt.subplots(1, 2, figsize=(9, 4), layout="constrained")[1]
    given = np.ravel(np.asarray(ax, dtype=object))
    if len(given) == 1:
        given[0].set_axis_off()
        left = given[0].inset_axes([0.0, 0.0, 0.44, 1.0])
        right = given[0].inset_axes([0.47, 0.0, 0.44, 1.0])  # then the colour bar
        return np.array([left, right], dtype=object)
    if len(given) != 2:
        raise ValueError(f"ax must be one or two Axes; got {len(given)}.")
    return given


def outline(axes: Any, region: NDArray, *, color: str, linestyle: str) -> Any:
    """Draw the outline of a (H, W) bool region, closed also at the image's border."""
    if not region.any():
        return None
    height, width = region.shape
    limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
    contour = axes.contour(
        np.arange(-1, width + 1),
        np.arange(-1, height + 1),
        np.pad(region, 1).astype(np.float64),
        levels=[0.5],
        colors=color,
        linestyles=linestyle,
        linewidths=1.5,
    )
    axes.set(**limits)
    return contour


def edges_with_one_at(
    offset: float, scores: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Evenly spaced bar edges that span the scores, one of them at the offset.

    An offset that is too far away for that, by the precision of floats, counts as none.
    """
    width = (np.ptp(scores) or 1.0) / bins
    first = np.floor((scores.min() - offset) / width)
    last = np.floor((scores.max() - offset) / width) + 1
    edges = offset + width * np.arange(first, last + 1)
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        return np.linspace(scores.min(), scores.min() + bins * width, bins + 1)
    edges[0] = min(edges[0], scores.min())  # rounding must not lose the extremes
    edges[-1] = max(edges[-1], scores.max())
    return edges
