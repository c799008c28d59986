"""Large images by tiles: the same maps as in one piece, in the memory of a tile."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skad.images.inputs import as_images
from skad.network.model import MAP_STRIDE, STRIDE, PatchAutoencoder
from skad.network.preparation import Preparation
from skad.scoring import tiles as _tiles
from skad.scoring.anomaly_map import AnomalyMapper
from skad.scoring.context import Expectation
from skad.scoring.fitting import fit_mapper
from skad.scoring.gaussians import _cell
from skad.scoring.tiles import MARGIN, in_tiles

CPU = torch.device("cpu")
SMALL = 64  # side of a tile, in place of TILE


def draw(n, size, n_channels, seed=0):
    """Images with coarse and fine parts, so that far pixels matter."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 200, (n, *(-(-s // 32) for s in size), n_channels))
    coarse = coarse.repeat(32, 1).repeat(32, 2)[:, : size[0], : size[1]]
    return (coarse + rng.uniform(0, 50, (n, *size, n_channels))).astype(np.uint8)


def new_network(n_channels):
    """A network whose batch normalisation has statistics and weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PatchAutoencoder(n_channels).eval()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.1, 0.5)
                layer.weight.data.uniform_(0.5, 1.5)
                layer.bias.data.normal_(0.2, 0.3)
    return network


def fit(size, working_size=None, roi=None, n_channels=1):
    images = draw(2, size, n_channels)
    preparation = Preparation(
        np.full(n_channels, 0.5), 0.2, size, working_size or size, roi
    )
    return fit_mapper(
        new_network(n_channels),
        preparation,
        as_images(images, None),
        np.arange(2),
        ((),),
    )


def off(found, expected):
    """The largest difference, relative to the scale of what is expected."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return np.abs(found - expected).max() / np.abs(expected).max()


def reach(follow):
    """How far above and below an aligned block a map of it depends on pixels.

    A pixel that is not a number makes all that depends on it no number. `follow`
    turns images (1, 1, H, W) into a map (h, w).
    """
    size, above, below = 416, 0, 0
    for row in range(size // 2, size // 2 + STRIDE):
        x = torch.zeros(1, 1, size, STRIDE)
        x[:, :, row] = math.nan
        found = follow(x)
        stride = size // len(found)
        rows = found.isnan().any(1).nonzero()[:, 0] * stride
        first, last = int(rows.min()), int(rows.max()) + stride - 1
        above = max(above, last // STRIDE * STRIDE - row)
        below = max(below, row - (first // STRIDE * STRIDE + STRIDE - 1))
    return above, below


def test_the_margin_holds_all_that_a_tile_depends_on():
    network = PatchAutoencoder(1).eval()

    expectation = Expectation(torch.ones(1, 96), torch.zeros(1), torch.ones(1))

    def far(x):
        *_, coarse = network.encode(x)
        return enlarged(coarse.sum(1, keepdim=True), x)  # as pointwise as a distance

    def expected(x):
        *_, coarse = network.encode(x)
        return enlarged(expectation(coarse), x)

    def enlarged(found, x):
        size = [side // MAP_STRIDE for side in x.shape[2:]]
        return F.interpolate(found, size, mode="bilinear")[0, 0]

    with torch.inference_mode():
        assert reach(lambda x: network(x)[0][0, 0]) == (75, 61)
        assert reach(far) == (75, 61)
        assert reach(expected) == (91, 77)
        assert reach(lambda x: network(x)[1][0]) == (91, 77)
    assert MARGIN >= 91
    assert MARGIN % STRIDE == _tiles.TILE % STRIDE == 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(400, 304), (16, 5008), (272, 272)])
def test_every_place_is_computed_once_and_put_where_it_belongs(
    monkeypatch, size, stride
):
    monkeypatch.setattr(_tiles, "TILE", SMALL)
    x = torch.arange(2.0 * math.prod(size)).reshape(2, 1, *size)
    seen = []

    def compute(part, corner, whole):
        assert whole == size
        top, left = corner
        height, width = part.shape[2:]
        assert torch.equal(part, x[:, :, top : top + height, left : left + width])
        seen.append(part.numel() / len(part))
        return part[:, 0, ::stride, ::stride]

    found = in_tiles(compute, x, stride)
    assert torch.equal(found, x[:, 0, ::stride, ::stride])
    assert len(seen) == math.prod(-(-s // SMALL) for s in size)
    assert max(seen) <= (SMALL + 2 * MARGIN) ** 2


def test_what_a_tile_could_hold_is_computed_at_once(monkeypatch):
    monkeypatch.setattr(_tiles, "TILE", SMALL)
    for size in ((256, 256), (16, 4096)):
        x = torch.zeros(1, 3, *size)
        assert in_tiles(lambda part, *_, x=x: [part is x], x, 1) == [True]


@pytest.mark.parametrize(
    ("size", "working_size", "with_roi", "n_channels"),
    [
        ((330, 250), None, False, 3),
        ((97, 701), None, True, 1),
        ((150, 200), (341, 263), True, 1),
        ((500, 380), (300, 256), False, 3),
    ],
)
def test_maps_by_tiles_are_those_of_the_whole(
    monkeypatch, size, working_size, with_roi, n_channels
):
    roi = None
    if with_roi:
        roi = torch.zeros(size)
        roi[10:-20, 30:-5] = 1.0
    mapper = fit(size, working_size, roi, n_channels)
    padded = [-(-s // STRIDE) * STRIDE for s in working_size or size]
    assert _cell([side // 2 for side in padded]) > 1  # places that tiles cut through
    images = draw(1, size, n_channels, seed=1)
    images[:, 40:60, 60:80] = 255
    whole, rebuilt = mapper(images), mapper.reconstruct(images)
    passes = []
    mapper.folded.register_forward_pre_hook(
        lambda _, inputs: passes.append(inputs[0].shape)
    )
    monkeypatch.setattr(_tiles, "TILE", SMALL)
    assert off(mapper(images), whole) < 1e-4
    assert len(passes) == math.prod(-(-side // SMALL) for side in padded)
    assert off(mapper.reconstruct(images), rebuilt) < 1e-4


def test_a_narrow_margin_would_show(monkeypatch):
    """The images of this file are ones that tell."""
    mapper = fit((330, 250))
    images = draw(1, (330, 250), 1, seed=1)
    whole, rebuilt = mapper(images), mapper.reconstruct(images)
    monkeypatch.setattr(_tiles, "TILE", SMALL)
    monkeypatch.setattr(_tiles, "MARGIN", 32)
    assert off(mapper(images), whole) > 1e-3
    assert off(mapper.reconstruct(images), rebuilt) > 1e-3


def test_tiled_maps_do_not_depend_on_what_else_is_there(monkeypatch):
    monkeypatch.setattr(_tiles, "TILE", SMALL)
    mapper = fit((330, 250))
    images = draw(2, (330, 250), 1, seed=1)
    together = list(mapper.over(as_images(images, None), mapper))
    (alone,) = mapper.over(as_images(images[1:2], None), mapper)
    np.testing.assert_array_equal(together[1], alone)


def test_no_tensor_of_the_network_grows_with_the_image(monkeypatch):
    monkeypatch.setattr(_tiles, "TILE", SMALL)
    largest = []

    def note(_, inputs, output):
        outputs = output if isinstance(output, tuple) else (output,)
        for tensor in (*inputs, *outputs):
            if isinstance(tensor, torch.Tensor):
                largest[-1] = max(largest[-1], tensor.numel())

    fitted = fit((16, 16))
    for size in ((320, 320), (576, 320)):
        preparation = Preparation(np.full(1, 0.5), 0.2, size, size)
        rest = fitted.expectation, fitted.tails, fitted.view_lines
        mapper = AnomalyMapper(fitted.network, preparation, (), *rest)
        for layer in mapper.folded.modules():
            layer.register_forward_hook(note)
        largest.append(0)
        mapper.reconstruct(draw(1, size, 1))
    assert largest[0] == largest[1]
    assert 0 < largest[1] <= 24 * (SMALL + 2 * MARGIN) ** 2 // 4  # 24 channels, halved
