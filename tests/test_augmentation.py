"""Augmentation: good images vary as good images do, and stay good."""

import warnings

import numpy as np
import pytest
import torch

from skad.images.inputs import as_images
from skad.network.augmentation import (
    Variation,
    augment,
    measure_variation,
    shades,
)
from skad.network.preparation import Preparation
from skad.network.training import warn_of_memory

CPU = torch.device("cpu")
STILL = Variation(noise_level=0.1, brightness=0.0, contrast=0.0, shading=0.0, flips=())


def augmented(images, seed=0, **variation):
    generator = torch.Generator().manual_seed(seed)
    return augment(images, STILL._replace(**variation), generator)


def discs(n, n_channels=1):
    """Good images: a bright disc in the middle, with a little noise."""
    at = torch.arange(32.0) - 15.5
    disc = torch.hypot(at[:, None], at[None, :]) < 9
    noise = torch.randn(
        n, n_channels, 32, 32, generator=torch.Generator().manual_seed(1)
    )
    return 2.0 * disc - 0.5 + 0.05 * noise


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


def test_images_that_rise_are_not_turned_upside_down():
    assert flips(slope(axis=1)) == (3,)
    assert flips(slope(axis=2)) == (2,)
    assert flips(slope(axis=1) + slope(axis=2, seed=1)) == ()


def test_images_without_direction_may_be_flipped():
    assert flips(np.random.default_rng(0).normal(size=(12, 40, 56, 1))) == (2, 3)


def test_flips_keep_the_roi_in_its_place():
    images = np.random.default_rng(0).normal(size=(12, 40, 56, 1))
    roi = torch.zeros(40, 56)
    roi[:, :28] = 1.0
    assert flips(images, roi) == (2,)
    assert flips(images, torch.ones(40, 56)) == (2, 3)


def test_a_single_image_says_nothing_of_flips():
    assert flips(slope(axis=1, n=1)) == ()


def test_what_does_not_fit_into_memory_is_warned_of():
    with pytest.warns(UserWarning, match=r"GB for 16 images of 90000 x 40000 pixels"):
        warn_of_memory(16, (90_000, 40_000), CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_memory(16, (256, 256), CPU)


@pytest.mark.parametrize("flips", [(), (2,), (3,), (2, 3)])
def test_images_are_mirrored_along_the_allowed_axes_only(flips):
    rows, columns = torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 48)
    images = (rows[:, None] + columns).expand(64, 2, 16, 48)
    varied = augmented(images, flips=flips)
    for axis in (2, 3):
        up = varied.diff(dim=axis).mean((1, 2, 3)) > 0
        assert set(up.tolist()) == ({True, False} if axis in flips else {True})


def test_images_vary_within_narrow_bounds():
    images = discs(40, 3)
    varied, again, other = (augmented(images, seed) for seed in (0, 0, 1))
    assert varied.shape == images.shape
    assert torch.equal(varied, again)
    assert not torch.equal(varied, other)
    assert 0.9 < varied.std() / images.std() < 1.1
    assert abs(varied.mean() - images.mean()) < 0.1


def test_a_flat_image_stays_flat():
    """Sharpening, shifting and mirroring change nothing there, edges included."""
    varied = augmented(torch.full((20, 1, 24, 24), 2.0), flips=(2, 3))
    torch.testing.assert_close(varied, varied[:, :, :1, :1].expand_as(varied))


def test_light_and_contrast_vary_as_good_images_do():
    images = discs(200)
    plain, bright = augmented(images), augmented(images, brightness=2.0)
    rich = augmented(images, contrast=1.0)
    assert bright.mean((1, 2, 3)).std() > 3 * plain.mean((1, 2, 3)).std()
    assert rich.std((1, 2, 3)).std() > 3 * plain.std((1, 2, 3)).std()


def test_shading_varies_smoothly_from_side_to_side():
    varied = augmented(torch.zeros(200, 2, 32, 48), shading=4.0)
    assert float(shades(varied).std(0).mean()) == pytest.approx(1.0, abs=0.3)
    steps = torch.cat([varied.diff(dim=2).flatten(), varied.diff(dim=3).flatten()])
    assert steps.abs().max() < 1.0  # one part in 15 of 4 standard deviations of 2
    tint = varied[:, 0] - varied[:, 1]  # the same in all channels, a colour aside
    torch.testing.assert_close(tint, tint[:, :1, :1].expand_as(tint))


def test_shades_are_means_of_cells_without_the_images():
    images = torch.arange(3.0).repeat_interleave(4)[:, None].expand(2, 5, 12, 12)
    below = torch.tensor([-1.0, -1, -1, 0, 0, 0, 1, 1, 1])
    torch.testing.assert_close(shades(images + 7), below.expand(2, 9))


def test_shifts_keep_the_place_within_a_few_pixels():
    images = torch.zeros(100, 1, 64, 64)
    images[:, :, 30, 30] = 10.0
    varied = augmented(images)[:, 0].flatten(1)
    peaks = (varied - varied.median(1).values[:, None]).argmax(1)
    for places in np.divmod(peaks.numpy(), 64):
        assert abs(places - 30).max() <= 8
        assert len(set(places)) > 1
