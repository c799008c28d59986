"""Displays in the manner of scikit-learn: computed arrays in, a drawing out."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.common.checks import as_mask, check_whole
from skad.displays.drawing import edges_with_one_at, finite, outline, pyplot, two_axes
from skad.metrics.scorers import check_labels_and_scores
from skad.overlays.overlays import as_map, hottest_value, to_rgb_uint8

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AnomalyMapDisplay", "ScoreDisplay"]

# Colours that colour-blind people tell apart: M. Okabe and K. Ito, 2008.
_BLUE, _SKY_BLUE, _VERMILION = "#0072B2", "#56B4E9", "#D55E00"
_CROWDED = 0.08  # of a colour bar's length: nearer tick labels would touch


class AnomalyMapDisplay:
    """An image and its anomaly map side by side.

    The map is drawn on an absolute scale, never stretched for one image: colours run
    from 0 to twice the threshold, and further only where the map does. The constructor
    takes computed arrays; :meth:`from_estimator` computes them.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        The image. Of channels other than one or three the mean is shown.
    anomaly_map : array-like of shape (H, W)
        Its anomaly map, higher = worse.
    threshold : float
        Map values above it are anomalous.
    mask : array-like of shape (H, W), default=None
        The truth, where known: bool, or numbers, the largest being anomalous.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of shape (2,), of matplotlib Axes
        The axes of the image and of the map.
    image_, map_ : matplotlib AxesImage
        The drawn image and the drawn map.
    outline_ : matplotlib ContourSet or None
        Outline of where the map exceeds the threshold; None where it nowhere does.
    mask_outline_ : matplotlib ContourSet or None
        Outline of `mask`; None without one, or where it is empty.
    colorbar_ : matplotlib Colorbar
        The colour bar of the map.
    threshold_line_ : matplotlib Line2D
        The line at the threshold in the colour bar.

    See Also
    --------
    skad.overlays.heat_map_image : A picture without axes, and without matplotlib.

    Examples
    --------
    >>> image = np.full((3, 4), 0.5)
    >>> anomaly_map = np.zeros((3, 4))
    >>> anomaly_map[1, 2] = 1.5
    >>> display = AnomalyMapDisplay(image, anomaly_map, threshold=1.0)
    >>> display.score, display.is_anomaly
    (-1.5, True)
    >>> display.plot().map_.get_clim()
    (0.0, 2.0)
    """

    def __init__(
        self,
        image: ArrayLike,
        anomaly_map: ArrayLike,
        threshold: float,
        *,
        mask: ArrayLike | None = None,
    ):
        self.image = image
        self.anomaly_map = anomaly_map
        self.threshold = threshold
        self.mask = mask

    @classmethod
    def from_estimator(
        cls,
        detector: Any,
        image: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        ax: "Axes | NDArray | None" = None,
        cmap: str = "viridis",
    ) -> "AnomalyMapDisplay":
        """Compute the anomaly map of one image and draw it.

        Parameters
        ----------
        detector : fitted PatchAutoencoderDetector
            Anything with `anomaly_map(X)` and `pixel_threshold_`.
        image : array-like of shape (H, W) or (H, W, C)
            One image, as the detector takes it.
        mask : array-like of shape (H, W), default=None
            The truth, where known: bool, or numbers, the largest being anomalous.
        ax : matplotlib Axes, or two of them, default=None
            Where to draw; see :meth:`plot`.
        cmap : str, default="viridis"
            Colour map of the anomaly map.

        Returns
        -------
        display : AnomalyMapDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            Where `image` is not one image, shapes differ, or the map is not finite.
        ImportError
            Where matplotlib is not installed.
        """
        pixels = np.asarray(image)
        fitted = getattr(detector, "image_shape_in_", None)
        is_gray_batch = pixels.ndim == 3 and pixels.shape[1:] == fitted
        if pixels.ndim not in (2, 3) or is_gray_batch:
            raise ValueError(
                "image must be one image of shape (H, W) or (H, W, C); got "
                f"{pixels.shape}. Of a batch pass one: X[0]."
            )
        anomaly_map = detector.anomaly_map(pixels[np.newaxis])[0]
        display = cls(pixels, anomaly_map, detector.pixel_threshold_, mask=mask)
        return display.plot(ax, cmap=cmap)

    @property
    def score(self) -> float:
        """Score of the image, higher = more normal: minus the map's maximum."""
        return -float(as_map(self.anomaly_map).max())

    @property
    def is_anomaly(self) -> bool:
        """Whether the map exceeds the threshold anywhere."""
        return -self.score > finite("threshold", self.threshold)

    def plot(
        self, ax: "Axes | NDArray | None" = None, *, cmap: str = "viridis"
    ) -> "AnomalyMapDisplay":
        """Draw the image with outlines, and the map with its threshold.

        Parameters
        ----------
        ax : matplotlib Axes, or two of them, default=None
            Two Axes are drawn on, one is divided in two, and None makes a figure.
        cmap : str, default="viridis"
            Colour map of the anomaly map.

        Returns
        -------
        display : AnomalyMapDisplay
            The display itself.

        Raises
        ------
        ValueError
            Where image, map and mask differ in shape, or the map or the threshold is
            not finite.
        ImportError
            Where matplotlib is not installed.
        """
        plt = pyplot("AnomalyMapDisplay")
        rgb, values, mask = self._checked()
        self.axes_ = two_axes(plt, ax)
        self.figure_ = self.axes_[0].figure
        for axes in self.axes_:
            axes.set(xticks=[], yticks=[])

        self._draw_image(rgb, values > float(self.threshold), mask)
        self._draw_map(values, cmap)
        return self

    def _checked(self) -> tuple[NDArray, NDArray, NDArray | None]:
        finite("threshold", self.threshold)
        rgb = to_rgb_uint8(self.image)  # (H, W, 3)
        values = as_map(self.anomaly_map)
        mask = None if self.mask is None else as_mask(np.asarray(self.mask))
        for name, array in (("anomaly_map", values), ("mask", mask)):
            if array is not None and array.shape != rgb.shape[:2]:
                raise ValueError(
                    f"{name} must have the shape of the image, {rgb.shape[:2]}; got "
                    f"{array.shape}. Resize it, or pass what belongs to the image."
                )
        return rgb, values, mask

    def _draw_image(self, rgb: NDArray, found: NDArray, mask: NDArray | None) -> None:
        axes, threshold = self.axes_[0], float(self.threshold)
        verdict = "anomalous" if self.is_anomaly else "good"
        axes.set_title(f"{verdict}: peak {-self.score:.3g}, threshold {threshold:.3g}")
        self.image_ = axes.imshow(rgb)
        self.outline_ = outline(axes, found, color=_VERMILION, linestyle="solid")
        self.mask_outline_ = None
        if mask is None:
            return
        self.mask_outline_ = outline(axes, mask, color=_SKY_BLUE, linestyle="dashed")
        axes.plot([], [], color=_VERMILION, linestyle="solid", label="found")
        axes.plot([], [], color=_SKY_BLUE, linestyle="dashed", label="truth")
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False
        )

    def _draw_map(self, values: NDArray, cmap: str) -> None:
        axes, threshold = self.axes_[1], float(self.threshold)
        low = min(0.0, threshold, values.min())
        high = max(hottest_value(threshold), values.max())
        axes.set_title("anomaly map")
        self.map_ = axes.imshow(values, cmap=cmap, vmin=low, vmax=high)
        # An inset keeps the bar at the map's height in whatever axes were given.
        bar = axes.inset_axes([1.03, 0.0, 0.05, 1.0])
        self.colorbar_ = self.figure_.colorbar(self.map_, cax=bar)
        apart = _CROWDED * (high - low)
        numbers = [end for end in (low, high) if abs(end - threshold) > apart]
        self.colorbar_.set_ticks(
            [*numbers, threshold],
            labels=[*(f"{number:.3g}" for number in numbers), "threshold"],
        )
        self.threshold_line_ = bar.axhline(threshold, color=_VERMILION, linewidth=3)


class ScoreDisplay:
    """Histograms of good and of anomalous images' scores, with the threshold.

    Drawn is minus the score, as all that is anomalous: higher = worse. One edge of the
    bars is the threshold itself, so that exactly what is flagged is drawn right of it.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Scores, higher = more normal.
    y : array-like of shape (n,)
        Labels: +1 good, -1 anomalous; one of them may be missing.
    offset : float
        Scores below it are flagged.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.
    good_, anomalous_ : matplotlib BarContainer
        The bars of the two histograms.
    threshold_line_ : matplotlib Line2D
        The line at the threshold.

    Examples
    --------
    >>> display = ScoreDisplay([-0.1, -0.2, -0.9], [1, 1, -1], offset=-0.5)
    >>> [int(bar.get_height()) for bar in display.plot(bins=2).anomalous_]
    [0, 0, 1]
    """

    def __init__(self, scores: ArrayLike, y: ArrayLike, offset: float):
        self.scores = scores
        self.y = y
        self.offset = offset

    @classmethod
    def from_estimator(
        cls,
        detector: Any,
        X: Any,
        y: ArrayLike,
        *,
        ax: "Axes | None" = None,
        bins: int = 30,
    ) -> "ScoreDisplay":
        """Compute the scores of labelled images and draw them.

        Parameters
        ----------
        detector : fitted PatchAutoencoderDetector
            Anything with `score_samples(X)` and `offset_`.
        X : array-like of shape (n, H, W) or (n, H, W, C), or a sequence of images
            The images.
        y : array-like of shape (n,)
            Labels: +1 good, -1 anomalous.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        bins : int, default=30
            About how many bars span the scores.

        Returns
        -------
        display : ScoreDisplay
            The display, drawn.

        Raises
        ------
        ValueError, ImportError
            As :meth:`plot`.
        """
        scores = detector.score_samples(X)
        return cls.from_predictions(y, scores, detector.offset_, ax=ax, bins=bins)

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        scores: ArrayLike,
        offset: float,
        *,
        ax: "Axes | None" = None,
        bins: int = 30,
    ) -> "ScoreDisplay":
        """Draw scores that are there already.

        Parameters
        ----------
        y : array-like of shape (n,)
            Labels: +1 good, -1 anomalous.
        scores : array-like of shape (n,)
            Scores, higher = more normal.
        offset : float
            Scores below it are flagged.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        bins : int, default=30
            About how many bars span the scores.

        Returns
        -------
        display : ScoreDisplay
            The display, drawn.

        Raises
        ------
        ValueError, ImportError
            As :meth:`plot`.
        """
        return cls(scores, y, offset).plot(ax, bins=bins)

    def plot(self, ax: "Axes | None" = None, *, bins: int = 30) -> "ScoreDisplay":
        """Draw the two histograms and the threshold.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        bins : int, default=30
            About how many bars span the scores.

        Returns
        -------
        display : ScoreDisplay
            The display itself.

        Raises
        ------
        ValueError
            Where labels are not +1 and -1, lengths differ, a score or the offset is
            not finite, or `bins` is no whole number of at least 1.
        ImportError
            Where matplotlib is not installed.
        """
        plt = pyplot("ScoreDisplay")
        y, scores = check_labels_and_scores(self.y, self.scores)
        offset = finite("offset", self.offset)
        check_whole("bins", bins, 1)
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        edges = edges_with_one_at(offset, scores, bins)

        def bars(kind: str, chosen: NDArray, color: str, hatch: str | None):
            return ax.bar(
                -edges[:0:-1],  # not ax.hist: a score at the threshold counts as good
                np.histogram(scores[chosen], edges)[0][::-1],
                np.diff(edges)[::-1],
                align="edge",
                color=color,
                hatch=hatch,
                alpha=0.65,
                edgecolor="white",
                label=f"{kind} ({chosen.sum()})",
            )

        self.good_ = bars("good", y == 1, _BLUE, None)
        self.anomalous_ = bars("anomalous", y == -1, _VERMILION, "//")
        self.threshold_line_ = ax.axvline(
            -offset, color="black", linestyle="dashed", label="threshold"
        )
        ax.set(xlabel="anomaly score (higher = worse)", ylabel="images")
        ax.locator_params(axis="y", integer=True)
        ax.legend()
        self.ax_ = ax
        self.figure_: Any = ax.figure
        return self
