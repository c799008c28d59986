"""Synthetic anomalies: of every size and everywhere, and visible where they say so."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from skad.network.synthetic_anomalies import _fill, add_anomalies, foreground_weight

NOISE_LEVEL = 0.1


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def textures(n=8, channels=1, size=(64, 64), seed=0):
    """Smooth random images, standardised."""
    x = torch.randn(n, channels, *size, generator=generator(seed))
    x = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    return (x - x.mean()) / x.std()


def spoilt(images, patch_sizes=(16,), seed=0, noise_level=NOISE_LEVEL):
    return add_anomalies(images, patch_sizes, noise_level, generator(seed))


@pytest.mark.parametrize(
    ("n", "channels", "size", "patch_sizes"),
    [(1, 5, (16, 240), (4, 100)), (7, 1, (16, 16), (40,))],
)
def test_shapes_and_ranges(n, channels, size, patch_sizes):
    images = textures(n, channels, size)
    changed, visibility = spoilt(images, patch_sizes)
    assert changed.shape == images.shape
    assert changed.dtype == visibility.dtype == torch.float32
    assert visibility.shape == (n, 1, *size)
    assert changed.isfinite().all()
    assert 0 <= visibility.min() < visibility.max() <= 1


def test_equal_generators_make_equal_anomalies_and_nothing_else_changes():
    images = textures(channels=3)
    before, state = images.clone(), torch.get_rng_state()
    channels_last = images.contiguous(memory_format=torch.channels_last)
    first, again, other = spoilt(images), spoilt(channels_last), spoilt(images, seed=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_far_from_small_anomalies_every_bit_stays():
    images = textures(size=(128, 128))
    changed, visibility = spoilt(images, (4,))
    untouched = (changed == images).all(1, keepdim=True)
    assert untouched.float().mean() > 0.85
    assert (visibility[untouched] == 0).all()


def test_parts_on_a_plain_background_get_most_anomalies():
    images = torch.zeros(8, 1, 128, 128)
    images[:, :, 32:64, 32:64] = textures(n=8, size=(32, 32))  # 1 / 16 of the area
    weight = foreground_weight(images)
    assert weight[:, 8:16, 8:16].mean() > 100 * weight[:, 20:, 20:].mean()
    changed = spoilt(images, (4,))[0] != images
    assert changed[:, :, 28:68, 28:68].sum() > 0.3 * changed.sum()


def test_textures_get_anomalies_everywhere():
    images = textures(n=256)
    changed = (spoilt(images, (4,))[0] != images).any(1).float().mean(0)
    quarters = F.avg_pool2d(changed[None, None], 32).flatten()
    assert quarters.min() > 0.7 * quarters.max()
    visible = spoilt(textures(300, size=(32, 32)), (10,))[1] > 0.5
    assert 0.5 < visible.flatten(1).any(1).float().mean() < 1  # some images stay good
    visible = visible.float().mean(0)[0]
    assert 0 < visible.min() < visible.max() < 10 * visible.median()  # corners too


def test_visibility_says_what_has_changed():
    images = textures()
    noisy = spoilt(images, (24,), noise_level=5 * NOISE_LEVEL)[1]
    assert (noisy <= spoilt(images, (24,))[1]).all()  # less is seen in noise
    for seed in range(3):
        changed, visibility = spoilt(images, (24,), seed)
        change = (changed - images).abs().amax(1, keepdim=True)
        assert change[visibility == 0].max() < 0.5  # of the images' deviation
        near = F.max_pool2d(change, 5, 1, 2)
        assert near[visibility == 1].min() > NOISE_LEVEL


def test_anomalies_grow_with_the_patch_size():
    def inner_area(patch_sizes):
        """Mean number of visible pixels whose neighbours are visible: no lines."""
        visible = (spoilt(textures(40, size=(128, 128)), patch_sizes)[1] > 0.5).float()
        return float((1 - F.max_pool2d(1 - visible, 7, 1, 3)).sum() / 40)

    areas = [inner_area(sizes) for sizes in ((3,), (10,), (10, 60), (60,))]
    assert all(b > 1.2 * a for a, b in pairwise(areas)), areas


def test_what_is_missing_shows_what_lies_around():
    """A stroke under an anomaly gives way to the ground, which rises to the right."""
    ground = torch.arange(33.0).expand(1, 2, 33, 33) / 10
    stroke = ground.clone()
    stroke[:, :, 12:21, 15:18] = -5.0
    rows, columns = torch.meshgrid(*[torch.arange(33.0) - 16] * 2, indexing="ij")
    inside = torch.hypot(rows, columns) < 9
    filled = _fill(stroke, inside.float()[None, None], torch.tensor([18.0]))
    off = (filled - ground).abs()[0, :, inside]
    assert off.mean() < 0.2
    assert off.max() < 0.6
