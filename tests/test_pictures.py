"""Thumbnails and maps of reports, decoded again."""

import io
from base64 import b64decode

import numpy as np
import pytest
from image_files import photo
from PIL import Image

from skad.report.pictures import map_picture, thumbnail, thumbnail_size


def decoded(uri):
    kind, _, content = uri.partition(";base64,")
    assert kind.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(b64decode(content))))


def values_of(picture):
    gray = decoded(picture["uri"]).astype(float)
    low, high = picture["low"], picture["high"]
    return low + (gray / 255) ** 2 * (high - low)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 50), (100, 50)), ((768, 384), (384, 192)), ((5000, 2), (384, 1))],
)
def test_thumbnails_keep_their_shape_and_are_never_enlarged(size, expected):
    assert thumbnail_size(size) == expected


def test_a_thumbnail_looks_as_its_image():
    rgb = np.asarray(photo(size=(96, 72)))
    found = decoded(thumbnail(rgb))
    assert found.shape == rgb.shape
    assert np.abs(found.astype(int) - rgb).mean() < 8


def test_a_map_keeps_its_maximum_and_small_values():
    amap = np.random.default_rng(0).gamma(1, 1, (64, 48)).astype(np.float32)
    amap[20, 30] = 60  # a strong defect
    picture = map_picture(amap)
    found = values_of(picture)
    assert found.shape == amap.shape
    assert found.max() == picture["high"] == amap.max()
    # Half a level of the root: at 1, a sixtieth of the range, 0.03 of 60.
    assert np.abs(found - amap)[amap < 1].max() < 0.04


@pytest.mark.parametrize("shape", [(256, 256), (640, 250), (1, 300)])
def test_a_large_map_becomes_small_and_keeps_its_peaks_in_place(shape):
    amap = np.zeros(shape)
    amap[shape[0] // 2, 200] = 3
    found = values_of(map_picture(amap))
    assert max(found.shape) == 128
    ((row, column),) = np.argwhere(found == 3)
    assert row == shape[0] // 2 * found.shape[0] // shape[0]
    assert abs(column - 200 * found.shape[1] / shape[1]) <= 1


def test_a_flat_map_is_its_value_everywhere():
    assert (values_of(map_picture(np.full((4, 4), 2.5))) == 2.5).all()
