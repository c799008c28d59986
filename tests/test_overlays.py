"""Overlays: what they paint, where they paint, and where they must not."""

import numpy as np
import pytest
from skimage.transform import resize

from skad.overlays import strips as _map_strips
from skad.overlays.overlays import (
    VERMILION,
    boxes_image,
    heat_map_image,
    hottest_value,
    to_rgb_uint8,
)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),
        (np.array([[0, 257 * 7, 65535]], np.uint16), [0, 7, 255]),
        (np.array([[0, 257 * 7, 65535]], ">u2"), [0, 7, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0.0, 0.25, 1.0]], np.float32), [0, 64, 255]),
        (np.array([[-10.0, 0.0, 10.0]]), [0, 128, 255]),
        (np.array([[100, 300]]), [0, 255]),
        (np.full((1, 2), 42.0), [0, 0]),
    ],
)
def test_every_number_kind_becomes_gray_from_0_to_255(image, expected):
    rgb = to_rgb_uint8(image)
    assert rgb.dtype == np.uint8
    assert rgb.shape == (*image.shape, 3)
    for channel in range(3):
        np.testing.assert_array_equal(rgb[0, :, channel], expected)


def test_channels_are_shown_as_colours_or_as_their_mean():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb_uint8(colour), colour)
    np.testing.assert_array_equal(
        to_rgb_uint8(colour[:, :, :1]), to_rgb_uint8(colour[:, :, 0])
    )
    five = np.stack([np.full((2, 2), v, np.uint8) for v in (0, 10, 20, 30, 40)], axis=2)
    assert (to_rgb_uint8(five) == 20).all()


def test_a_given_range_holds_for_every_image():
    dark, bright = np.array([[0.0, 100.0]]), np.array([[0.0, 4000.0]])
    assert to_rgb_uint8(dark, value_range=(0, 4000)).max() == 6
    assert to_rgb_uint8(bright, value_range=(0, 2000)).max() == 255


def test_the_result_is_always_a_new_array():
    image = np.zeros((3, 3, 3), np.uint8)
    to_rgb_uint8(image)[:] = 9
    heat_map_image(image, np.ones((3, 3)), 0.5)
    boxes_image(image, [(0, 0, 3, 3)])
    assert (image == 0).all()


def test_images_that_cannot_be_shown_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 3\).*images\[0\]"):
        to_rgb_uint8(np.zeros((2, 3, 4, 3)))
    with pytest.raises(ValueError, match="finite numbers"):
        to_rgb_uint8(np.array([[np.nan]]))


@pytest.mark.parametrize(
    "value_range", [(1, 1), 5, (1,), (), ("a", "b"), (0, np.nan), (-np.inf, 0)]
)
def test_a_range_is_two_rising_numbers(value_range):
    with pytest.raises(ValueError, match=r"value_range must be \(low, high\)"):
        to_rgb_uint8(np.zeros((2, 2)), value_range=value_range)


def test_heat_lies_exactly_where_the_map_is_over_the_threshold():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (30, 40), dtype=np.uint8)
    anomaly_map = rng.random((30, 40), dtype=np.float32)
    anomaly_map[3, 3] = threshold = 0.75
    changed = (heat_map_image(image, anomaly_map, threshold) != image[..., None]).any(2)
    np.testing.assert_array_equal(changed, anomaly_map > threshold)


def test_heat_is_on_one_absolute_scale():
    image = np.zeros((1, 4), np.uint8)
    first = heat_map_image(image, [[0.0, 1.2, 1.5, 2.0]], 1.0, opacity=1)[0]
    second = heat_map_image(image, [[1.2, 50.0, 2.0, 0.9]], 1.0, opacity=1)[0]
    np.testing.assert_array_equal(second[0], first[1])
    np.testing.assert_array_equal(second[1], first[3])  # saturated at twice
    lightness = first[1:].sum(axis=1)
    assert (np.diff(lightness.astype(int)) > 0).all()


@pytest.mark.parametrize("size", [(64, 80), (30, 41), (16, 20), (8, 9), (3, 40)])
@pytest.mark.parametrize("strip", [2**20, 100])
def test_a_map_of_another_size_keeps_its_verdict(monkeypatch, size, strip):
    monkeypatch.setattr(_map_strips, "_PIXELS", strip)
    anomaly_map = np.full((16, 20), 0.3, np.float32)
    image = np.full(size, 90, np.uint8)
    for place in [(0, 0), (7, 12), (15, 19)]:
        anomaly_map[place] = np.nextafter(np.float32(0.3), np.float32(1))
        rgb = heat_map_image(image, anomaly_map, float(np.float32(0.3)))
        hot = np.argwhere((rgb != 90).any(axis=2))
        centre = (np.array(place) + 0.5) * size / anomaly_map.shape
        assert len(hot)
        assert (abs(hot + 0.5 - centre) <= 0.5 + np.divide(size, (16, 20))).all()
        anomaly_map[place] = 0.3
        rgb = heat_map_image(image, anomaly_map, float(np.float32(0.3)))
        assert (rgb == 90).all()


def test_a_map_of_another_size_is_resized_smoothly():
    anomaly_map = np.outer(np.hanning(16), np.hanning(20)).astype(np.float32)
    larger = resize(anomaly_map, (160, 200), order=1, mode="edge")
    rgb = heat_map_image(np.zeros((160, 200), np.uint8), anomaly_map, 0.5)
    hot = rgb.any(axis=2)
    assert (hot != (larger > 0.5)).mean() < 0.001


@pytest.mark.parametrize("outline", [1, 3])
def test_the_outline_is_around_the_heat(outline):
    anomaly_map = np.zeros((40, 50))
    anomaly_map[10:20, 30:50] = 2.0
    image = np.full((40, 50), 90, np.uint8)
    bare = heat_map_image(image, anomaly_map, 1.0)
    rgb = heat_map_image(image, anomaly_map, 1.0, outline=outline)
    line = np.zeros((40, 50), bool)
    line[10 - outline : 20 + outline, 30 - outline :] = True
    line[10:20, 30:] = False
    assert (rgb[line] == VERMILION).all()
    np.testing.assert_array_equal(rgb[~line], bare[~line])


def test_opacity_blends_image_and_heat():
    image, anomaly_map = np.full((1, 1), 100, np.uint8), [[9.0]]
    full = heat_map_image(image, anomaly_map, 1.0, opacity=1).astype(float)
    half = heat_map_image(image, anomaly_map, 1.0, opacity=0.5)
    np.testing.assert_allclose(half, (full + 100) / 2, atol=0.5)
    assert (heat_map_image(image, anomaly_map, 1.0, opacity=0) == 100).all()


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 0.5])
def test_the_scale_rises_for_a_threshold_of_any_sign(threshold):
    assert hottest_value(threshold) > threshold
    image = np.zeros((1, 2), np.uint8)
    rgb = heat_map_image(image, [[threshold, threshold + 0.1]], threshold)
    np.testing.assert_array_equal(rgb.any(axis=2), [[False, True]])


def test_bad_overlays_are_refused():
    for shape in [(3, 2, 1), (0, 2)]:
        with pytest.raises(ValueError, match=r"anomaly_map must have shape \(H, W\)"):
            heat_map_image(np.zeros((2, 3)), np.zeros(shape), 1.0)
    for outline in (-1, 0.5, None):
        with pytest.raises(ValueError, match="outline must be an int of at least 0"):
            heat_map_image(np.zeros((2, 3)), np.zeros((2, 3)), 1.0, outline=outline)
    for opacity in (60, None, "a"):
        with pytest.raises(ValueError, match="opacity must be from 0 to 1"):
            heat_map_image(np.zeros((2, 3)), np.zeros((2, 3)), 1.0, opacity=opacity)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=f"anomaly_map must be .* holds {value}"):
            heat_map_image(np.zeros((1, 2)), [[0.0, value]], 1.0)
    for threshold in (np.nan, None, "a"):
        with pytest.raises(ValueError, match="threshold must be a number above"):
            heat_map_image(np.zeros((2, 3)), np.zeros((2, 3)), threshold)
    with pytest.raises(ValueError, match=r"boxes\[1\] is \(0, 2, 3, 2\)"):
        boxes_image(np.zeros((5, 5)), [(0, 0, 1, 1), (0, 2, 3, 2)])
    for thickness in (0, "a", None, 1.5):
        with pytest.raises(ValueError, match="thickness must be an int of at least 1"):
            boxes_image(np.zeros((5, 5)), [], thickness=thickness)


def test_nothing_is_over_an_infinite_threshold():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    rgb = heat_map_image(image, np.ones((2, 3)), np.inf)
    np.testing.assert_array_equal(rgb, to_rgb_uint8(image))


@pytest.mark.parametrize("thickness", [1, 2, 3, 9])
@pytest.mark.parametrize(
    "box",
    [(2, 3, 9, 12), (0, 0, 1, 1), (-4, -3, 5, 6), (8, 10, 30, 40), (0, 0, 12, 15)],
)
def test_a_box_is_red_within_its_thickness_of_its_edges(box, thickness):
    rgb = boxes_image(np.full((12, 15), 80, np.uint8), [box], thickness=thickness)
    rows, cols = np.indices((12, 15))
    row_min, col_min, row_max, col_max = box
    depth = np.minimum.reduce(
        [rows - row_min, row_max - 1 - rows, cols - col_min, col_max - 1 - cols]
    )
    expected = (depth >= 0) & (depth < thickness)
    np.testing.assert_array_equal((rgb == (255, 0, 0)).all(axis=2), expected)
    assert (rgb[~expected] == 80).all()
