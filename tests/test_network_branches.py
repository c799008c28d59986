"""What the trained network gives: what the context predicts."""

import numpy as np
import torch
from torch.nn import functional as F

from skad.scoring.network_branches import around, fit_context


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
