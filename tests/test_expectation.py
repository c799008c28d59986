"""What the surroundings of a place let expect of the evidence there."""

import numpy as np
import torch
from torch.nn import functional as F

from skad.scoring.context import Expectation, fit_expectation

C, KINDS = 5, 3


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pairs(n=8, size=(6, 9), noise=0.1):
    """Evidence at twice the resolution, that follows from the features around."""
    weight = normal(KINDS, C, seed=1)
    for i in range(n):
        coarsest = normal(1, C, *size, seed=10 + i)
        around = F.avg_pool2d(coarsest, 3, 1, 1, count_include_pad=False)
        found = torch.einsum("nchw,kc->nkhw", around, weight) + 2.0
        found = F.interpolate(found, scale_factor=2.0, mode="nearest")
        yield coarsest, found + noise * normal(*found.shape, seed=100 + i)


def test_three_quarters_of_what_follows_from_the_surroundings_are_expected():
    expectation = fit_expectation(pairs())
    np.testing.assert_allclose(
        expectation.weight, 0.75 * normal(KINDS, C, seed=1), atol=0.02
    )
    np.testing.assert_allclose(expectation.bias, 1.5, atol=0.02)
    coarsest, found = next(pairs(noise=0.0))
    expected = F.interpolate(expectation(coarsest), scale_factor=2.0, mode="nearest")
    np.testing.assert_allclose(expected, 0.75 * found, atol=0.03)


def test_what_does_not_depend_on_the_surroundings_is_a_constant():
    expectation = fit_expectation(
        (coarsest, 3.0 + normal(1, 1, 60, 90, seed=i))
        for i, (coarsest, _) in enumerate(pairs())
    )
    np.testing.assert_allclose(expectation.weight, 0.0, atol=0.03)
    np.testing.assert_allclose(expectation.bias, 2.25, atol=0.03)


def test_no_more_is_expected_than_in_good_images():
    """Far from them the line would go on, and take off all that is found."""
    expectation = fit_expectation(pairs())
    usual = torch.cat([expectation(coarsest) for coarsest, _ in pairs()])
    far = expectation(1e6 * normal(1, C, 6, 9))
    for k in range(KINDS):
        most = usual[:, k].mean() + 10 * usual[:, k].std()
        np.testing.assert_allclose(far[0, k].max(), most, rtol=0.01)
    assert (far.amin() < usual.amin()).all()


def test_a_place_sees_its_neighbours_and_no_others():
    expectation = Expectation(torch.ones(1, 1), torch.zeros(1), torch.full((1,), 9.0))
    coarsest = torch.zeros(1, 1, 7, 8)
    coarsest[0, 0, 3, 4] = 9.0
    expected = torch.zeros(7, 8)
    expected[2:5, 3:6] = 1.0
    torch.testing.assert_close(expectation(coarsest)[0, 0], expected)
    # Beyond the rim there is nothing, rather than zeros.
    level = expectation(torch.full((1, 1, 1, 4), 2.0))
    torch.testing.assert_close(level, torch.full((1, 1, 1, 4), 2.0))


def test_features_without_any_variance_are_borne():
    constant = (torch.full((1, C, 2, 2), 0.0), torch.full((1, KINDS, 4, 4), 7.0))
    expectation = fit_expectation([constant] * 3)
    assert (expectation.weight == 0).all()
    np.testing.assert_allclose(expectation.bias, 5.25, rtol=0.01)
