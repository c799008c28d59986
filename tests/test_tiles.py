"""Large images by tiles: the same maps as in one piece, in the memory of a tile."""

import math

import numpy as np
import pytest
import torch

from skad.images.inputs import as_images
from skad.network.model import STRIDE, PatchAutoencoder, new_network
from skad.network.preparation import Preparation
from skad.scoring import anomaly_map as _anomaly_map
from skad.scoring import tiles as _tiles
from skad.scoring.anomaly_map import AnomalyMapper
from skad.scoring.fitting import fit_mapper, in_folds
from skad.scoring.tiles import MARGIN, in_tiles

SMALL = 64  # side of a tile, in place of TILE


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(_tiles, "TILE", SMALL)
    monkeypatch.setattr(_anomaly_map, "TILE", SMALL)


def draw(n, size, n_channels, seed=0):
    """Images with coarse and fine parts, so that far pixels matter."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 200, (n, *(-(-s // 32) for s in size), n_channels))
    coarse = coarse.repeat(32, 1).repeat(32, 2)[:, : size[0], : size[1]]
    return (coarse + rng.uniform(0, 50, (n, *size, n_channels))).astype(np.uint8)


def fit(size, working_size, roi, n_channels, encoder=None):
    network = None
    if encoder is None:
        network = new_network(n_channels, torch.Generator().manual_seed(0)).eval()
    mean = np.full(n_channels, 0.5)
    preparation = Preparation(mean, 0.2, size, working_size or size, roi)
    images = as_images(draw(2, size, n_channels), None)
    mapper, _ = fit_mapper(
        network, preparation, images, in_folds(np.arange(2)), encoder
    )
    return mapper


def reach(outputs):
    """How far above and below an aligned block a map of it depends on pixels.

    A pixel that is NaN makes all that depends on it NaN. `outputs` turns images
    (1, 1, H, W) into a map (h, w).
    """
    size, above, below = 416, 0, 0
    for row in range(size // 2, size // 2 + STRIDE):
        x = torch.zeros(1, 1, size, STRIDE)
        x[:, :, row] = math.nan
        found = outputs(x)
        stride = size // len(found)
        rows = found.isnan().any(1).nonzero()[:, 0] * stride
        first, last = int(rows.min()), int(rows.max()) + stride - 1
        above = max(above, last // STRIDE * STRIDE - row)
        below = max(below, row - (first // STRIDE * STRIDE + STRIDE - 1))
    return max(above, below)


def test_the_margin_holds_all_that_a_tile_depends_on():
    network = PatchAutoencoder(1).eval()
    with torch.inference_mode():
        assert reach(lambda x: network(x)[0][0, 0]) <= MARGIN
        assert reach(lambda x: network(x)[1][0]) == 91 <= MARGIN
    assert MARGIN % STRIDE == _tiles.TILE % STRIDE == 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(400, 304), (16, 5008), (272, 272)])
@pytest.mark.usefixtures("small_tiles")
def test_every_place_is_computed_once_and_put_where_it_belongs(size, stride):
    x = torch.arange(2.0 * math.prod(size)).reshape(2, 1, *size)
    n_pixels = []

    def compute(part, corner, whole):
        assert whole == size
        top, left = corner
        height, width = part.shape[2:]
        assert torch.equal(part, x[:, :, top : top + height, left : left + width])
        n_pixels.append(height * width)
        return part[:, 0, ::stride, ::stride]

    found = in_tiles(compute, x, stride, MARGIN)
    assert torch.equal(found, x[:, 0, ::stride, ::stride])
    assert len(n_pixels) == math.prod(-(-s // SMALL) for s in size)
    assert max(n_pixels) <= (SMALL + 2 * MARGIN) ** 2


@pytest.mark.parametrize(
    ("size", "working_size", "with_roi", "n_channels"),
    [((330, 250), None, False, 3), ((150, 200), (341, 263), True, 1)],
)
def test_maps_by_tiles_are_those_of_the_whole(
    request, size, working_size, with_roi, n_channels
):
    roi = None
    if with_roi:
        roi = torch.zeros(size)
        roi[10:-20, 30:-5] = 1.0
    mapper = fit(size, working_size, roi, n_channels)
    images = draw(1, size, n_channels, seed=1)
    images[:, 40:60, 60:80] = 255
    whole, rebuilt = mapper(images), mapper.reconstruct(images)
    request.getfixturevalue("small_tiles")
    np.testing.assert_allclose(mapper(images), whole, atol=1e-4 * whole.max())
    rebuilt_by_tiles = mapper.reconstruct(images)
    np.testing.assert_allclose(rebuilt_by_tiles, rebuilt, atol=1e-4 * rebuilt.max())


def test_what_an_encoder_adds_hardly_depends_on_tiles(request, lite0, monkeypatch):
    size = (512, 416)  # more than a tile and its margins
    mapper = fit(size, None, None, 1, lite0)
    images = draw(1, size, 1, seed=1)
    images[:, 40:60, 60:80] = 255
    whole = mapper(images)
    request.getfixturevalue("small_tiles")
    tiles = []

    def spied(x, *place):
        tiles.append(x.shape)
        return AnomalyMapper.values(mapper, x, *place)

    monkeypatch.setattr(mapper, "values", spied)
    np.testing.assert_allclose(mapper(images), whole, atol=1e-3 * whole.max())
    assert len(tiles) == 8 * 7
