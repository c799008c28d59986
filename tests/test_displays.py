"""Displays: the artists hold what came in, and nothing is computed while drawing."""

import sys

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from skad.displays import AnomalyMapDisplay, ScoreDisplay


class FakeDetector:
    """Its map is the image in units of 0 to 1."""

    pixel_threshold_ = 0.5
    offset_ = -0.5

    def anomaly_map(self, X):
        return np.asarray(X).astype(np.float32) / 255

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


def extent(outline):
    box = outline.get_paths()[0].get_extents()
    return box.x0, box.y0, box.x1, box.y1


def test_image_and_map_are_drawn_as_they_are(image):
    detector = FakeDetector()
    display = AnomalyMapDisplay.from_estimator(detector, image)
    for drawn in np.moveaxis(display.image_.get_array(), 2, 0):
        np.testing.assert_array_equal(drawn, image)
    np.testing.assert_array_equal(
        display.map_.get_array(), detector.anomaly_map(image[None])[0]
    )
    assert display.axes_.tolist() == [display.image_.axes, display.map_.axes]
    assert display.figure_ is display.axes_[0].figure
    assert display.map_.get_clim() == (0, 1)
    # Half a pixel outside the centres of rows 5 to 8 and columns 10 to 15.
    assert extent(display.outline_) == (9.5, 4.5, 15.5, 8.5)


@pytest.mark.parametrize("threshold", [-1.5, 0.0, 0.9])
def test_the_colour_bar_marks_the_threshold(image, threshold):
    display = AnomalyMapDisplay(image, image / 255, threshold).plot()
    assert set(display.threshold_line_.get_ydata()) == {threshold}
    assert display.threshold_line_.axes is display.colorbar_.ax
    low, high = display.map_.get_clim()
    assert low <= threshold < high
    beyond = AnomalyMapDisplay(np.zeros((1, 2)), [[-0.5, 7.0]], 0.5).plot()
    assert beyond.map_.get_clim() == (-0.5, 7.0)


def test_the_verdict_goes_by_the_threshold_strictly():
    values = np.array([[0.1, 0.3]], np.float32)
    peak = float(values.max())
    at = AnomalyMapDisplay(np.zeros((1, 2)), values, peak).plot()
    assert at.outline_ is None
    assert at.axes_[0].get_title() == "good: peak 0.3, threshold 0.3"
    below = np.nextafter(peak, 0)  # nearer than float32 can tell
    under = AnomalyMapDisplay(np.zeros((1, 2)), values, below).plot()
    assert under.outline_ is not None
    assert under.axes_[0].get_title().startswith("anomalous")


def test_given_axes_are_drawn_on(image):
    figure, pair = plt.subplots(1, 2)
    display = AnomalyMapDisplay.from_estimator(FakeDetector(), image, ax=pair)
    assert display.axes_.tolist() == pair.tolist()
    assert display.figure_ is figure
    _, single = plt.subplots()
    with pytest.raises(ValueError, match="ax must be two Axes, as of"):
        display.plot(single)
    assert ScoreDisplay([0.0, 0.0], [1, 1], 0.0).plot(single).ax_ is single


@pytest.mark.parametrize(("offset", "bins"), [(-1.0, 30), (-0.33, 1), (4.0, 30)])
def test_bars_right_of_the_line_are_what_is_flagged(offset, bins):
    rng = np.random.default_rng(0)
    y = np.repeat([1, -1], [60, 25])
    scores = rng.normal(size=85) - (y == -1)
    scores[3] = offset  # a tie is good
    display = ScoreDisplay.from_predictions(y, scores, offset, bins=bins)
    for label, bars in ((1, display.good_), (-1, display.anomalous_)):
        heights = np.array([bar.get_height() for bar in bars])
        right = [bar.get_x() + bar.get_width() / 2 > -offset for bar in bars]
        assert heights[right].sum() == (scores[y == label] < offset).sum()
        assert heights.sum() == (y == label).sum()
    assert set(display.threshold_line_.get_xdata()) == {-offset}


def test_scores_come_from_the_detector_and_are_explained(image):
    X = np.stack([image, image // 8, image // 4])
    display = ScoreDisplay.from_estimator(FakeDetector(), X, [-1, 1, 1])
    assert display.scores.tolist() == pytest.approx([-200 / 255, -25 / 255, -50 / 255])
    assert display.offset == -0.5
    assert display.ax_.get_xlabel() == "anomaly score (higher = worse)"
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert sorted(texts) == ["anomalous (1)", "good (2)", "threshold"]
    assert display.figure_ is display.ax_.figure


IMAGE = np.zeros((20, 30))


@pytest.mark.parametrize(
    ("display", "message"),
    [
        (AnomalyMapDisplay(IMAGE, IMAGE.T, 0.5), r"anomaly_map .*\(20, 30\); got"),
        (AnomalyMapDisplay(IMAGE, IMAGE + np.nan, 1.0), "holds nan"),
        (AnomalyMapDisplay(IMAGE, IMAGE, np.inf), "threshold must be"),
        (ScoreDisplay([0.0], [1], np.nan), "offset must be a finite"),
        (ScoreDisplay([0.0], [0], 0.5), r"\+1 \(good\).*np\.where"),
    ],
)
def test_wrong_arguments_are_named(display, message):
    with pytest.raises(ValueError, match=message):
        display.plot()
    assert plt.get_fignums() == []


def test_whole_bins_are_asked_for():
    with pytest.raises(ValueError, match="bins must be an int"):
        ScoreDisplay([0.0], [1], 0.5).plot(bins=0)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, image):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    displays = AnomalyMapDisplay(image, image, 0.5), ScoreDisplay([0.0], [1], 0.5)
    for display in displays:
        name = type(display).__name__
        with pytest.raises(ImportError, match=f"{name}.*pip install matplotlib"):
            display.plot()
