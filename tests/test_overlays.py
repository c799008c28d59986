"""Overlays: what they paint, where they paint, and where they must not."""

import numpy as np
import pytest
from PIL import Image

from skad import overlays
from skad.overlays import RED, VERMILION, boxes_image, heat_map_image, to_rgb_uint8


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),
        (np.array([[0, 257 * 7, 65535]], ">u2"), [0, 7, 255]),
        (np.array([[0.0, 0.25, 1.0]], np.float32), [0, 64, 255]),
        (np.array([[-10.0, 0.0, 10.0]]), [0, 128, 255]),
        (np.full((1, 2), 42.0), [0, 0]),
    ],
)
def test_every_number_type_becomes_gray_from_0_to_255(image, expected):
    rgb = to_rgb_uint8(image)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.stack([[expected]] * 3, axis=-1))


def test_channels_are_shown_as_colours_or_as_their_mean():
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb_uint8(colour), colour)
    one = to_rgb_uint8(colour[:, :, :1])
    np.testing.assert_array_equal(one, to_rgb_uint8(colour[:, :, 0]))
    five = np.stack([np.full((2, 2), v, np.uint8) for v in (0, 10, 20, 30, 40)], axis=2)
    assert (to_rgb_uint8(five) == 20).all()
    before = colour.copy()
    to_rgb_uint8(colour)[:] = 9
    boxes_image(colour, [(0, 0, 3, 3)])
    np.testing.assert_array_equal(colour, before)


def test_heat_lies_exactly_where_the_map_is_over_the_threshold():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (30, 40), dtype=np.uint8)
    anomaly_map = rng.random((30, 40), dtype=np.float32)
    anomaly_map[3, 3] = threshold = 0.75
    changed = (heat_map_image(image, anomaly_map, threshold) != image[..., None]).any(2)
    np.testing.assert_array_equal(changed, anomaly_map > threshold)
    assert (heat_map_image(image, anomaly_map, np.inf) == image[..., None]).all()
    for threshold in (-2.0, 0.0, 0.5):
        rgb = heat_map_image(image[:1, :2] * 0, [[threshold, 1]], threshold)
        np.testing.assert_array_equal(rgb.any(axis=2), [[False, True]])


def test_heat_is_on_one_absolute_scale():
    image = np.zeros((1, 4), np.uint8)
    first = heat_map_image(image, [[0.0, 1.2, 1.5, 2.0]], 1.0)[0]
    second = heat_map_image(image, [[1.2, 50.0, 2.0, 0.9]], 1.0)[0]
    np.testing.assert_array_equal(second[0], first[1])
    np.testing.assert_array_equal(second[1], first[3])  # saturated at twice
    lightness = first[1:].sum(axis=1)
    assert (np.diff(lightness.astype(int)) > 0).all()
    gray = np.full((1, 4), 100, np.uint8)
    mixed = heat_map_image(gray, [[0.0, 1.2, 1.5, 2.0]], 1.0)[0]
    np.testing.assert_allclose(mixed[1:], first[1:] + 0.4 * 100, atol=1)


@pytest.mark.parametrize("size", [(30, 41), (8, 9), (3, 40)])
def test_a_map_of_another_size_keeps_its_verdict(size):
    anomaly_map = np.full((16, 20), 0.3, np.float32)
    image = np.full(size, 90, np.uint8)
    threshold = float(np.float32(0.3))
    assert (heat_map_image(image, anomaly_map, threshold) == 90).all()
    for place in [(0, 0), (7, 12), (15, 19)]:
        anomaly_map[place] = np.nextafter(np.float32(0.3), np.float32(1))
        rgb = heat_map_image(image, anomaly_map, threshold)
        hot = np.argwhere((rgb != 90).any(axis=2))
        centre = (np.array(place) + 0.5) * size / anomaly_map.shape
        assert len(hot)
        assert (abs(hot + 0.5 - centre) <= 0.5 + np.divide(size, (16, 20))).all()
        anomaly_map[place] = 0.3


def test_the_outline_is_around_the_heat():
    anomaly_map = np.zeros((40, 50))
    anomaly_map[10:20, 30:50] = 2.0
    image = np.full((40, 50), 90, np.uint8)
    bare = heat_map_image(image, anomaly_map, 1.0)
    rgb = heat_map_image(image, anomaly_map, 1.0, outline=3)
    line = np.zeros((40, 50), bool)
    line[7:23, 27:] = True
    line[10:20, 30:] = False
    assert (rgb[line] == VERMILION).all()
    np.testing.assert_array_equal(rgb[~line], bare[~line])


@pytest.mark.parametrize("thickness", [1, 2, 9])
@pytest.mark.parametrize("box", [(2, 3, 9, 12), (-4, -3, 5, 40)])
def test_a_box_is_red_within_its_thickness_of_its_edges(box, thickness):
    rgb = boxes_image(np.full((12, 15), 80, np.uint8), [box], thickness=thickness)
    rows, cols = np.indices((12, 15))
    row_min, col_min, row_max, col_max = box
    depth = np.minimum.reduce(
        [rows - row_min, row_max - 1 - rows, cols - col_min, col_max - 1 - cols]
    )
    expected = (depth >= 0) & (depth < thickness)
    np.testing.assert_array_equal((rgb == RED).all(axis=2), expected)
    assert (rgb[~expected] == 80).all()


IMAGE, MAP = np.zeros((2, 3)), np.zeros((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_rgb_uint8(np.zeros((2, 3, 4, 3))), r"\(2, 3, 4, 3\).*images\[0\]"),
        (lambda: to_rgb_uint8([[np.nan]]), "finite numbers"),
        (lambda: heat_map_image(IMAGE, MAP[None], 1.0), r"shape \(H, W\)"),
        (lambda: heat_map_image(IMAGE, MAP + np.nan, 1.0), "holds nan"),
        (lambda: heat_map_image(IMAGE, MAP, np.nan), "threshold must be a number"),
        (lambda: boxes_image(IMAGE, [(0, 4, 3, 2)]), "must be greater than or equal"),
        (lambda: boxes_image(IMAGE, [], thickness=0), "thickness must be an int"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_files_of_cameras_are_shown_in_full_brightness(monkeypatch, tmp_path):
    for bits in (10, 12, 16):
        levels = np.array([[0, 0.5, 1]]) * (2**bits - 1)
        Image.fromarray(levels.astype(np.uint16)).save(tmp_path / "a.png")
        rgb = overlays.read_picture(tmp_path / "a.png", levels.shape)
        np.testing.assert_allclose(rgb[0, :, 0], [0, 127.5, 255], atol=0.5)
    monkeypatch.setattr(overlays, "_MOST_PIXELS", 480)  # larger ones are made smaller
    Image.fromarray(np.zeros((32, 60), np.uint8)).save(tmp_path / "a.png")
    assert overlays.read_picture(tmp_path / "a.png", (32, 60)).shape == (16, 30, 3)
