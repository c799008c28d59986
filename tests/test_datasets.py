"""Tests of skad.datasets: cut apart, planted where the mask says, reproducible."""

import socket
from itertools import combinations

import numpy as np
import pytest
from skimage import data
from skimage.measure import euler_number, label

from skad import datasets
from skad.datasets import SURFACES, load_surfaces
from skad.datasets.planting import plant

KINDS = ("scratch", "stain", "hole", "smear", "foreign")


def small(name="brick", **options):
    sizes = {"tile_size": 64, "n_train": 6, "n_test": 10}
    return load_surfaces(name, **(sizes | options))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("load_surfaces reached for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("name", SURFACES)
def test_shapes_types_and_labels(name, no_network):
    surfaces = load_surfaces(name)
    assert surfaces.train.shape == (60, 128, 128)
    assert surfaces.test.shape == surfaces.masks.shape == (40, 128, 128)
    assert surfaces.train.dtype == surfaces.test.dtype == np.uint8
    assert surfaces.masks.dtype == bool
    assert np.issubdtype(surfaces.y_test.dtype, np.integer)
    assert set(surfaces.y_test) == {-1, 1}
    assert (surfaces.y_test == -1).sum() == 20
    np.testing.assert_array_equal(surfaces.masks.any((1, 2)), surfaces.y_test == -1)
    np.testing.assert_array_equal(surfaces.kinds == "good", surfaces.y_test == 1)
    # Twenty defects of five kinds: four of each.
    for kind in KINDS:
        assert (surfaces.kinds == kind).sum() == 4


@pytest.mark.parametrize("tile_size", [32, 64, 128, 170])
def test_tiles_of_different_sets_share_no_pixel(tile_size):
    pixel_ids = np.arange(512 * 512).reshape(512, 512)
    numbers = {"n_train": 100, "n_test": 100, "n_calibration": 3}
    rng = np.random.default_rng(0)
    sets = datasets._cut_apart(pixel_ids, tile_size, numbers, rng)
    for tiles, n in zip(sets, numbers.values(), strict=True):
        assert tiles.shape == (n, tile_size, tile_size)
    for one, other in combinations(sets, 2):
        assert np.intersect1d(one, other).size == 0
    train, test, calibration = sets
    # Each tile is one whole piece of the photograph, not a wrap or a mixture.
    for tile in (*train, *test, *calibration):
        row, col = divmod(tile[0, 0], 512)
        piece = pixel_ids[row : row + tile_size, col : col + tile_size]
        np.testing.assert_array_equal(tile, piece)
    assert len(np.unique(train[:, 0, 0])) == len(np.unique(test[:, 0, 0])) == 100


def test_tiles_come_from_the_photograph():
    windows = np.lib.stride_tricks.sliding_window_view(data.gravel(), (32, 32))
    surfaces = small("gravel", tile_size=32, n_test=2, defect_fraction=0)
    for tile in (surfaces.train[0], surfaces.test[0]):
        candidates = np.argwhere(windows[..., 0, 0] == tile[0, 0])
        assert any((windows[row, col] == tile).all() for row, col in candidates)


@pytest.mark.parametrize("name", SURFACES)
def test_masks_are_exactly_the_changed_pixels(name):
    # The tiles are cut before anything is planted: equal seeds cut equal tiles.
    clean = load_surfaces(name, defect_fraction=0).test
    surfaces = load_surfaces(name)
    np.testing.assert_array_equal(surfaces.masks, surfaces.test != clean)


@pytest.mark.parametrize("tile_size", [32, 128])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SURFACES)
def test_every_defect_is_whole_and_visible(name, kind, tile_size):
    rng = np.random.default_rng(3)
    others = [datasets._photograph(other) for other in datasets._FOREIGN_TO[name]]
    photograph = datasets._photograph(name)
    numbers = {"n_train": 1, "n_test": 20, "n_calibration": 0}
    _, tiles, _ = datasets._cut_apart(photograph, tile_size, numbers, rng)
    for tile in tiles:
        change = np.abs(plant(tile, kind, others, rng).astype(int) - tile)
        mask = change > 0
        assert change[mask].mean() >= 20
        assert change[mask].min() >= 4
        assert label(mask).max() == 1, "a defect is one piece"
        if kind != "scratch":  # which may close a loop
            assert euler_number(mask) == 1, "a defect has no pinholes"
        assert 0.002 <= mask.mean() <= 0.15
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()


def test_equal_seeds_give_equal_tiles_and_others_do_not():
    first, again, other = small(), small(), small(random_state=1)
    for key in ("train", "test", "y_test", "masks", "kinds", "DESCR"):
        np.testing.assert_array_equal(first[key], again[key])
    assert not np.array_equal(first.train, other.train)
    assert not np.array_equal(first.test, other.test)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_generators_are_accepted(make):
    first, again = small(random_state=make(5)), small(random_state=make(5))
    np.testing.assert_array_equal(first.test, again.test)


def test_none_draws_fresh_tiles():
    first, other = small(random_state=None), small(random_state=None)
    assert not np.array_equal(first.train, other.train)


@pytest.mark.parametrize("random_state", [0, None])
def test_the_global_generator_is_left_alone(random_state):
    before = np.random.get_state()[1:3]  # noqa: NPY002
    small(random_state=random_state)
    after = np.random.get_state()[1:3]  # noqa: NPY002
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize(("fraction", "n_defective"), [(0, 0), (0.3, 3), (1, 10)])
def test_defect_fraction(fraction, n_defective):
    surfaces = small(defect_fraction=fraction)
    assert (surfaces.y_test == -1).sum() == n_defective
    assert f"{n_defective} of them with one planted" in surfaces.DESCR


@pytest.mark.parametrize("name", SURFACES)
def test_description_names_source_and_licence(name):
    description = small(name).DESCR
    assert f"skimage.data.{name}()" in description
    assert "https://" in description
    assert "CC0" in description


@pytest.mark.parametrize("name", SURFACES)
def test_scikit_image_documents_the_same_source_and_licence(name):
    documented = getattr(data, name).__doc__
    assert datasets._SOURCES[name].split(", ")[1] in documented
    assert "Creative Commons CC0" in documented


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "granite"}, "one of brick, grass, gravel; got 'granite'"),
        ({"name": 3}, "one of brick, grass, gravel; got 3"),
        ({"tile_size": 171}, "tile_size must be an int from 32 to 170.*got 171"),
        ({"tile_size": 31}, "tile_size must be an int from 32 to 170.*got 31"),
        ({"tile_size": 64.0}, "tile_size must be an int.*got 64.0"),
        ({"n_train": 0}, "n_train must be an int of at least 1; got 0"),
        ({"n_calibration": -1}, "n_calibration must be an int of at least 0; got -1"),
        ({"n_calibration": 10**9}, "n_calibration must be at most"),
        ({"n_test": True}, "n_test must be an int of at least 1; got True"),
        ({"n_test": 1030, "tile_size": 170}, "n_test must be at most 1029.*got 1030"),
        ({"n_train": 10**9}, "n_train must be at most.*fewer or smaller tiles"),
        ({"defect_fraction": 1.5}, "defect_fraction must be.*0 to 1.*got 1.5"),
        ({"defect_fraction": "half"}, "defect_fraction must be.*got 'half'"),
        ({"defect_fraction": float("nan")}, "defect_fraction must be.*got nan"),
        ({"random_state": -1}, "random_state must be an int of at least 0.*got -1"),
        ({"random_state": "a"}, "random_state must be an int.*got 'a'"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_calibration_tiles_leave_the_training_tiles_as_they_are():
    without, surfaces = small(), small(n_calibration=5)
    assert without.calibration.shape == (0, 64, 64)
    assert surfaces.calibration.shape == (5, 64, 64)
    assert surfaces.calibration.dtype == np.uint8
    np.testing.assert_array_equal(surfaces.train, without.train)


def test_every_place_can_be_cut_once():
    places = load_surfaces(tile_size=170, n_train=1, n_test=3 * 343, defect_fraction=0)
    assert len(np.unique(places.test.reshape(3 * 343, -1), axis=0)) == 3 * 343
