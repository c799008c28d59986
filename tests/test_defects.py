"""Simulated defects: where they are, how large, what they leave alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skad.network import synthetic_anomalies as _defects
from skad.network.synthetic_anomalies import cut, simulate

NOISE_LEVEL = 0.1


def global_numpy_state():
    return np.random.get_state(legacy=False)  # noqa: NPY002


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def textures(n=8, channels=1, size=(64, 64), seed=0):
    """Smooth random images, standardised."""
    x = torch.randn(n, channels, *size, generator=generator(seed))
    x = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    return (x - x.mean()) / x.std()


def simulated(images, patch_sizes=(16,), seed=0, noise_level=NOISE_LEVEL):
    return simulate(images, patch_sizes, noise_level, generator(seed))


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (16, 16), (16, 240)])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("patch_sizes", [(2,), (40,), (4, 100)])
def test_shapes_and_ranges(size, channels, patch_sizes):
    images = textures(3, channels, size)
    defective, visibility = simulated(images, patch_sizes)
    assert defective.shape == images.shape
    assert defective.dtype == visibility.dtype == torch.float32
    assert visibility.shape == (3, 1, *size)
    assert defective.isfinite().all()
    assert visibility.min() >= 0
    assert visibility.max() <= 1


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_number_of_images(n):
    defective, visibility = simulated(textures(n, size=(32, 32)))
    assert len(defective) == len(visibility) == n


def test_the_images_given_are_not_changed():
    images = textures()
    before = images.clone()
    defective, _ = simulated(images)
    assert torch.equal(images, before)
    assert not torch.equal(defective, before)


@pytest.mark.parametrize("channels_last", [False, True])
def test_equal_generators_make_equal_defects(channels_last):
    images = textures(channels=3)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    first, again, other = (simulated(images, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_global_generators_are_left_alone():
    state, numpy_state = torch.get_rng_state(), global_numpy_state()
    simulated(textures())
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_equal(global_numpy_state(), numpy_state)


def test_far_from_small_defects_every_bit_stays():
    images = textures(size=(128, 128))
    defective, visibility = simulated(images, (4,))
    untouched = (defective == images).all(1, keepdim=True)
    # By the windows of blobs and of lines, of the same side.
    assert untouched.float().mean() > 1 - 2 * _defects._COVERED
    assert (visibility[untouched] == 0).all()


def test_parts_on_a_plain_background_get_most_defects():
    images = torch.zeros(8, 1, 128, 128)
    images[:, :, 32:64, 32:64] = textures(n=8, size=(32, 32))  # 1 / 16 of the area
    defective, _ = simulated(images, (4,))
    changed = defective != images
    assert changed[:, :, 28:68, 28:68].sum() > 0.3 * changed.sum()


def test_textures_get_defects_everywhere():
    images = textures(n=256, size=(64, 64))
    changed = (simulated(images, (4,))[0] != images).any(1).float().mean(0)
    quarters = F.avg_pool2d(changed[None, None], 32).flatten()
    assert quarters.min() > 0.7 * quarters.max()


def test_what_is_invisible_changes_little():
    images = textures()
    for seed in range(10):
        defective, visibility = simulated(images, (24,), seed)
        change = (defective - images).abs().amax(1, keepdim=True)
        assert change[visibility == 0].max() < 0.5  # of the images' deviation


def test_what_is_plain_to_see_has_changed():
    images = textures()
    for seed in range(10):
        defective, visibility = simulated(images, (24,), seed)
        change = (defective - images).abs().amax(1, keepdim=True)
        near = F.max_pool2d(change, 5, 1, 2)
        assert near[visibility == 1].min() > NOISE_LEVEL


def test_some_images_stay_good_and_most_do_not():
    images = textures(200, size=(32, 32))
    _, visibility = simulated(images, (8,))
    spoilt = visibility.flatten(1).amax(1) > 0.5
    assert 0.5 < spoilt.float().mean() < 1


def visible_area(patch_sizes):
    """Mean number of plainly visible pixels an image."""
    images = textures(40, size=(128, 128))
    visibility = simulated(images, patch_sizes)[1]
    return float((visibility > 0.5).sum()) / len(images)


def allow(monkeypatch, lines):
    """Lets lines alone be simulated, or blobs alone."""
    families = _defects._families
    monkeypatch.setattr(
        _defects,
        "_families",
        lambda *args: (f for f in families(*args) if f.lines is lines),
    )


def test_defects_grow_with_the_patch_size(monkeypatch):
    allow(monkeypatch, lines=False)
    monkeypatch.setattr(_defects, "_COVERED", 0.0)  # as many of every size
    areas = [visible_area((size,)) for size in (3, 10, 30, 90)]
    assert areas[0] > 0
    assert all(b > 1.5 * a for a, b in pairwise(areas)), areas


def test_several_patch_sizes_lie_between_the_smallest_and_the_largest():
    small, both, large = (visible_area(sizes) for sizes in ((3,), (3, 60), (60,)))
    assert small < both < large


def test_defects_come_everywhere():
    images = textures(300, size=(32, 32))
    _, visibility = simulated(images, (10,))
    often = (visibility > 0.5).float().mean(0)[0]
    assert often.min() > 0  # corners too
    assert often.max() < 10 * often.median()


def test_fainter_changes_count_less_where_good_images_are_noisy():
    images = textures()
    calm = simulated(images, noise_level=0.05)[1]
    noisy = simulated(images, noise_level=0.5)[1]
    assert (noisy <= calm).all()
    assert noisy.sum() < calm.sum()


def test_blobs_of_every_size_and_lines():
    *blobs, lines = _defects._families(torch.tensor([40.0, 5.0]), 256)
    assert lines.lines and not any(blob.lines for blob in blobs)
    assert blobs[0].smallest.tolist() == lines.smallest.tolist() == [2.0, 2.0]
    for before, after in pairwise(blobs):
        torch.testing.assert_close(before.largest, after.smallest)
    torch.testing.assert_close(blobs[-1].largest, torch.tensor([40.0, 5.0]))
    assert lines.largest.tolist() == [40.0, 5.0]


def kinds():
    return range(len(_defects._BLOB_SHARES))


def test_every_kind_of_content_has_a_share():
    shares = zip(_defects._BLOB_SHARES, _defects._LINE_SHARES, strict=True)
    assert all(blob + line > 0 for blob, line in shares)
    named = (_defects._FOREIGN, _defects._MOVED, _defects._BENT, _defects._PLAIN)
    assert sorted((*named, _defects._SHADED, _defects._FILLED)) == list(kinds())


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("lines", [False, True])
def test_every_kind_of_content_can_be_seen(monkeypatch, kind, lines):
    only = tuple(float(k == kind) for k in kinds())
    monkeypatch.setattr(_defects, "_BLOB_SHARES", only)
    monkeypatch.setattr(_defects, "_LINE_SHARES", only)
    allow(monkeypatch, lines=lines)
    assert simulated(textures(channels=3))[1].max() == 1


def test_what_is_missing_shows_what_lies_around():
    """A stroke under a defect gives way to the ground, which rises to the right."""
    ground = torch.arange(33.0).expand(1, 2, 33, 33) / 10
    stroke = ground.clone()
    stroke[:, :, 12:21, 15:18] = -5.0
    rows, columns = torch.meshgrid(*[torch.arange(33.0) - 16] * 2, indexing="ij")
    inside = torch.hypot(rows, columns) < 9
    opacity, size = inside.float()[None, None], torch.tensor([18.0])
    filled = _defects._fill(stroke, opacity, size)
    assert filled.shape == stroke.shape
    off = (filled - ground).abs()[0, :, inside]
    assert off.mean() < 0.2
    assert off.max() < 0.6


def test_lines_are_thinner_than_blobs(monkeypatch):
    """Of a blob, more survives when its rim is taken away."""

    def inner_share(lines):
        with monkeypatch.context() as patch:
            allow(patch, lines=lines)
            seen = (simulated(textures(), (40,))[1] > 0.5).float()
        inner = 1 - F.max_pool2d(1 - seen, 5, 1, 2)
        return float(inner.sum() / seen.sum())

    assert inner_share(lines=True) < inner_share(lines=False)


def test_cut_takes_windows_and_goes_on_beyond_the_edge():
    images = torch.arange(2 * 4 * 5.0).reshape(2, 1, 4, 5)
    which, top, left = torch.tensor([[1, 0], [1, -2], [2, 3]])
    windows = cut(images, which, top, left, (2, 3))
    assert torch.equal(windows[0], images[1, :, 1:3, 2:5])
    assert windows[1, 0].tolist() == [[3, 4, 4], [3, 4, 4]]  # top row, right column
