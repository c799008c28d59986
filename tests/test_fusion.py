"""From the values of all branches to one map: tails, weights, the image as a whole."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from skad.scoring.fusion import (
    NETWORK_WEIGHTS,
    fit_tails,
    fit_usual,
    join,
    piecewise_linear,
    raise_by_whole,
)


def knots(m=3):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.random((m, 10, 2)).cumsum(1)).float()


def test_lines_go_from_knot_to_knot_and_on():
    lines = knots()
    values = torch.linspace(-1, 9, 500)
    found = piecewise_linear(values.expand(3, -1), lines)
    for scores, (x, y) in zip(found, lines.movedim(2, 1).numpy(), strict=True):
        x, y = (np.append(k, k[-1] + 99 * (k[-1] - k[-2])) for k in (x, y))
        expected = np.interp(values, x, y - y[0])
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_branches_are_joined_by_their_weighted_geometric_mean():
    scores = torch.rand(len(NETWORK_WEIGHTS), 2, 5, 6, dtype=torch.float64)
    logs = np.average(np.log1p(scores.numpy()), axis=0, weights=NETWORK_WEIGHTS)
    np.testing.assert_allclose(join(scores, NETWORK_WEIGHTS), logs)


def test_calibrated_scores_are_minus_the_logarithms_of_tail_probabilities():
    """For values of a known distribution."""
    means = (1, 2, 5)
    drawn = np.random.default_rng(0).exponential(size=(3, 400_000))
    tails = fit_tails(torch.from_numpy(drawn * np.array(means)[:, np.newaxis]).float())
    expected = -np.log([0.5, 1e-2, 1e-3, 1e-4, 1e-6])
    values = torch.from_numpy(np.outer(means, expected)).float()
    for scores in piecewise_linear(values, tails).numpy():
        np.testing.assert_allclose(scores, expected, rtol=0.07, atol=0.05)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e5])
def test_tails_rise_even_where_good_images_are_all_alike(value):
    tails = fit_tails(torch.full((3, 50), value))
    assert (tails.diff(dim=1) > 0).all()
    scores = piecewise_linear(torch.full((3, 4), value + 1), tails)
    assert scores.isfinite().all()


def test_the_map_of_an_unusual_image_rises_in_proportion():
    """By part * log(1 + log(P(Z > 1) / P(Z > z))) at its peak."""
    joined, usual = torch.rand(3, 5, 6), torch.tensor([2.0, 0.5])
    means = usual[0] + usual[1] * torch.tensor([-5.0, 0.99, 4.0])
    raised = raise_by_whole(joined, means, usual, 0.7)
    assert torch.equal(raised[:2], joined[:2])
    rise = float(raised[2].max() - joined[2].max())
    expected = 0.7 * np.log1p(norm.logsf(1) - norm.logsf(4))
    assert rise == pytest.approx(expected, rel=1e-3)
    share = (joined[2] / joined[2].max()).square()
    np.testing.assert_allclose(raised[2], joined[2] + rise * share, rtol=1e-5)


@pytest.mark.parametrize("z", [10.0, 1e5, 1e15])
def test_far_more_unusual_images_rise_by_finite_amounts(z):
    raised = raise_by_whole(torch.ones(1, 2, 2), torch.tensor([z]), torch.eye(2)[1], 1)
    assert 3 < raised[0, 0, 0] < 200


def test_usual_images_have_mean_and_deviation_and_some_spread():
    means = torch.tensor([1.0, 2.0, 6.0])
    np.testing.assert_allclose(fit_usual(means), [3.0, means.numpy().std()], rtol=1e-6)
    assert fit_usual(torch.ones(4))[1] > 0.01
