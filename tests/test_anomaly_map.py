"""From images to anomaly maps, and the quality that each part of the method gives."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import torch

from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.images.inputs import as_images
from skad.metrics import au_pro_score, image_auroc_score
from skad.network.model import new_network
from skad.network.preparation import Preparation
from skad.scoring.anomaly_map import AnomalyMapper
from skad.scoring.fitting import fit_mapper, in_folds


def draw(n=6, size=(32, 48), n_channels=1):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, *size, n_channels), endpoint=True, dtype=np.uint8)


def fit(images, working_size=None, roi=None):
    n_channels, size = images.shape[3], images.shape[1:3]
    network = new_network(n_channels, torch.Generator().manual_seed(0)).eval()
    mean = np.full(n_channels, 0.5)
    preparation = Preparation(mean, 0.3, size, working_size or size, roi)
    folds = in_folds(np.arange(len(images)))
    mapper, _ = fit_mapper(network, preparation, as_images(images, None), folds)
    return mapper


@pytest.fixture(scope="module")
def images_and_mapper():
    images = draw(n_channels=3)
    return images, fit(images)


def test_an_odd_patch_peaks_where_it_is():
    """Even the features of an untrained network show it."""
    images = 100 + draw(20, (32, 32)) // 16
    mapper = fit(images)
    odd = images[:1].copy()
    odd[:, 8:20, 8:20] = 250
    (found,) = mapper(odd)
    assert found.max() > 2 * mapper(images).max()
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 6 <= row < 22
    assert 6 <= column < 22


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    ("size", "working_size"), [((1, 40), None), ((20, 30), (36, 33))]
)
def test_one_or_two_images_of_any_size_are_enough(n, size, working_size):
    images = draw(n, size, 3)
    mapper = fit(images, working_size)
    maps, rebuilt = mapper(images), mapper.reconstruct(images)
    assert (maps.shape, maps.dtype) == ((n, *size), np.float32)
    assert rebuilt.shape == images.shape
    assert np.isfinite(maps).all()
    assert np.isfinite(rebuilt).all()


def test_outside_of_the_roi_is_nothing():
    images, roi = draw(), torch.zeros(32, 48)
    roi[:, :24] = 1.0
    mapper = fit(images, roi=roi)
    other = images.copy()
    other[:, :, 24:] = 77
    np.testing.assert_array_equal(mapper(images), mapper(other))
    assert (mapper(images)[:, :, 24:] == 0).all()
    again = AnomalyMapper.from_arrays(mapper.to_arrays(), **mapper.settings)
    np.testing.assert_array_equal(again.roi, roi > 0)
    np.testing.assert_array_equal(again(images), mapper(images))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (90, 120)])
@pytest.mark.usefixtures("threads_as_before")
def test_maps_do_not_depend_on_what_else_is_there(size, n_threads):
    """One image alone is computed with all threads, one of many with one."""
    torch.set_num_threads(n_threads)
    images = draw(7, size)
    mapper = fit(images[:3])

    def maps(which):
        return np.concatenate(list(mapper.over(as_images(images[which], None), mapper)))

    every = maps(np.arange(7))
    assert every.shape == (7, *size)
    for which in ([3], [6, 1], [4, 4, 4, 0, 2]):
        np.testing.assert_array_equal(maps(which), every[which])


@pytest.mark.parametrize(
    ("size", "working_size", "n_channels"),
    [((1, 40), (1, 40), 1), ((30, 50), (70, 33), 7)],
)
def test_arrays_hold_all_numbers(size, working_size, n_channels):
    images = draw(3, size, n_channels)
    mapper = fit(images, working_size)
    arrays = mapper.to_arrays()
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == AnomalyMapper.array_shapes(n_channels, working_size, True, None)
    again = AnomalyMapper.from_arrays(arrays, **mapper.settings)
    expected, rebuilt = mapper(images), mapper.reconstruct(images)
    for name, array in mapper.to_arrays().items():
        if name != "mean":
            array[...] = 0  # no memory is shared
    assert not again.network.training
    np.testing.assert_array_equal(again(images), expected)
    np.testing.assert_array_equal(again.reconstruct(images), rebuilt)


def test_copies_and_pickles_are_equal(images_and_mapper):
    """To joblib, too, which tells by pickles what has changed."""
    images, mapper = images_and_mapper
    for again in (copy.deepcopy(mapper), pickle.loads(pickle.dumps(mapper))):
        np.testing.assert_array_equal(again(images), mapper(images))
        assert joblib.hash(again) == joblib.hash(mapper)
    again.network.to_logit[0].bias.data += 1
    assert joblib.hash(again) != joblib.hash(mapper)


@pytest.mark.parametrize("name", [None, "efficientnet-lite0"])
def test_shapes_of_absurd_sizes_take_no_memory(name):
    most = 2**31 - 1
    encoder = name and {"name": name, "digest": None, "n_neighbours": most}
    shapes = AnomalyMapper.array_shapes(most, (most, most), True, encoder)
    assert shapes["mean"] == (most,)


# Quality: each of these fails when a part of the method is switched off.


@pytest.fixture(scope="module")
def gravel():
    return load_surfaces("gravel", tile_size=64, n_train=30, n_test=60)


@pytest.fixture(scope="module")
def gravel_maps(gravel):
    settings = {"epochs": 25, "patch_size": 24, "target_fpr": 0.2, "random_state": 0}
    return (
        PatchAutoencoderDetector(**settings).fit(gravel.train).anomaly_map(gravel.test)
    )


def test_images_and_pixels_are_told_apart_by_the_decoder(gravel, gravel_maps):
    """0.61 and 0.38 without it."""
    assert image_auroc_score(gravel.y_test, -gravel_maps.max((1, 2))) > 0.7
    assert au_pro_score(gravel.masks, gravel_maps) > 0.53


def test_every_position_has_its_own_gaussian():
    """0.77 with one for all, even by the features of an untrained network."""
    surfaces = load_surfaces(
        "brick", tile_size=64, n_train=24, n_test=40, defect_fraction=0.0
    )
    train, test, bad = surfaces.train, surfaces.test, surfaces.test[:20].copy()
    train[:, :, 32:40] = test[:, :, 32:40] = 60  # a groove …
    bad[:, :, 24:32] = 60  # … which lies elsewhere in bad parts
    images = np.concatenate([test[20:], bad])[..., np.newaxis]
    maps = fit(train[..., np.newaxis])(images)
    assert image_auroc_score(np.repeat([1, -1], 20), -maps.max((1, 2))) > 0.95
