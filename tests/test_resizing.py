"""Frames in memory are resized as files are."""

import numpy as np
import pytest
import tifffile
from image_files import noise
from PIL import Image

from skad.images import read_image, resize_image
from skad.images.resizing import max_pool


@pytest.mark.parametrize(
    ("dtype", "colours"), [("u1", ()), ("u1", (3,)), ("f4", ()), (">u2", ())]
)
def test_arrays_are_resized_as_files_are(tmp_path, dtype, colours):
    pixels = noise(40, 60, *colours).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    for size in (20, (13, 31), (80, 60)):
        found = resize_image(pixels, size)
        expected = read_image(tmp_path / "a.tif", size)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_8_and_16_bits_are_resized_alike():
    pixels = noise(40, 30, 3)
    deep = resize_image(pixels.astype(np.uint16) * 257, (10, 12))
    assert np.abs(deep / 257 - resize_image(pixels, (10, 12))).max() <= 1


def test_shrinking_does_not_alias_and_growing_keeps_constants():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    board[32:] = 255
    small = resize_image(board.astype(np.uint8), 8)
    assert np.abs(small[:3] - 127.5).max() < 13  # or 0 or 255
    assert (small[5:] == 255).all()
    assert (resize_image(board.astype(np.uint8), (100, 1))[60:] == 255).all()


def test_what_cannot_be_resized_is_told():
    frame = np.ones((4, 4), np.uint8)
    assert not np.shares_memory(resize_image(frame, 4), frame)
    for image, words in (
        (np.zeros((4, 4, 2), np.uint8), r"uint8 and shape \(4, 4, 2\)"),
        (np.zeros((4, 4)), "got ndarray of float64"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (Image.new("P", (4, 4)), "no palette image; got Image"),
        (np.ma.masked_less(frame, 2), "image must have no mask"),
    ):
        with pytest.raises(ValueError, match=words):
            resize_image(image, 2)
    with pytest.raises(ValueError, match=r"image_size must be .* got None"):
        resize_image(frame, None)


def test_a_pixel_of_a_pooled_map_is_the_largest_that_it_overlaps():
    rng = np.random.default_rng(0)
    for _ in range(50):
        (h, w), (height, width) = rng.integers(1, 12, (2, 2))
        amap = rng.random((h, w), np.float32)
        pooled = max_pool(amap, (height, width))
        assert pooled.shape == (height, width)
        for row, col in np.ndindex(pooled.shape):
            rows = slice(row * h // height, -(-(row + 1) * h // height))
            cols = slice(col * w // width, -(-(col + 1) * w // width))
            assert pooled[row, col] == amap[rows, cols].max()
