"""Displays: the artists hold what came in, and nothing is computed while drawing."""

import sys

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba

from skad.displays import AnomalyMapDisplay, ScoreDisplay


class FakeDetector:
    """Its map is the image in units of 0 to 1, and it counts what it is asked."""

    pixel_threshold_ = 0.5
    offset_ = -0.5

    def __init__(self):
        self.calls = 0

    def anomaly_map(self, X):
        self.calls += 1
        X = np.asarray(X)
        return (X if X.ndim == 3 else X.mean(axis=3)).astype(np.float32) / 255

    def score_samples(self, X):
        return -self.anomaly_map(X).max(axis=(1, 2)).astype(np.float64)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def image():
    pixels = np.full((20, 30), 40, np.uint8)
    pixels[5:9, 10:16] = 200
    return pixels


def test_image_and_map_are_drawn_as_they_are(image):
    display = AnomalyMapDisplay.from_estimator(FakeDetector(), image)
    for channel in range(3):
        drawn = display.image_.get_array()[:, :, channel]
        np.testing.assert_array_equal(drawn, image)
    np.testing.assert_array_equal(
        display.map_.get_array(), FakeDetector().anomaly_map(image[None])[0]
    )
    assert display.axes_.shape == (2,)
    assert display.image_.axes is display.axes_[0]
    assert display.map_.axes is display.axes_[1]
    assert display.figure_ is display.axes_[0].figure


def test_two_images_share_their_colour_limits(image):
    one = AnomalyMapDisplay.from_estimator(FakeDetector(), image)
    other = AnomalyMapDisplay.from_estimator(FakeDetector(), image // 8)
    assert one.map_.get_clim() == other.map_.get_clim() == (0, 1)


def test_limits_widen_for_a_map_beyond_them():
    values = np.array([[-0.5, 7.0]])
    display = AnomalyMapDisplay(np.zeros((1, 2)), values, 0.5).plot()
    assert display.map_.get_clim() == (-0.5, 7.0)


@pytest.mark.parametrize("threshold", [-1.5, 0.0, 0.25, 0.9])
def test_the_colour_bar_marks_the_threshold(image, threshold):
    display = AnomalyMapDisplay(image, image / 255, threshold).plot()
    assert set(display.threshold_line_.get_ydata()) == {threshold}
    assert display.threshold_line_.axes is display.colorbar_.ax
    axis = display.colorbar_.ax.yaxis
    labels = [label.get_text() for label in axis.get_ticklabels()]
    assert axis.get_ticklocs()[labels.index("threshold")] == threshold
    low, high = display.map_.get_clim()
    assert low <= threshold < high


def test_the_outline_follows_the_mask(image):
    display = AnomalyMapDisplay.from_estimator(FakeDetector(), image)
    (outline,) = display.outline_.get_paths()
    box = outline.get_extents()
    # Half a pixel outside the centres of rows 5 to 8 and columns 10 to 15.
    assert (box.x0, box.y0, box.x1, box.y1) == (9.5, 4.5, 15.5, 8.5)
    assert display.mask_outline_ is None
    assert display.axes_[0].get_legend() is None


def test_outlines_stay_within_the_image_and_close_at_its_border():
    display = AnomalyMapDisplay(np.zeros((4, 6)), np.ones((4, 6)), 0.5).plot()
    box = display.outline_.get_paths()[0].get_extents()
    assert (box.x0, box.y0, box.x1, box.y1) == (-0.5, -0.5, 5.5, 3.5)
    assert display.axes_[0].get_xlim() == (-0.5, 5.5)
    assert display.axes_[0].get_ylim() == (3.5, -0.5)


def test_the_true_mask_has_its_own_colour_and_line(image):
    mask = np.zeros(image.shape, np.uint8)
    mask[2:4, 2:4] = 255
    display = AnomalyMapDisplay.from_estimator(FakeDetector(), image, mask=mask)
    box = display.mask_outline_.get_paths()[0].get_extents()
    assert (box.x0, box.y0, box.x1, box.y1) == (1.5, 1.5, 3.5, 3.5)
    found, truth = display.axes_[0].get_legend().get_lines()
    assert found.get_linestyle() != truth.get_linestyle()
    for line, outline in (
        (found, display.outline_),
        (truth, display.mask_outline_),
    ):
        np.testing.assert_allclose(
            outline.get_edgecolor()[0], to_rgba(line.get_color())
        )


def test_the_verdict_goes_by_the_threshold_strictly():
    values = np.array([[0.1, 0.3]], np.float32)
    peak = float(values.max())
    at = AnomalyMapDisplay(np.zeros((1, 2)), values, peak).plot()
    assert not at.is_anomaly
    assert at.outline_ is None
    assert at.axes_[0].get_title() == "good: peak 0.3, threshold 0.3"
    below = np.nextafter(peak, 0)  # nearer than float32 can tell
    under = AnomalyMapDisplay(np.zeros((1, 2)), values, below).plot()
    assert under.is_anomaly
    assert under.outline_ is not None
    assert under.axes_[0].get_title().startswith("anomalous")
    assert under.score == -peak


def test_sixteen_bits_floats_and_many_channels_are_scaled_for_the_eye(image):
    deep = AnomalyMapDisplay(image.astype(np.uint16) * 257, image, 99).plot()
    np.testing.assert_array_equal(deep.image_.get_array()[..., 0], image)
    unit = AnomalyMapDisplay(image / 255, image, 99).plot()
    np.testing.assert_array_equal(unit.image_.get_array()[..., 0], image)
    many = np.stack([image, image, image, image, image], axis=2)
    display = AnomalyMapDisplay.from_estimator(FakeDetector(), many)
    np.testing.assert_array_equal(display.image_.get_array()[..., 0], image)


def test_given_axes_are_drawn_on(image):
    figure, pair = plt.subplots(1, 2)
    display = AnomalyMapDisplay.from_estimator(FakeDetector(), image, ax=pair)
    assert display.axes_.tolist() == pair.tolist()
    assert display.figure_ is figure
    figure, single = plt.subplots()
    display = AnomalyMapDisplay.from_estimator(FakeDetector(), image, ax=single)
    assert display.figure_ is figure
    assert display.axes_.tolist() == single.child_axes
    figure.canvas.draw()
    with pytest.raises(ValueError, match="one or two Axes; got 3"):
        display.plot(plt.subplots(1, 3)[1])


def test_drawing_again_asks_the_detector_nothing(image):
    detector = FakeDetector()
    AnomalyMapDisplay.from_estimator(detector, image).plot(cmap="cividis")
    assert detector.calls == 1
    ScoreDisplay.from_estimator(detector, image[None], [1]).plot()
    assert detector.calls == 2


def test_bad_images_and_masks_are_named(image):
    with pytest.raises(ValueError, match=r"one image.*\(1, 20, 30, 1\).*X\[0\]"):
        AnomalyMapDisplay.from_estimator(FakeDetector(), image[None, ..., None])
    with pytest.raises(
        ValueError, match=r"mask must have .*\(20, 30\); got \(30, 20\)"
    ):
        AnomalyMapDisplay(image, image, 0.5, mask=image.T).plot()
    with pytest.raises(ValueError, match="anomaly_map must have the shape"):
        AnomalyMapDisplay(image, image.T, 0.5).plot()


def test_a_batch_of_gray_images_is_not_taken_for_one_image(image):
    detector = FakeDetector()
    detector.image_shape_in_ = image.shape
    with pytest.raises(ValueError, match=r"one image.*\(3, 20, 30\).*X\[0\]"):
        AnomalyMapDisplay.from_estimator(detector, np.stack([image] * 3))
    assert detector.calls == 0
    AnomalyMapDisplay.from_estimator(detector, image)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_drawn(image, value):
    display = AnomalyMapDisplay(image, np.where(image > 40, value, 0.0), 1.0)
    for ask in (display.plot, lambda: display.score, lambda: display.is_anomaly):
        with pytest.raises(ValueError, match=f"anomaly_map must be .* holds {value}"):
            ask()
    display = AnomalyMapDisplay(image, image, value)
    for ask in (display.plot, lambda: display.is_anomaly):
        with pytest.raises(ValueError, match=f"threshold must be .* got {value}"):
            ask()
    with pytest.raises(ValueError, match=f"offset must be a finite .* got {value}"):
        ScoreDisplay([0.0, 1.0], [1, -1], value).plot()
    assert plt.get_fignums() == []


def heights(bars):
    return np.array([bar.get_height() for bar in bars])


@pytest.mark.parametrize("offset", [-9.0, -1.0, -0.33, 0.0, 4.0])
@pytest.mark.parametrize("bins", [1, 7, 30])
def test_bars_right_of_the_line_are_what_is_flagged(offset, bins):
    rng = np.random.default_rng(0)
    y = np.repeat([1, -1], [60, 25])
    scores = rng.normal(size=85) - (y == -1)
    scores[3] = offset  # a tie is good
    display = ScoreDisplay.from_predictions(y, scores, offset, bins=bins)
    for label, bars in ((1, display.good_), (-1, display.anomalous_)):
        right = np.array([bar.get_x() + bar.get_width() / 2 > -offset for bar in bars])
        assert heights(bars)[right].sum() == (scores[y == label] < offset).sum()
        assert heights(bars).sum() == (y == label).sum()
    assert set(display.threshold_line_.get_xdata()) == {-offset}


def test_scores_come_from_the_detector_and_are_explained(image):
    X = np.stack([image, image // 8, image // 4])
    display = ScoreDisplay.from_estimator(FakeDetector(), X, [-1, 1, 1])
    assert display.scores.tolist() == pytest.approx([-200 / 255, -25 / 255, -50 / 255])
    assert display.offset == -0.5
    assert display.ax_.get_xlabel() == "anomaly score (higher = worse)"
    assert display.ax_.get_ylabel() == "images"
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert sorted(texts) == ["anomalous (1)", "good (2)", "threshold"]
    assert display.figure_ is display.ax_.figure


def test_scores_can_be_drawn_where_the_caller_says():
    _, ax = plt.subplots()
    assert ScoreDisplay([0.0, 0.0], [1, 1], 0.0).plot(ax).ax_ is ax


def test_bad_labels_and_bins_are_refused():
    with pytest.raises(ValueError, match=r"labels \+1 \(good\).*np\.where"):
        ScoreDisplay.from_predictions([0, 1], [0.0, 1.0], 0.5)
    for bins in (0, None, "a", 2.5):
        with pytest.raises(ValueError, match="bins must be an int of at least 1"):
            ScoreDisplay([0.0], [1], 0.5).plot(bins=bins)
    with pytest.raises(ValueError, match="offset must be a finite number; got None"):
        ScoreDisplay([0.0], [1], None).plot()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, image):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"AnomalyMapDisplay.*pip install matplotlib"):
        AnomalyMapDisplay(image, image, 0.5).plot()
    with pytest.raises(ImportError, match=r"ScoreDisplay.*pip install matplotlib"):
        ScoreDisplay([0.0], [1], 0.5).plot()
