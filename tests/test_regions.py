"""Regions of a mask, against those of scikit-image."""

from time import perf_counter

import numpy as np
import pytest
from skimage.measure import label, regionprops

from skad import Region
from skad.inspection.regions import find_regions


def regions_by_skimage(amap, mask):
    found = [
        Region(p.bbox, int(p.area), float(p.intensity_max), tuple(p.centroid))
        for p in regionprops(label(mask, connectivity=2), intensity_image=amap)
    ]
    return sorted(found, key=lambda region: -region.peak)


def test_regions_are_those_of_scikit_image():
    rng = np.random.default_rng(0)
    for _ in range(1500):
        shape = rng.integers(1, 24, 2)
        amap = rng.integers(0, 6, shape).astype(np.float32)  # with equal peaks
        mask = rng.random(shape) < rng.random()
        assert find_regions(amap, mask) == regions_by_skimage(amap, mask)


def snake(size):
    mask = np.zeros((size, size), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


def spiral(size):
    mask, at, step = np.zeros((size, size), bool), [0, 0], (0, 1)
    for length in np.repeat(np.arange(size - 1, 0, -2), 2):
        for _ in range(length):
            mask[tuple(at)] = True
            at = [at[0] + step[0], at[1] + step[1]]
        step = step[1], -step[0]
    return mask


@pytest.mark.parametrize("mask", [snake(101), snake(101).T, spiral(101), ~spiral(101)])
def test_long_components_are_one(mask):
    amap = np.random.default_rng(0).random(mask.shape, np.float32)
    assert find_regions(amap, mask) == regions_by_skimage(amap, mask)


def test_noise_takes_a_bounded_time():
    rng = np.random.default_rng(0)
    amap = rng.random((1000, 1000), np.float32)
    for share in (0.1, 0.3, 0.5):
        start = perf_counter()
        find_regions(amap, amap < share)
        assert perf_counter() - start < 3  # seconds: 0.4 on a quiet machine
