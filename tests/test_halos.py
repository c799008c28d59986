"""The second look: plain defects lose their halos, and nothing else changes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skad import PatchAutoencoderDetector
from skad.images.inputs import as_images
from skad.scoring import anomaly_map as _maps
from skad.scoring import second_pass as _halos
from skad.scoring import tiles as _tiles
from skad.scoring.second_pass import has_plain_defect, without_halo

PLAIN = 2 * _halos._PLAIN[1]


def look(x):
    """What a network sees (1, 2, h/2, w/2): by means of 17 x 17 cells, and by cells."""
    cells = F.max_pool2d(x.mean(1, keepdim=True), 2)
    far = torch.maximum(cells, 2.5 * F.avg_pool2d(cells, 17, 1, 8))
    return torch.cat([far, cells], 1)


def to_input(cells):
    return F.interpolate(cells[:, None], scale_factor=2.0, mode="bilinear")[:, 0]


def second_look(x):
    seen = look(x)
    first = to_input(seen.amax(1))
    found = without_halo(x.clone(), seen, first, look=look, to_input=to_input)
    return first, found


@pytest.fixture
def spot_and_speck():
    """An image (1, 1, 96, 96) with a plain defect and, in its halo, a small one."""
    x = torch.zeros(1, 1, 96, 96)
    x[:, :, 40:52, 40:52] = PLAIN
    x[:, :, 46:50, 60:64] = 6.0
    return x


def test_the_halo_goes_and_the_defects_stay(spot_and_speck):
    first, found = second_look(spot_and_speck)
    beside, speck = (0, 46, 55), (0, 47, 61)
    assert first[beside] > first[speck]
    assert found[beside] < 1 < 4 < found[speck]
    assert (found[0, 42:50, 42:50] == first[0, 42:50, 42:50]).all()
    assert (found <= first).all()


def test_what_the_fine_view_does_not_see_is_no_halo_of_it(spot_and_speck):
    """A faint stain keeps its values, though plain defects beside it are replaced."""
    stain = (0, slice(64, 88), slice(8, 32))
    spot_and_speck[0][stain] = 0.9 * _halos._REPLACED[0]
    first, found = second_look(spot_and_speck)
    assert (first[stain] > _halos._REPLACED[1]).any()
    assert (found[0, 72:80, 16:24] > 0.9 * first[0, 72:80, 16:24]).all()


@pytest.fixture
def seen():
    """A plain defect that is seen from far alone, and columns of four fine values."""
    seen = torch.zeros(1, 2, 12, 12)
    seen[:, 0] = 9.0
    seen[:, 0, :3, :3] = PLAIN
    for k, value in enumerate((_halos._REPLACED[0], 3.0, _halos._REPLACED[1], 8.0)):
        seen[:, 1, 4:, 3 * k : 3 * k + 3] = value
    return seen


def second_look_at(seen, again):
    """Return the first map, the second, and an image before it and for it."""
    image = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    shown = []

    def look(x):
        shown.append(x.clone())
        return again

    first = to_input(seen.amax(1))
    found = without_halo(image.clone(), seen, first, look=look, to_input=to_input)
    return first[0], found[0], image[0, 0], shown[0][0, 0]


def test_what_the_fine_view_finds_unusual_is_replaced_by_the_mean_of_the_rest(seen):
    *_, image, shown = second_look_at(seen, seen)
    share = torch.zeros(24, 24)
    share[8:, 6:12], share[8:, 12:] = 0.5, 1.0
    mean = ((1 - share) * image).sum() / (1 - share).sum()
    torch.testing.assert_close(shown, (1 - share) * image + share * mean)


def test_the_lower_of_two_looks_counts_where_the_fine_view_sees_no_defect(seen):
    first, found, *_ = second_look_at(seen, torch.zeros_like(seen))
    good, defect = (slice(10, 23), slice(1, 5)), (slice(10, 23), slice(19, 23))
    assert (first[good] == 9).all()
    assert (found[good] == _halos._REPLACED[0]).all()  # what the fine view has
    assert (found[defect] == first[defect]).all()
    assert (found[:4, :4] == PLAIN).all()


def test_what_looks_worse_without_the_defect_stays(seen):
    first, found, *_ = second_look_at(seen, 3 * seen)
    assert (found == first).all()


def test_the_largest_value_stays_and_does_not_stand_alone():
    """Also where interpolation would bring down what one cell alone has."""
    x = torch.zeros(1, 1, 96, 96)
    low, high = _halos._PLAIN
    for value in (low + 0.1, high, 40.0):
        x[:, :, 48:50, 48:50] = value
        first, found = second_look(x)
        assert found.amax() == first.amax()
    seen = torch.zeros(1, 2, 12, 12)
    seen[0, 0, 6, 4:8] = PLAIN * torch.tensor([0.91, 0.99, 1.0, 0.98])
    seen[0, 1, 6, 4:8] = 3.0
    first, found, *_ = second_look_at(seen, torch.zeros_like(seen))
    assert found.max() == first.max()
    assert found[12, 10] > 0.7 * first[12, 10]


def test_what_is_replaced_goes_up_by_and_by(spot_and_speck):
    """A map that differs by rounding does not lose a defect."""
    x, start = spot_and_speck / PLAIN, _halos._PLAIN[0]
    first, unchanged = second_look(x * start)
    assert (unchanged == first).all()
    found = [second_look(x * (start + step))[1] for step in np.arange(0, 3, 1e-3)]
    steps = [float((b - a).abs().max()) for a, b in pairwise(found)]
    assert max(steps) < 0.05


def test_only_plain_defects_are_looked_at_again():
    maps, start = torch.zeros(3, 4, 4), _halos._PLAIN[0]
    maps[1, 2, 2], maps[2, 0, 0] = start, start + 0.01
    assert has_plain_defect(maps).tolist() == [False, False, True]


@pytest.fixture(scope="module")
def detector_and_images():
    rng = np.random.default_rng(0)
    images = rng.integers(100, 140, (12, 80, 80, 3)).astype(np.uint8)
    detector = PatchAutoencoderDetector(epochs=4, target_fpr=0.5, random_state=0)
    detector.fit(images)
    defective = images[:4].copy()
    defective[1:, 30:44, 30:44] = [255, 0, 0]
    return detector, defective


@pytest.fixture
def any_defect_is_plain(monkeypatch, detector_and_images):
    """What is plain to a network that has learned little."""
    detector, images = detector_and_images
    peaks = -detector.score_samples(images)
    middle = (peaks[0] + peaks[1:].min()) / 2
    assert peaks[0] < middle
    monkeypatch.setattr(_halos, "_PLAIN", (middle, middle + 0.1))


@pytest.mark.usefixtures("any_defect_is_plain")
def test_scores_are_the_maxima_of_maps_with_a_second_look(detector_and_images):
    detector, images = detector_and_images
    maps, mapper = detector.anomaly_map(images), detector.fitted.mapper
    first = np.concatenate(
        list(mapper.over(as_images(images, None), mapper.first_look))
    )
    np.testing.assert_array_equal(maps[0], first[0])
    assert (maps[1:] < first[1:] - 1e-3).any((1, 2)).all()
    np.testing.assert_array_equal(-maps.max((1, 2)), detector.score_samples(images))
    masks = detector.predict_mask(images)
    np.testing.assert_array_equal(masks.any((1, 2)), detector.predict(images) == -1)


@pytest.mark.usefixtures("any_defect_is_plain")
def test_the_second_look_depends_on_no_other_image(
    detector_and_images, threads_as_before
):
    """Many batches are computed side by side, with one thread each; one has both."""
    torch.set_num_threads(2)
    detector, images = detector_and_images
    images = np.concatenate([images, images[::-1]] * 3)
    given = images.copy()
    together = detector.anomaly_map(images)
    alone = np.concatenate([detector.anomaly_map(image[None]) for image in images])
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(images, given)


@pytest.mark.usefixtures("any_defect_is_plain")
def test_copies_that_fill_up_a_batch_are_not_looked_at_again(
    monkeypatch, detector_and_images
):
    detector, images = detector_and_images
    looks = []
    monkeypatch.setattr(
        _maps, "without_halo", lambda *args, **kw: looks.append(1) or args[2]
    )
    detector.anomaly_map(images[1:2])
    assert len(looks) == 1


def test_the_second_look_by_tiles_is_that_of_the_whole(monkeypatch):
    rng = np.random.default_rng(1)
    images = rng.integers(100, 140, (3, 272, 160, 3)).astype(np.uint8)
    detector = PatchAutoencoderDetector(epochs=1, target_fpr=0.5, random_state=0)
    mapper = detector.fit(images[:2]).fitted.mapper
    images[2, 60:74, 50:64] = [255, 0, 0]
    first = mapper.first_look(images[2:])
    monkeypatch.setattr(_halos, "_PLAIN", (0.7 * first.max(), 0.8 * first.max()))
    whole = mapper(images[2:])
    assert (whole < first - 1e-3).any()
    monkeypatch.setattr(_tiles, "TILE", 64)
    np.testing.assert_allclose(mapper(images[2:]), whole, atol=1e-4 * whole.max())
