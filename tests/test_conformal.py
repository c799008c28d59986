"""Thresholds against their definitions, and the promise against simulation."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from skad.threshold.conformal import (
    check_metric,
    conformal_p_value,
    conformal_threshold,
    labelled_threshold,
    promise_in_words,
    promised_fpr,
)

DRAWS = {
    "independent": lambda rng, n: rng.normal(size=n),
    "exchangeable": lambda rng, n: rng.normal(size=n) + 10 * rng.normal(),
    "ties": lambda rng, n: rng.integers(0, 5, n),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("m", "target_fpr"), [(19, 0.05), (30, 0.1)])
def test_a_new_good_image_is_flagged_no_more_often_than_promised(m, target_fpr, draw):
    rng, flagged = np.random.default_rng(m), []
    for _ in range(3000):
        new, *scores = DRAWS[draw](rng, m + 1)
        flagged.append(new < conformal_threshold(scores, target_fpr))
    error = 3 * math.sqrt(target_fpr / len(flagged))
    least = 0 if draw == "ties" else target_fpr - 1 / (m + 1) - error
    assert least <= np.mean(flagged) <= target_fpr + error


@pytest.mark.parametrize("m", [9, 19, 99, 199, 999])
def test_the_offset_is_the_k_th_score_exactly(m):
    shuffled = np.random.default_rng(0).permutation(m) + 1.0
    for percent in range(1, 100):
        k = math.floor(Fraction(percent, 100) * (m + 1))
        if k > 0:
            assert conformal_threshold(shuffled, percent / 100) == k


def test_too_few_scores_warn_of_the_least_promise_and_how_many_would_do():
    words = "18 good images can promise 5.26 % at best.* at least 19 good images"
    with pytest.warns(UserWarning, match=words):
        assert conformal_threshold(np.arange(18.0), 0.05) == 0
    conformal_threshold(np.arange(19.0), 0.05)
    assert promised_fpr(18, 0.05) == 1 / 19
    assert promised_fpr(19, 0.05) == 0.05


def test_p_values_are_counted_by_their_definition_and_agree_with_thresholds():
    rng = np.random.default_rng(1)
    calibration, scores = rng.integers(0, 30, size=(2, 40)).astype(float)
    p = conformal_p_value(scores, calibration)
    expected = [(1 + sum(s_i <= s for s_i in calibration)) / 41 for s in scores]
    np.testing.assert_allclose(p, expected)
    for target_fpr in (0.03, 0.11, 0.37):
        flagged = scores < conformal_threshold(calibration, target_fpr)
        np.testing.assert_array_equal(flagged, p <= target_fpr)


# ---- labelled images


def value_at(offset, scores, y, metric, cost_miss, cost_false_alarm):
    """Return the metric by its definition, in fractions, minus the cost; and alarms."""
    hits, alarms = (int(np.sum(scores[y == label] < offset)) for label in (-1, 1))
    bad, good = (int(np.sum(y == label)) for label in (-1, 1))
    if metric == "balanced_accuracy":
        return (Fraction(hits, bad) + Fraction(good - alarms, good)) / 2, alarms
    if metric == "f1":
        return Fraction(2 * hits, hits + alarms + bad), alarms
    cost = Fraction(cost_miss) * (bad - hits) + Fraction(cost_false_alarm) * alarms
    return -cost / len(y), alarms


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "cost"])
@pytest.mark.parametrize("seed", range(3))
def test_no_other_offset_does_better_by_brute_force(metric, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 9, size=20).astype(float)  # with ties
    y = rng.choice([-1, 1], size=20)
    y[:2] = -1, 1
    costs = [(1.0, 1.0), (5.0, 0.0), (0.25, 3.0)][seed % 3]
    chosen = labelled_threshold(scores, y, metric, *costs)

    values = [value_at(t, scores, y, metric, *costs) for t in np.arange(-0.5, 9)]
    best = max(values, key=lambda found: (found[0], -found[1]))  # fewest alarms
    assert value_at(chosen.offset, scores, y, metric, *costs) == best
    assert chosen.value == pytest.approx(abs(float(best[0])))
    assert chosen.metric == metric
    for label, rate, interval in (
        (-1, chosen.detection_rate, chosen.detection_interval),
        (1, chosen.false_alarm_rate, chosen.false_alarm_interval),
    ):
        flagged = scores[y == label] < chosen.offset
        exact = binomtest(int(flagged.sum()), len(flagged)).proportion_ci()
        assert rate == flagged.mean()
        assert interval == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_offsets_lie_midway_between_scores_and_tell_neighbouring_floats_apart():
    assert labelled_threshold([1.0, 2.0, 4.0, 5.0], [-1, -1, 1, 1]).offset == 3.0
    chosen = labelled_threshold([1.0, np.nextafter(1.0, 2)], [-1, 1])
    assert (chosen.detection_rate, chosen.false_alarm_rate) == (1.0, 0.0)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30, -1.3])
def test_flagging_all_or_nothing_is_among_the_candidates(size):
    scores, y = np.array([size, size, size]), [-1, 1, 1]
    none = labelled_threshold(scores, y, "cost", cost_false_alarm=9)
    every = labelled_threshold(scores, y, "cost", cost_miss=9)
    assert not (scores < none.offset).any()
    assert (scores < every.offset).all()
    assert every.offset <= 0 or size > 0  # what a roi leaves out has a map of 0


def test_what_cannot_set_a_threshold_is_refused():
    with pytest.raises(ValueError, match=r"both labels.*got only \+1.*without y"):
        labelled_threshold([0.0, 1.0], [1, 1])
    with pytest.raises(ValueError, match=r"metric must be one of .* got 'accuracy'"):
        check_metric("accuracy", 1, 1)
    for cost in (-1.0, np.inf, np.nan, None):
        with pytest.raises(ValueError, match="cost_miss must be a finite number >= 0"):
            check_metric("cost", cost, 1)
    with pytest.raises(ValueError, match="cost_miss or cost_false_alarm must be above"):
        check_metric("cost", 0, 0)


def test_a_promise_in_words():
    def promise(m=7, rate=np.nan):
        return promise_in_words(
            SimpleNamespace(
                promised_fpr_=rate,
                calibration_scores_=-np.arange(float(m)),
                offset_=2.0 - m,
            )
        )

    words = "at most 12.5 % of good images are flagged"
    assert promise(19, 0.125) == words
    assert promise(7, 0.125) == f"{words}; 7 good images can promise no less"
    words = "none, as target_fpr did not set it on held-out images; it flags 1 of 7"
    assert promise().startswith(words)
