"""What an encoder adds: features of all sizes, and the quality that each part gives."""

import numpy as np
import pytest
import torch
from own_encoders import own_encoder
from torch import nn

from skad import FrozenEncoder
from skad.datasets import load_surfaces
from skad.images.inputs import as_images
from skad.metrics import au_pro_score, image_auroc_score
from skad.network.preparation import Preparation
from skad.scoring.anomaly_map import AnomalyMapper
from skad.scoring.encoder_branches import new_features
from skad.scoring.fitting import fit_mapper, in_folds


def draw(n, size, n_channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (n, *size, n_channels), endpoint=True, dtype=np.uint8)


def prepared(images):
    size = images.shape[1:3]
    return Preparation(np.full(images.shape[3], 0.5), 0.2, size, size)


def fit(images, encoder):
    folds = in_folds(np.arange(len(images)))
    parts = prepared(images), as_images(images, None), folds
    mapper, _ = fit_mapper(None, *parts, encoder)
    return mapper


@pytest.mark.parametrize("size", [(80, 80), (64, 200), (3, 16), (200, 193)])
def test_images_of_any_size_are_scored_and_kept(size):
    """Small ones are enlarged, by a factor that features need not divide evenly."""
    images, encoder = draw(3, size), own_encoder()
    mapper = fit(images, encoder)
    maps = mapper(images)
    assert maps.shape == images.shape[:3]
    assert np.isfinite(maps).all()
    settings = {"own_encoder": encoder} | mapper.settings
    again = AnomalyMapper.from_arrays(mapper.to_arrays(), **settings)
    np.testing.assert_array_equal(again(images), maps)


@pytest.mark.parametrize(
    ("strides", "fine", "coarse"),
    [
        ((4, 8, 16, 32), (8, 4, 16), (16, 32)),
        ((2, 4), (4,), (4,)),
        ((8,), (8,), (8,)),
        ((16, 8), (8, 16), (16,)),
        ((2, 32), (2,), (32,)),
    ],
)
def test_features_of_suitable_strides_are_joined(strides, fine, coarse):
    """At the resolution of the first; how long they may be is limited."""

    class Means(nn.Module):
        def forward(self, x):
            return [nn.functional.avg_pool2d(x, stride) for stride in strides]

    images = draw(2, (192, 224), 3)
    features = new_features(FrozenEncoder(Means()), prepared(images), True)
    with torch.inference_mode():
        x = prepared(images)(images, torch.device("cpu"))
        features.fit(lambda compute: [compute(x)])
        found = features(x)
    for f, joined in zip(found, (fine, coarse), strict=True):
        assert f.shape == (2, 3 * len(joined), 192 // joined[0], 224 // joined[0])
    lengths = [f.norm(dim=1) for f in found]
    np.testing.assert_allclose(lengths[1], 1, rtol=1e-5)
    assert 0 < lengths[0].min() < lengths[0].max() < 1  # short ones stay short
    assert float(lengths[0].median()) == pytest.approx(0.5)


def test_gray_images_score_as_gray_ones_in_colour(lite0):
    gray = draw(3, (64, 64))
    colour = gray.repeat(3, axis=3)
    found, expected = (fit(images, lite0)(images) for images in (gray, colour))
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


# Quality: each of these fails when a part is switched off.


def test_the_neighbours_tell_defects_of_surfaces(lite0):
    """0.89 and 0.70 without them."""
    surfaces = load_surfaces("brick", tile_size=64, n_train=20, n_test=30)
    mapper = fit(surfaces.train[..., np.newaxis], lite0)
    maps = mapper(surfaces.test[..., np.newaxis])
    assert image_auroc_score(surfaces.y_test, -maps.max((1, 2))) > 0.95
    assert au_pro_score(surfaces.masks, maps) > 0.93


@pytest.fixture(scope="module")
def grooved(lite0):
    """Good bricks with a groove in one place, and what was fitted to others of them."""
    surfaces = load_surfaces(
        "brick", tile_size=64, n_train=20, n_test=20, defect_fraction=0.0
    )
    train, test = surfaces.train, surfaces.test
    train[:, :, 40:56] = test[:, :, 40:56] = 60
    return test[..., np.newaxis], fit(train[..., np.newaxis], lite0)


def test_the_gaussians_tell_where_parts_are_in_the_wrong_place(grooved):
    """0.6 times as much as elsewhere without them: each patch is known."""
    good, mapper = grooved
    moved = good[:10].copy()
    moved[:, :, 8:24], moved[:, :, 40:56] = good[:10, :, 40:56], good[:10, :, 8:24]
    maps = mapper(moved)
    changed = np.zeros(64, bool)
    changed[8:24] = changed[40:56] = True
    assert maps[:, :, changed].mean() > maps[:, :, ~changed].mean()


def test_a_blank_image_is_far_more_anomalous_than_all_good_ones(grooved):
    """1.2 times the worst good one, where the image as a whole does not count."""
    good, mapper = grooved
    blank = np.full_like(good[:1], good.mean())
    assert mapper(blank).max() > 1.5 * mapper(good).max()
