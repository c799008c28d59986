"""Confidence intervals of rates against their definition."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.exceptions import UndefinedMetricWarning

from skad.metrics import wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (400, 1000)])
def test_wilson_ends_are_where_the_score_test_turns(successes, n):
    for confidence in (0.5, 0.95):
        z = norm.ppf((1 + confidence) / 2)
        for end in wilson_interval(successes, n, confidence):
            # (p - rate)^2 = z^2 p (1 - p) / n defines both ends.
            distance = (end - successes / n) ** 2
            assert distance == pytest.approx(z**2 * end * (1 - end) / n, abs=1e-12)


def test_wilson_refuses_what_is_no_count_or_level():
    for successes, n in ((3, 2), (1.5, 10), (-1, 2), (1, "a")):
        with pytest.raises(ValueError, match="successes and n must be ints, 0 <="):
            wilson_interval(successes, n)
    for confidence in (95, None):
        with pytest.raises(ValueError, match="confidence must be above 0"):
            wilson_interval(1, 2, confidence=confidence)
    with pytest.warns(UndefinedMetricWarning, match="without a single trial"):
        assert np.isnan(wilson_interval(0, 0)).all()
