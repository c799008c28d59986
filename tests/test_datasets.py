"""Tests of skad.datasets: cut apart, planted where the mask says, reproducible."""

from itertools import combinations

import numpy as np
import pytest
from skimage import data
from skimage.measure import euler_number, label

from skad.datasets import load_surfaces

KINDS = ["scratch", "stain", "hole"]


def small(name="brick", **options):
    sizes = {"tile_size": 64, "n_train": 6, "n_test": 10}
    return load_surfaces(name, **(sizes | options))


def test_shapes_types_and_labels():
    surfaces = load_surfaces()
    assert surfaces.train.shape == (60, 128, 128)
    assert surfaces.test.shape == surfaces.masks.shape == (40, 128, 128)
    assert surfaces.calibration.shape == (0, 128, 128)
    assert surfaces.train.dtype == surfaces.test.dtype == np.uint8
    assert surfaces.masks.dtype == bool
    np.testing.assert_array_equal(surfaces.masks.any((1, 2)), surfaces.y_test == -1)
    np.testing.assert_array_equal(surfaces.kinds == "good", surfaces.y_test == 1)
    assert sorted((surfaces.kinds == kind).sum() for kind in KINDS) == [6, 7, 7]


@pytest.mark.parametrize("tile_size", [32, 170])
def test_tiles_of_different_sets_share_no_pixel(tile_size, monkeypatch):
    pixel_ids = np.arange(512 * 512).reshape(512, 512)
    monkeypatch.setattr(data, "brick", lambda: pixel_ids)
    numbers = {"n_train": 100, "n_test": 100, "n_calibration": 3}
    surfaces = load_surfaces(tile_size=tile_size, **numbers, defect_fraction=0)
    sets = [surfaces[name] for name in ("train", "test", "calibration")]
    assert [len(tiles) for tiles in sets] == list(numbers.values())
    for one, other in combinations(map(np.unique, sets), 2):
        assert np.intersect1d(one, other, assume_unique=True).size == 0
    # Each tile is one whole piece of the photograph, not a wrap or a mixture.
    offsets = 512 * np.arange(tile_size)[:, None] + np.arange(tile_size)
    for tiles in sets:
        np.testing.assert_array_equal(tiles, tiles[:, :1, :1] + offsets)
    assert [len(np.unique(tiles[:, 0, 0])) for tiles in sets] == [100, 100, 3]


@pytest.mark.parametrize(
    ("name", "tile_size"), [("brick", 32), ("grass", 64), ("gravel", 128)]
)
def test_every_defect_is_whole_and_visible(name, tile_size):
    # The tiles are cut before anything is planted: equal seeds cut equal tiles.
    clean = load_surfaces(name, tile_size=tile_size, defect_fraction=0, n_test=60).test
    found = load_surfaces(name, tile_size=tile_size, defect_fraction=1, n_test=60)
    changes = np.abs(found.test.astype(int) - clean)
    assert not changes[~found.masks].any()
    for mask, change in zip(found.masks, changes, strict=True):
        assert change[mask].mean() >= 20
        assert label(mask).max() == 1, "a defect is one piece"
        assert euler_number(mask) == 1, "a defect has no holes"
        assert 0.002 <= mask.mean() <= 0.15
        inner = mask[1:-1, 1:-1]
        assert inner.sum() > 0.9 * mask.sum(), "a defect lies in its tile"


def test_equal_seeds_give_equal_tiles_and_others_do_not():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = small(), small(n_calibration=5), small(random_state=1)
    assert again.calibration.shape == (5, 64, 64)
    np.testing.assert_array_equal(first.train, again.train)
    for key in ("test", "y_test", "masks", "kinds"):
        np.testing.assert_array_equal(first[key], small()[key])
    assert not np.array_equal(first.train, other.train)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_wrong_arguments_are_named():
    for options, message in (
        ({"name": "granite"}, "one of brick, grass, gravel; got 'granite'"),
        ({"tile_size": 171}, "tile_size must be at most 170; got 171"),
        ({"n_train": 0}, "n_train must be an int of at least 1; got 0"),
        ({"n_calibration": -1}, "n_calibration must be an int of at least 0; got -1"),
        ({"defect_fraction": 1.5}, "defect_fraction must be.*0 to 1.*got 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**options)
