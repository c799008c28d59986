"""Thresholds against their definitions, and the promise against simulation."""

import math
import warnings
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import beta

from skad.threshold.conformal import (
    conformal_p_value,
    conformal_threshold,
    labelled_threshold,
    promised_fpr,
)
from skad.threshold.promise import promise_in_words


def simulated_alarm_rates(m, target_fpr, draw, repetitions=4000):
    """Flagged shares of a new good score, one a repetition."""
    rng = np.random.default_rng(m)
    flagged = np.empty(repetitions)
    for i in range(repetitions):
        scores = draw(rng, m + 1)
        flagged[i] = scores[0] < conformal_threshold(scores[1:], target_fpr)
    return flagged


@pytest.mark.parametrize("target_fpr", [0.05, 0.2])
@pytest.mark.parametrize("m", [19, 20, 50])
def test_a_new_good_image_is_flagged_no_more_often_than_promised(m, target_fpr):
    flagged = simulated_alarm_rates(m, target_fpr, lambda rng, n: rng.normal(size=n))
    error = 3 * math.sqrt(target_fpr / len(flagged))
    assert target_fpr - 1 / (m + 1) - error <= flagged.mean() <= target_fpr + error


def test_the_promise_holds_for_scores_that_hang_together():
    # Exchangeable, not independent: all share a level.
    def draw(rng, n):
        return rng.normal(size=n) + 10 * rng.normal()

    flagged = simulated_alarm_rates(30, 0.1, draw)
    assert flagged.mean() <= 0.1 + 3 * math.sqrt(0.1 / len(flagged))


def test_the_promise_holds_with_ties_which_count_as_good():
    flagged = simulated_alarm_rates(30, 0.1, lambda rng, n: rng.integers(0, 5, size=n))
    assert flagged.mean() <= 0.1 + 3 * math.sqrt(0.1 / len(flagged))
    same = np.zeros(30)
    assert not (same < conformal_threshold(same, 0.1)).any()


@pytest.mark.parametrize("percent", range(1, 100))
def test_the_offset_is_the_k_th_score_exactly(percent):
    for m in (1, 9, 19, 24, 99, 199, 999):
        k = math.floor(Fraction(percent, 100) * (m + 1))
        if k == 0:
            continue
        shuffled = np.random.default_rng(0).permutation(m) + 1.0
        assert conformal_threshold(shuffled, percent / 100) == k


def test_too_few_scores_warn_of_the_least_promise_and_how_many_would_do():
    with pytest.warns(
        UserWarning, match="18 good images can promise 5.26 % at best"
    ) as record:
        offset = conformal_threshold(np.arange(18.0), 0.05)
    assert offset == 0.0
    assert "at least 19 good images" in str(record[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conformal_threshold(np.arange(19.0), 0.05)


def test_p_values_are_counted_by_their_definition():
    rng = np.random.default_rng(0)
    calibration = rng.integers(0, 8, size=25).astype(float)
    scores = np.array([-1.0, 0.0, 3.0, 3.5, 7.0, 99.0])
    expected = [(1 + sum(s_i <= s for s_i in calibration)) / 26 for s in scores]
    np.testing.assert_allclose(conformal_p_value(scores, calibration), expected)


def test_an_image_is_flagged_exactly_when_its_p_value_is_within_the_target():
    rng = np.random.default_rng(1)
    calibration, scores = rng.integers(0, 30, size=(2, 40)).astype(float)
    for target_fpr in (0.03, 0.11, 0.37):
        flagged = scores < conformal_threshold(calibration, target_fpr)
        p = conformal_p_value(scores, calibration)
        np.testing.assert_array_equal(flagged, p <= target_fpr)


@pytest.mark.parametrize("function", [conformal_threshold, conformal_p_value])
def test_bad_calibration_scores_are_named(function):
    def call(calibration):
        if function is conformal_threshold:
            return function(calibration, 0.05)
        return function([0.0], calibration)

    with pytest.raises(ValueError, match="at least one score; got none"):
        call([])
    with pytest.raises(ValueError, match=r"calibration_scores\[1\] is nan"):
        call([0.0, np.nan])
    with pytest.raises(ValueError, match=r"one-dimensional.*\(2, 2\)"):
        call(np.zeros((2, 2)))


@pytest.mark.parametrize("target_fpr", [0, 1, -0.1, 5, np.nan])
def test_a_target_outside_its_range_is_refused(target_fpr):
    with pytest.raises(ValueError, match="target_fpr must be above 0 and below 1"):
        conformal_threshold(np.arange(30.0), target_fpr)


# ---- labelled images


def exact_value(scores, y, offset, metric, cost_miss, cost_false_alarm):
    """The metric by its definition, in fractions; the cost with its sign turned."""
    tp = sum(
        1 for s, label in zip(scores, y, strict=True) if label == -1 and s < offset
    )
    fp = sum(1 for s, label in zip(scores, y, strict=True) if label == 1 and s < offset)
    bad, good = list(y).count(-1), list(y).count(1)
    if metric == "balanced_accuracy":
        return (Fraction(tp, bad) + Fraction(good - fp, good)) / 2, fp
    if metric == "f1":
        return Fraction(2 * tp, 2 * tp + fp + (bad - tp)), fp
    cost = Fraction(cost_miss) * (bad - tp) + Fraction(cost_false_alarm) * fp
    return -cost / len(y), fp


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "cost"])
@pytest.mark.parametrize("seed", range(15))
def test_no_other_offset_does_better_by_brute_force(metric, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 9, size=20).astype(float)  # with ties
    y = rng.choice([-1, 1], size=20)
    y[:2] = -1, 1
    costs = [(1.0, 1.0), (5.0, 0.5), (0.25, 3.0)][seed % 3]
    chosen = labelled_threshold(scores, y, metric, *costs)

    results = [
        exact_value(scores, y, offset, metric, *costs) for offset in np.arange(-0.5, 9)
    ]
    best = max(value for value, _ in results)
    fewest_alarms = min(alarms for value, alarms in results if value == best)
    assert exact_value(scores, y, chosen.offset, metric, *costs) == (
        best,
        fewest_alarms,
    )
    assert chosen.value == pytest.approx(float(-best if metric == "cost" else best))
    assert chosen.metric == metric
    assert chosen.detection_rate == np.mean(scores[y == -1] < chosen.offset)
    assert chosen.false_alarm_rate == np.mean(scores[y == 1] < chosen.offset)


def test_offsets_lie_midway_between_scores():
    chosen = labelled_threshold([1.0, 2.0, 4.0, 5.0], [-1, -1, 1, 1])
    assert chosen.offset == 3.0


def test_neighbouring_floats_are_still_told_apart():
    low = 1.0
    chosen = labelled_threshold([low, np.nextafter(low, 2)], [-1, 1])
    assert (chosen.detection_rate, chosen.false_alarm_rate) == (1.0, 0.0)
    assert low < chosen.offset <= np.nextafter(low, 2)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_flagging_all_or_nothing_is_among_the_candidates(size):
    scores, y = np.array([size, size, size]), [-1, 1, 1]
    none = labelled_threshold(scores, y, "cost", cost_miss=1, cost_false_alarm=9)
    every = labelled_threshold(scores, y, "cost", cost_miss=9, cost_false_alarm=1)
    assert not (scores < none.offset).any()
    assert (scores < every.offset).all()


def test_flagging_all_flags_no_pixel_without_evidence():
    scores, y = np.array([-6.0, -1.3]), [1, -1]
    every = labelled_threshold(scores, y, "cost", cost_miss=1e4)
    assert (scores < every.offset).all()
    assert every.offset <= 0  # what a roi leaves out has a map of 0


def test_intervals_are_those_of_clopper_and_pearson():
    scores, y = [0.0] * 7 + [2.0] * 3 + [1.0] * 2 + [3.0] * 18, [-1] * 10 + [1] * 20
    chosen = labelled_threshold(scores, y, "cost", cost_miss=1, cost_false_alarm=2)
    assert (chosen.detection_rate, chosen.false_alarm_rate) == (0.7, 0.0)
    assert chosen.detection_interval == pytest.approx(
        (beta.ppf(0.025, 7, 4), beta.ppf(0.975, 8, 3))
    )
    assert chosen.false_alarm_interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))


def test_labels_that_cannot_set_a_threshold_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\].*np\.where\(bad, -1, 1\)"):
        labelled_threshold([0.0, 1.0], [0, 1])
    with pytest.raises(ValueError, match=r"both labels.*got \[1\].*target_fpr"):
        labelled_threshold([0.0, 1.0], [1, 1])
    with pytest.raises(ValueError, match=r"an image, 2 in all; got shape \(3,\)"):
        labelled_threshold([0.0, 1.0], [1, -1, 1])


def test_a_mistake_may_cost_nothing():
    scores, y = [-3.0, -2.0, -1.0, 0.0], [-1, 1, -1, 1]
    none = labelled_threshold(scores, y, "cost", cost_miss=0)
    every = labelled_threshold(scores, y, "cost", cost_false_alarm=0)
    assert (none.value, none.false_alarm_rate) == (0, 0)
    assert (every.value, every.detection_rate) == (0, 1)
    with pytest.raises(ValueError, match="cost_miss or cost_false_alarm must be above"):
        labelled_threshold(scores, y, "cost", cost_miss=0, cost_false_alarm=0.0)


@pytest.mark.parametrize("cost", [-1.0, np.inf, np.nan, None, "a"])
def test_metrics_and_costs_are_checked(cost):
    with pytest.raises(ValueError, match=r"metric must be one of .* got 'accuracy'"):
        labelled_threshold([0.0, 1.0], [-1, 1], "accuracy")
    with pytest.raises(ValueError, match="cost_miss must be a finite number >= 0"):
        labelled_threshold([0.0, 1.0], [-1, 1], "cost", cost_miss=cost)
    with pytest.raises(ValueError, match="cost_false_alarm must be a finite number"):
        labelled_threshold([0.0, 1.0], [-1, 1], "cost", cost_false_alarm=cost)


@pytest.mark.parametrize(
    ("m", "expected"), [(19, 0.05), (18, 1 / 19), (100, 0.05), (1, 0.5)]
)
def test_few_calibration_images_promise_less(m, expected):
    assert promised_fpr(m, 0.05) == pytest.approx(expected)


def test_a_promise_in_words():
    detector = SimpleNamespace(
        promised_fpr_=0.125,
        calibration_scores_=-np.arange(19.0),
        offset_=-16.0,
        contamination=0.1,
    )
    words = "at most 12.5 % of good images are flagged"
    assert promise_in_words(detector) == words
    detector.calibration_scores_ = -np.arange(7.0)
    assert promise_in_words(detector) == f"{words}; 7 good images can promise no less"
    detector.promised_fpr_, detector.offset_ = np.nan, -4.0
    flags = "set the threshold; it flags 2 of 7 good images"
    share = f"none: contamination, a share of the images, {flags}"
    assert promise_in_words(detector) == share
    detector.contamination = "auto"
    by_hand = "none: the threshold was set by hand; it flags 2 of 7 good images"
    assert promise_in_words(detector) == by_hand
    detector.labelled_threshold_ = ...
    assert promise_in_words(detector) == f"none: labels {flags}"
