"""What is fitted to good images: tails, and Gaussians that leave images out."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skad.images.inputs import as_images
from skad.network.model import new_network
from skad.network.preparation import Preparation
from skad.scoring.anomaly_map import STRIDES, around, branches, piecewise_linear
from skad.scoring.fitting import (
    fit_context,
    fit_mapper,
    fit_tails,
)

CPU = torch.device("cpu")


def draw(n=9, size=(32, 32)):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, *size, 1), endpoint=True, dtype=np.uint8)


def fit(images, network=None):
    network = network or new_network(1, torch.Generator().manual_seed(0)).eval()
    size = images.shape[1:3]
    preparation = Preparation(np.full(1, 0.5), 0.3, size, size)
    places = np.arange(len(images))
    return fit_mapper(network, preparation, as_images(images, None), places)


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


def test_tails_are_those_of_images_left_out():
    """By Gaussians that had seen the images, distances would be lower."""
    images = draw()
    mapper = fit(images)
    with torch.inference_mode():
        x = mapper.preparation(images, CPU)
        parts = mapper.network, x, mapper.gaussians, mapper.context
        values = branches(*parts, (0, 0), x.shape[2:])
    for i in range(1, 1 + len(STRIDES)):
        assert mapper.tails[i, 1, 0] > values[i].median()  # of one pixel in two


def test_context_predicts_what_follows_from_it():
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, generator=rng)
    pairs = []
    for _ in range(8):
        coarsest = torch.randn(1, 5, 6, 9, generator=rng)
        values = torch.einsum("nchw,kc->knhw", around(coarsest), weight) + 2.0
        pairs.append((coarsest, F.interpolate(values, scale_factor=2.0)))
    context = fit_context(pairs)
    np.testing.assert_allclose(context.weight, weight, atol=0.02)
    np.testing.assert_allclose(context.bias, 2.0, atol=0.02)


def test_fitting_leaves_the_network_and_the_generators_alone():
    network = new_network(1, torch.Generator().manual_seed(0)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    fit(draw(4), network=network)
    assert torch.equal(torch.get_rng_state(), state)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
