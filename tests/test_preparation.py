"""From images to what the network sees and back; varied, good images stay good."""

import numpy as np
import pytest
import torch

from skad.images.inputs import as_images
from skad.network.model import MAP_STRIDE
from skad.network.preparation import (
    Preparation,
    Variation,
    augment,
    measure_variation,
    shades,
    to_unit_range,
)

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
    expected = np.zeros((4, 6), bool)  # of cells that show some of 20 x 40 pixels
    expected[:3, :5] = True
    found = Preparation(np.zeros(1), 1.0, (20, 40), (20, 40)).inside(8)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("working_size", [(16, 24), (50, 70)])
def test_undo_brings_back_the_size(working_size):
    images = np.full((2, 32, 48, 3), [100, 200, 100], np.uint8)
    preparation = prepare(images, working_size)
    back = preparation.undo(preparation(images, CPU))
    np.testing.assert_allclose(back.numpy(), images / 255, atol=1e-5)


# --- Augmentation ------------------------------------------------------------------

STILL = Variation(noise_level=0.1, brightness=0.0, contrast=0.0, shading=0.0, flips=())


def augmented(images, seed=0, **variation):
    generator = torch.Generator().manual_seed(seed)
    return augment(images, STILL._replace(**variation), generator)


def discs(n):
    """Good images: a bright disc in the middle."""
    at = torch.arange(32.0) - 15.5
    disc = torch.hypot(at[:, None], at[None, :]) < 9
    return (2.0 * disc - 0.5).expand(n, 1, 32, 32).contiguous()


def slope(axis, size=(40, 56), n=12, seed=0):
    """Noisy images that rise along one axis of (n, H, W, C)."""
    ramp = np.linspace(0, 2, size[axis - 1])
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    noise = np.random.default_rng(seed).normal(0, 1, (n, *size, 1))
    return ramp.reshape(shape) + noise


def flips(images, roi=None):
    size = images.shape[1:3]
    preparation = Preparation(np.zeros(1), 1.0, size, size, roi)
    return measure_variation(
        as_images(images, None), np.arange(len(images)), preparation, CPU
    ).flips


def test_images_may_be_flipped_along_axes_without_a_direction():
    assert flips(slope(axis=1)) == (3,)
    assert flips(slope(axis=2)) == (2,)
    assert flips(slope(axis=1) + slope(axis=2, seed=1)) == ()
    assert flips(slope(axis=1, n=1)) == ()  # one image says nothing
    noise = np.random.default_rng(0).normal(size=(12, 40, 56, 1))
    assert flips(noise) == (2, 3)
    roi = torch.zeros(40, 56)
    roi[:, :28] = 1.0
    assert flips(noise, roi) == (2,)  # the roi stays in its place


@pytest.mark.parametrize("flips", [(2,), (2, 3)])
def test_images_are_mirrored_along_the_allowed_axes_only(flips):
    rows, columns = torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 48)
    images = (rows[:, None] + columns).expand(64, 2, 16, 48)
    varied = augmented(images, flips=flips)
    for axis in (2, 3):
        up = varied.diff(dim=axis).mean((1, 2, 3)) > 0
        assert set(up.tolist()) == ({True, False} if axis in flips else {True})


def test_light_and_contrast_vary_as_good_images_do():
    images = discs(200)
    plain, again, other = (augmented(images, seed) for seed in (0, 0, 1))
    assert torch.equal(plain, again)
    assert not torch.equal(plain, other)
    assert 0.9 < plain.std() / images.std() < 1.1
    assert abs(plain.mean() - images.mean()) < 0.1
    bright, rich = augmented(images, brightness=2.0), augmented(images, contrast=1.0)
    assert bright.mean((1, 2, 3)).std() > 3 * plain.mean((1, 2, 3)).std()
    assert rich.std((1, 2, 3)).std() > 3 * plain.std((1, 2, 3)).std()


def test_shading_varies_smoothly_from_side_to_side():
    varied = augmented(torch.zeros(200, 2, 32, 48), shading=4.0)
    assert float(shades(varied).std(0).mean()) == pytest.approx(1.0, abs=0.3)
    steps = torch.cat([varied.diff(dim=2).flatten(), varied.diff(dim=3).flatten()])
    assert steps.abs().max() < 1.0  # one part in 15 of 4 standard deviations of 2
    tint = varied[:, 0] - varied[:, 1]  # the same in all channels, a colour aside
    torch.testing.assert_close(tint, tint[:, :1, :1].expand_as(tint))


def test_shifts_keep_the_place_within_a_few_pixels():
    images = torch.zeros(100, 1, 64, 64)
    images[:, :, 30, 30] = 10.0
    varied = augmented(images)[:, 0].flatten(1)
    peaks = (varied - varied.median(1).values[:, None]).argmax(1)
    for places in np.divmod(peaks.numpy(), 64):
        assert abs(places - 30).max() <= 8
        assert len(set(places)) > 1
