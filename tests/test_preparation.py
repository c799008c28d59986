"""From images to what the network sees, and from its maps back to the pixels."""

import numpy as np
import pytest
import torch

from skad.network.model import FEATURE_STRIDES, MAP_STRIDE, STRIDE
from skad.network.preparation import Preparation, to_unit_range

CPU = torch.device("cpu")


def draw(n=3, size=(20, 19), n_channels=3, dtype=np.uint8):
    rng = np.random.default_rng(0)
    shape = (n, *size, n_channels)
    if np.dtype(dtype).kind == "f":
        return rng.normal(3.0, 2.0, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)


def prepare(images, working_size=None, roi=None):
    unit, size = to_unit_range(images), images.shape[1:3]
    mean = unit.mean((0, 1, 2))
    std = float(np.sqrt(np.mean((unit - mean) ** 2)))
    return Preparation(mean, std, size, working_size or size, roi)


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.int32, 1), (float, 1)]
)
def test_numbers_are_scaled_by_their_type(dtype, top):
    unit = to_unit_range(np.array([[[[0], [1], [100]]]], dtype=dtype))
    assert unit.dtype == np.float64
    np.testing.assert_array_equal(unit.ravel(), np.array([0.0, 1.0, 100.0]) / top)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_images_are_standardised_padded_and_brought_back(dtype):
    images = draw(dtype=dtype)
    preparation = prepare(images)
    x = preparation(images, CPU)
    assert x.shape == (3, 3, 32, 32)
    assert x.dtype == torch.float32
    inner = x[:, :, :20, :19]
    assert abs(float(inner.mean())) < 1e-5
    assert float(inner.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    assert (x[:, :, 20:, :19] == x[:, :, 19:20, :19]).all()  # padded by the edge
    back = preparation.undo(x)
    np.testing.assert_allclose(back.numpy(), to_unit_range(images), atol=1e-5)


def test_flipped_images_are_padded_at_the_same_end():
    images = draw()
    preparation = prepare(images)
    x = preparation(images, CPU)
    for axes in ((2,), (3,), (2, 3)):
        flipped = np.flip(images, [axis - 1 for axis in axes])
        expected = preparation(flipped.copy(), CPU)
        torch.testing.assert_close(preparation.flipped(x, axes), expected)
    assert preparation.flipped(x, ()) is x


@pytest.mark.parametrize("working_size", [(16, 24), (50, 70)])
def test_undo_brings_back_the_size(working_size):
    images = np.full((2, 32, 48, 3), [100, 200, 100], np.uint8)
    preparation = Preparation(np.array([0.5, 0.4, 0.3]), 0.2, (32, 48), working_size)
    x = preparation(images, CPU)
    assert x.shape[2:] == tuple(-(-s // STRIDE) * STRIDE for s in working_size)
    np.testing.assert_allclose(preparation.undo(x).numpy(), images / 255, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "working_size"), [((20, 30), (20, 30)), ((40, 60), (20, 30))]
)
def test_maps_come_back_to_the_inputs_size_and_place(size, working_size):
    preparation = Preparation(np.zeros(1), 1.0, size, working_size)
    maps = torch.zeros(1, *(side // MAP_STRIDE for side in preparation.padded_size))
    maps[0, 5, 4] = 1.0
    found = preparation.to_input(maps)
    assert found.shape == (1, *size)
    peak = np.unravel_index(int(found.argmax()), size)
    for i, at in enumerate((5, 4)):
        expected = (at + 0.5) * MAP_STRIDE * size[i] / working_size[i]
        assert abs(peak[i] + 0.5 - expected) <= MAP_STRIDE


def test_what_lies_outside_of_the_roi_does_not_count():
    roi = torch.zeros(64, 64)
    roi[:, :32] = 1.0
    images = draw(size=(64, 64))
    preparation = prepare(images, (32, 32), roi)
    other = images.copy()
    other[:, :, 32:] = 77
    assert torch.equal(preparation(images, CPU), preparation(other, CPU))
    found = preparation.to_input(torch.ones(2, 16, 16))
    assert (found[:, :, :32] == 1).all()
    assert (found[:, :, 32:] == 0).all()
    inside = preparation.inside(1)
    assert inside[:, :16].all()
    assert not inside[:, 16:].any()


@pytest.mark.parametrize("stride", [1, MAP_STRIDE, *FEATURE_STRIDES])
def test_inside_is_where_the_image_is(stride):
    inside = Preparation(np.zeros(1), 1.0, (20, 40), (20, 40)).inside(stride)
    assert inside.shape == (32 // stride, 48 // stride)
    rows, columns = -(-20 // stride), -(-40 // stride)
    assert inside[:rows, :columns].all()
    assert inside.sum() == rows * columns
