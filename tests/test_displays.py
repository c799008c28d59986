"""Displays: the artists hold what came in, and nothing is computed while drawing."""

import sys

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from skad.displays import AnomalyMapDisplay


class FakeDetector:
    """Its map is the image in units of 0 to 1."""

    pixel_threshold_ = 0.5

    def anomaly_map(self, X):
        return np.asarray(X).astype(np.float32) / 255


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


IMAGE = np.zeros((20, 30))


@pytest.mark.parametrize(
    ("display", "message"),
    [
        (AnomalyMapDisplay(IMAGE, IMAGE.T, 0.5), r"anomaly_map .*\(20, 30\); got"),
        (AnomalyMapDisplay(IMAGE, IMAGE + np.nan, 1.0), "holds nan"),
        (AnomalyMapDisplay(IMAGE, IMAGE, np.inf), "threshold must be"),
    ],
)
def test_wrong_arguments_are_named(display, message):
    with pytest.raises(ValueError, match=message):
        display.plot()
    assert plt.get_fignums() == []


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, image):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"Display needs .*pip install"):
        AnomalyMapDisplay(image, image, 0.5).plot()
