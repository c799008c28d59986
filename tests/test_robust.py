"""Thresholds from few scores: about the target share of good images is flagged."""

import numpy as np
import pytest
from scipy import stats

from skad.threshold.robust import robust_threshold


def peaks(rng, n):
    return rng.lognormal(1.0, 0.3, n)


@pytest.mark.parametrize("m", [10, 20, 60])
@pytest.mark.parametrize("target_fpr", [0.05, 0.1])
def test_about_the_target_share_is_flagged(m, target_fpr):
    rng = np.random.default_rng(0)
    flagged = [
        np.mean(-peaks(rng, 200) < robust_threshold(-peaks(rng, m), target_fpr))
        for _ in range(1000)
    ]
    assert target_fpr / 1.2 < np.mean(flagged) < 1.6 * target_fpr


def test_it_is_the_prediction_limit_of_the_logarithms():
    logarithms = np.array([-1.0, 0, 1, 2, 3])  # median 1, median deviation 1
    t = stats.t.ppf(0.9, 4)
    expected = 1 + t * np.sqrt(1 + 1 / 5) * 1 / stats.norm.ppf(0.75)
    found = np.log(-robust_threshold(-np.exp(logarithms), 0.1))
    assert found == pytest.approx(expected, rel=0.02)


def test_an_odd_image_moves_it_little():
    scores = -peaks(np.random.default_rng(0), 19)
    before = robust_threshold(scores, 0.05)
    assert before == pytest.approx(robust_threshold([*scores, -1e6], 0.05), rel=0.2)


@pytest.mark.parametrize("scores", [[-2.0], [-2.0] * 5, [0.0] * 4, [-1.0, -1e300]])
def test_it_is_finite_and_flags_no_typical_image(scores):
    offset = robust_threshold(scores, 0.05)
    assert (np.isfinite(offset) and offset < np.median(scores)) or offset == 0


def test_a_higher_rate_never_flags_less():
    scores = -peaks(np.random.default_rng(0), 12)
    offsets = [robust_threshold(scores, rate) for rate in (0.001, 0.01, 0.1, 0.4)]
    assert offsets == sorted(offsets)
