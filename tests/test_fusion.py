"""How rare evidence is on good images, and how kinds of it are joined."""

import numpy as np
import pytest
import torch

from skad.scoring.fusion import combine, fit_tails, fit_view_lines, follow, on_one_scale

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
    for each in follow(values, found).numpy():
        np.testing.assert_allclose(each, expected, rtol=0.07, atol=0.05)


def test_surprise_rises_with_the_value():
    found_tails = tails()[:1]
    values = torch.linspace(-10, 40, 2001)
    found = follow(values[None], found_tails)[0]
    assert (found.diff() >= 0).all()
    above_the_lowest = values[1:] > found_tails[0, 0, 0]
    assert (found.diff()[above_the_lowest] > 0).all()


def test_surprise_goes_in_lines_from_knot_to_knot_and_on():
    found = tails()
    knots, levels = found.movedim(2, 0).numpy()
    as_far_again = [2 * line[:, -1:] - line[:, -2:-1] for line in (knots, levels)]
    values = torch.linspace(-8, float(as_far_again[0].min()), 500)
    for k, each in enumerate(follow(values.expand(N_KINDS, -1), found)):
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
    each = 1 + follow(evidence.movedim(1, 0), found).numpy()
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


def drawn_views(shape=(400, 900)):
    """Views (3, *shape) of good images, with tails of other forms, and their peaks."""
    drawn = torch.from_numpy(np.random.default_rng(0).exponential(size=(3, *shape)))
    views = torch.stack([drawn[0], drawn[1] ** 1.2, 3 * drawn[2].sqrt()]).float()
    return views.flatten(1), views.amax(2)


def test_good_pixels_reach_a_value_as_often_in_every_view():
    pixels, peaks = drawn_views()
    scaled = on_one_scale(pixels[None, :, None], fit_view_lines(pixels, peaks))
    for rarity in (0.5, 0.1, 0.01, 0.001):
        reached = scaled[0, :, 0].double().quantile(1 - rarity, dim=1)
        np.testing.assert_allclose(reached, reached[0], rtol=1e-2)


def test_views_reach_equally_far_in_good_images_and_go_on_by_a_factor():
    pixels, peaks = drawn_views()
    lines = fit_view_lines(pixels, peaks)
    usual = peaks.quantile(0.5, dim=1)
    scaled = on_one_scale(
        (usual * torch.tensor([[1.0], [5.0]]))[..., None, None], lines
    )
    np.testing.assert_allclose(scaled[0].flatten(), [usual[0]] * 3, rtol=1e-2)
    np.testing.assert_allclose(scaled[1], 5 * scaled[0], rtol=1e-5)


def test_the_first_view_stays_as_it_is():
    pixels, peaks = drawn_views()
    views = pixels.reshape(3, 4, 300, 300).movedim(1, 0)
    scaled = on_one_scale(views, fit_view_lines(pixels, peaks))
    np.testing.assert_array_equal(scaled[:, 0], views[:, 0])


@pytest.mark.parametrize("silent", [0.0, 1e-9])
def test_views_that_are_silent_on_good_images_are_not_blown_up(silent):
    pixels, peaks = drawn_views()
    pixels[1:], peaks[1:] = silent, silent
    lines = fit_view_lines(pixels, peaks)
    assert (lines.diff(dim=1) > 0).all()
    little = torch.tensor([0.0, 0.01, 0.01])[None, :, None, None]
    factor = peaks[0].quantile(0.5)  # what is silent counts as if it reached 1 nat
    assert (on_one_scale(little, lines) <= 3.001 * factor * 0.01).all()


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.5, 7.0, 1e5])
def test_lines_of_views_rise_even_where_good_images_are_all_alike(value):
    lines = fit_view_lines(torch.full((3, 50), value), torch.full((3, 5), value))
    assert (lines.diff(dim=1) > 0).all()
    assert on_one_scale(torch.full((1, 3, 2, 2), value + 1), lines).isfinite().all()


@pytest.mark.parametrize("factor", [0.3, 1.0, 30.0])
def test_lines_rise_where_rare_pixels_go_far_beyond_the_usual_peaks(factor):
    pixels = torch.linspace(0, 1, 5000) ** 40 * torch.tensor([[1], [factor], [100.0]])
    lines = fit_view_lines(100 * pixels, torch.full((3, 9), 6.0))
    assert (lines.diff(dim=1) > 0).all()
    assert on_one_scale(100 * pixels[None, :, None], lines).isfinite().all()


def test_no_line_is_steeper_than_three_times_the_factor_of_the_peaks():
    pixels = torch.cat([torch.linspace(0, 4, 999), torch.linspace(4, 9, 10)]).tile(3, 1)
    pixels[1:, 990:] = 5.0  # and the largest is as far as one pixel in a hundred
    peaks = torch.tensor([[9.0], [5.0], [5.0]]).expand(3, 7)
    knots, levels = fit_view_lines(pixels, peaks).unbind(2)
    assert (levels.diff() / knots.diff()).max() < 3.001 * 9 / 5


def test_where_images_are_small_their_peaks_may_be_below_rare_pixels():
    pixels = torch.arange(1.0, 4.0)[:, None] * torch.linspace(0, 9, 5000)
    lines = fit_view_lines(pixels, pixels[:, ::2500])
    assert (lines.diff(dim=1) > 0).all()
    scaled = on_one_scale(pixels[None, :, None], lines)[0, :, 0]
    np.testing.assert_allclose(scaled, pixels[:1].expand(3, -1), rtol=1e-3, atol=1e-4)
