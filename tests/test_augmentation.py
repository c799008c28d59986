"""How good images differ, as far as it is learned from them alone."""

import warnings

import numpy as np
import pytest
import torch

from skad.images.inputs import as_images
from skad.network.augmentation import flip_combinations, measure_appearance
from skad.network.preparation import Preparation
from skad.network.training import warn_of_memory

CPU = torch.device("cpu")


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
    return measure_appearance(
        as_images(images, None), np.arange(len(images)), preparation, CPU
    ).flips


def test_images_that_rise_are_not_turned_upside_down():
    assert flips(slope(axis=1)) == (3,)
    assert flips(slope(axis=2)) == (2,)
    assert flips(slope(axis=1) + slope(axis=2, seed=1)) == ()


def test_images_without_direction_may_be_flipped():
    assert flips(np.random.default_rng(0).normal(size=(12, 40, 56, 1))) == (2, 3)


@pytest.mark.parametrize(
    ("counts", "allowed"),
    [
        ((slice(None), slice(0, 28)), (2,)),
        ((slice(0, 20), slice(None)), (3,)),
        ((slice(10, 30), slice(14, 42)), (2, 3)),
    ],
)
def test_flips_keep_the_roi_in_its_place(counts, allowed):
    images = np.random.default_rng(0).normal(size=(12, 40, 56, 1))
    roi = torch.zeros(40, 56)
    roi[counts] = 1.0
    assert flips(images, roi) == allowed


def test_a_single_image_says_nothing_of_flips():
    assert flips(slope(axis=1, n=1)) == ()


def test_looks_are_all_combinations_of_flips():
    assert flip_combinations(()) == [()]
    assert flip_combinations((3,)) == [(), (3,)]
    assert flip_combinations((2, 3)) == [(), (2,), (3,), (2, 3)]


def test_what_does_not_fit_into_memory_is_warned_of():
    with pytest.warns(UserWarning, match=r"GB for 16 images of 90000 x 40000 pixels"):
        warn_of_memory(16, (90_000, 40_000), CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_memory(16, (256, 256), CPU)
