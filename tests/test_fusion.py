"""How rare evidence is on good images, and how kinds of it are joined."""

import numpy as np
import pytest
import torch

from skad._fusion import combine, fit_tails, loudest, surprise, view_scales

N_KINDS = 4
EQUAL = (1.0,) * N_KINDS


def tails(seed=0):
    pixels = torch.randn(N_KINDS, 5000, generator=torch.Generator().manual_seed(seed))
    return fit_tails(pixels, pixels.reshape(N_KINDS, 50, 100).amax(2), 100)


def test_surprise_is_how_rare_a_value_is():
    """For evidence of known distribution: minus the logarithm of its tail."""
    rng = np.random.default_rng(0)
    n, n_pixels, means = 400, 900, (1, 2, 5)
    drawn = rng.exponential(size=(3, n, n_pixels)) * np.array(means)[:, None, None]
    pixels = torch.from_numpy(drawn.reshape(3, -1)).float()
    found = fit_tails(pixels, torch.from_numpy(drawn.max(2)).float(), n_pixels)
    expected = -np.log([0.5, 1e-2, 1e-3, 1e-4, 1e-6])
    values = torch.from_numpy(np.outer(means, expected)).float()
    for each in surprise(values, found).numpy():
        np.testing.assert_allclose(each, expected, rtol=0.07, atol=0.05)


def test_surprise_rises_with_the_value():
    found_tails = tails()[:1]
    values = torch.linspace(-10, 40, 2001)
    found = surprise(values[None], found_tails)[0]
    assert (found.diff() >= 0).all()
    above_the_lowest = values[1:] > found_tails[0, 0, 0]
    assert (found.diff()[above_the_lowest] > 0).all()


def test_surprise_goes_in_lines_from_knot_to_knot_and_on():
    found = tails()
    knots, levels = found.movedim(2, 0).numpy()
    as_far_again = [2 * line[:, -1:] - line[:, -2:-1] for line in (knots, levels)]
    values = torch.linspace(-8, float(as_far_again[0].min()), 500)
    for k, each in enumerate(surprise(values.expand(N_KINDS, -1), found)):
        x, y = (
            np.append(line[k], more[k])
            for line, more in zip((knots, levels), as_far_again, strict=True)
        )
        np.testing.assert_allclose(each, np.interp(values, x, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("i", [0, 1])
def test_kinds_are_joined_by_the_weighted_geometric_mean(i):
    found = tails()
    evidence = 3 * torch.randn(
        2, N_KINDS, 5, 6, generator=torch.Generator().manual_seed(1)
    )
    each = 1 + surprise(evidence.movedim(1, 0), found).numpy()
    views = (3.0, 1.0, 0.5, 0.0), (0.0, 1.0, 0.0, 1.0)
    powers = [value**weight for value, weight in zip(each, views[i], strict=True)]
    expected = np.prod(powers, axis=0) ** (1 / sum(views[i])) - 1
    joined = combine(evidence, found, views)[:, i]
    np.testing.assert_allclose(joined, expected, rtol=1e-4, atol=1e-6)


def test_no_evidence_is_nothing():
    assert (combine(torch.full((1, N_KINDS, 4, 4), -1e6), tails(), [EQUAL]) == 0).all()


def test_kinds_that_agree_say_more_than_one_that_shouts():
    found = tails()
    usual, seen = found[:, 1, 0], found[:, 7, 0]  # one pixel in 2, one in 1000
    loud = torch.where(torch.arange(N_KINDS) == 0, 40.0, usual)
    agreed, alone = (
        float(combine(v[None, :, None, None], found, [EQUAL])) for v in (seen, loud)
    )
    assert agreed > alone


@pytest.mark.parametrize("value", [0.0, -3.0, 50.0, 1e5])
def test_tails_rise_even_where_good_images_are_all_alike(value):
    found = fit_tails(torch.full((3, 50), value), torch.full((3, 5), value), 10)
    assert (found.diff(dim=1) > 0).all()
    views = combine(torch.full((1, 3, 2, 2), value + 1), found, [EQUAL[:3]] * 3)
    assert views.isfinite().all()


def test_the_largest_view_is_heard_at_every_pixel():
    drawn = torch.Generator().manual_seed(1)
    views = torch.rand(3, 2, 5, 6, generator=drawn)
    expected = np.maximum(views[:, 0].numpy(), 0.5 * views[:, 1].numpy())
    np.testing.assert_array_equal(loudest(views, torch.tensor([1.0, 0.5])), expected)


def test_views_are_scaled_to_equal_peaks():
    peaks = torch.tensor([[4.0, 8.0, 2.0], [3.0, 20.0, 2.0], [9.0, 7.0, 2.0]])
    torch.testing.assert_close(view_scales(peaks), torch.tensor([1.0, 0.5, 2.0]))


def test_views_that_are_silent_on_good_images_are_not_blown_up():
    peaks = torch.tensor([[0.0, 1e-9, 0.5]] * 3)
    assert (view_scales(peaks) == 1).all()
