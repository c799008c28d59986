"""How the evidence on good images is learned: in groups, where images are small."""

import numpy as np
import pytest

from skad.scoring.fitting import _together
from skad.scoring.gaussians import N_FOLDS


@pytest.mark.parametrize(
    ("n", "size", "n_groups"),
    [
        (200, (16, 16), 13),  # of 16 each
        (20, (64, 64), 20),
        (20, (256, 16), 20),
        (7, (16, 16), 4),  # at least as many as folds
        (2, (16, 16), 2),
    ],
)
def test_only_small_images_are_looked_at_together(n, size, n_groups):
    places = np.random.default_rng(0).permutation(n)
    groups = _together(places, size)
    assert len(groups) == n_groups >= min(n, N_FOLDS)
    np.testing.assert_array_equal(np.concatenate(groups), places)
