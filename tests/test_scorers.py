"""Scorers against counts by hand, slow loops, and inside scikit-learn's searches."""

import pickle
from itertools import product

import numpy as np
import pytest
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, roc_curve
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate

from skad.metrics import (
    balanced_accuracy_scorer,
    detection_rate_at_fpr,
    f1_scorer,
    image_auroc_score,
    image_auroc_scorer,
    make_cost_scorer,
    make_detection_rate_at_fpr_scorer,
    mean_cost,
)

cost_scorer = make_cost_scorer(cost_miss=10, cost_false_alarm=1)
SCORERS = {
    "balanced_accuracy": balanced_accuracy_scorer,
    "cost": cost_scorer,
    "detection_rate": make_detection_rate_at_fpr_scorer(max_fpr=0.25),
    "f1": f1_scorer,
    "image_auroc": image_auroc_scorer,
}
NEED_BOTH_LABELS = sorted(set(SCORERS) - {"cost"})


class Brightness(OutlierMixin, BaseEstimator):
    """Score an image by its brightest pixel, and count how often that is done."""

    def __init__(self, offset=-0.5):
        self.offset = offset

    def fit(self, X, y=None):
        self.offset_ = self.offset
        self.n_scored_ = 0
        return self

    def score_samples(self, X):
        self.n_scored_ += 1
        return -np.asarray(X).max(axis=(1, 2))

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) >= 0, 1, -1)


def images(*peaks):
    X = np.zeros((len(peaks), 3, 4))
    X[:, 1, 2] = peaks
    return X


# Four good images, one of them a false alarm; three anomalous ones, one overlooked.
X = images(0.1, 0.2, 0.3, 0.8, 0.4, 0.6, 0.9)
y = np.array([1, 1, 1, 1, -1, -1, -1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("balanced_accuracy", (3 / 4 + 2 / 3) / 2),
        ("cost", -(10 * 1 + 1 * 1) / 7),
        ("detection_rate", 1.0),  # one of four good images may be flagged: 0.8
        ("f1", 2 * 2 / (2 * 2 + 1 + 1)),
        ("image_auroc", (3 + 3 + 3 + 1) / 12),
    ],
)
def test_scores_by_hand(name, expected):
    score = SCORERS[name](Brightness().fit(X), X, y)
    assert isinstance(score, float)
    assert score == pytest.approx(expected)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("dtype", [object, float, np.int8])
def test_labels_may_be_numbers_of_any_type(name, dtype):
    detector = Brightness().fit(X)
    expected = SCORERS[name](detector, X, y)
    assert SCORERS[name](detector, X, y.astype(dtype)) == expected


@pytest.mark.parametrize("name", SCORERS)
def test_no_scorer_gives_more_than_a_perfect_detector_gets(name):
    perfect = SCORERS[name](Brightness().fit(X), images(0, 0, 1, 1), [1, 1, -1, -1])
    assert perfect == (0 if name == "cost" else 1)
    worst = SCORERS[name](Brightness().fit(X), images(1, 1, 0, 0), [1, 1, -1, -1])
    assert worst == (-5.5 if name == "cost" else 0)


@pytest.mark.parametrize("name", ["detection_rate", "image_auroc"])
def test_the_threshold_does_not_matter_where_scores_are_judged(name):
    scores = {SCORERS[name](Brightness(t).fit(X), X, y) for t in (-9, -0.5, 9)}
    assert len(scores) == 1


def slow_detection_rate(y, scores, max_fpr):
    """Try every threshold, count, and keep the best that is allowed."""
    best = 0.0
    for offset in [*sorted(set(scores)), np.inf]:
        flagged = scores < offset
        if flagged[y == 1].sum() <= max_fpr * (y == 1).sum() + 1e-9:
            best = max(best, flagged[y == -1].mean())
    return best


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("max_fpr", [0, 0.05, 0.1, 0.29, 0.5, 0.99])
def test_detection_rate_equals_a_slow_search(seed, max_fpr):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, -1], rng.integers(1, 40, 2)))
    scores = rng.integers(-8, 8, len(labels)) / 8 + (labels == 1) * 0.5  # many ties
    expected = slow_detection_rate(labels, scores, max_fpr)
    assert detection_rate_at_fpr(labels, scores, max_fpr) == expected


@pytest.mark.parametrize("max_fpr", [0, 0.03, 0.2])
def test_detection_rate_is_a_point_of_scikit_learns_roc_curve(max_fpr):
    rng = np.random.default_rng(0)
    labels = np.repeat([1, -1], [70, 30])
    scores = rng.normal(labels * 0.7)
    fpr, tpr, _ = roc_curve(labels == -1, -scores, drop_intermediate=False)
    assert detection_rate_at_fpr(labels, scores, max_fpr) == tpr[fpr <= max_fpr].max()


def test_a_tie_with_a_good_image_that_may_not_be_flagged_is_not_found():
    assert detection_rate_at_fpr([1, 1, -1], [-0.1, -0.2, -0.2], 0) == 0
    assert detection_rate_at_fpr([1, 1, -1], [-0.1, -0.2, -0.2], 0.5) == 1


def test_a_share_that_is_a_whole_number_of_images_is_counted_whole():
    labels = np.repeat([1, -1], [100, 1])  # 0.29 * 100 is 28.999999999999996
    scores = np.append(np.arange(100.0), 28.5)
    assert detection_rate_at_fpr(labels, scores, 0.29) == 1
    assert detection_rate_at_fpr(labels, scores, 0.28) == 0


def test_mean_cost_by_a_loop():
    table = {(1, 1): 0, (-1, -1): 0, (-1, 1): 7.5, (1, -1): 0.5}
    for labels in product([1, -1], repeat=3):
        for predicted in product([1, -1], repeat=3):
            expected = sum(table[pair] for pair in zip(labels, predicted, strict=True))
            cost = mean_cost(labels, predicted, cost_miss=7.5, cost_false_alarm=0.5)
            assert cost == pytest.approx(expected / 3)


def test_the_default_cost_is_the_share_of_mistakes():
    assert mean_cost([1, -1, -1, 1], [1, 1, -1, -1]) == 0.5


def test_one_kind_alone_has_a_cost():
    assert cost_scorer(Brightness().fit(X), images(0, 1), [1, 1]) == -0.5
    assert cost_scorer(Brightness().fit(X), images(0, 1), [-1, -1]) == -5


@pytest.mark.parametrize("name", NEED_BOTH_LABELS)
@pytest.mark.parametrize(("label", "missing"), [(1, "anomalous"), (-1, "good")])
def test_one_kind_alone_is_undefined_elsewhere(name, label, missing):
    with pytest.warns(UndefinedMetricWarning, match=f"without a single {missing} imag"):
        score = SCORERS[name](Brightness().fit(X), images(0, 1), [label, label])
    assert np.isnan(score)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize(
    "labels", [[0, 0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 2, -1, -1, -1]]
)
def test_other_labels_are_an_error_that_says_what_to_do(name, labels):
    with pytest.raises(ValueError, match=r"labels \+1 \(good\) and -1") as error:
        SCORERS[name](Brightness().fit(X), X, labels)
    assert "np.where(bad, -1, 1)" in str(error.value)


@pytest.mark.parametrize("name", SCORERS)
def test_labels_of_text_and_of_another_length_are_an_error(name):
    with pytest.raises(ValueError, match=r"labels \+1"):
        SCORERS[name](Brightness().fit(X), X, ["good"] * 4 + ["bad"] * 3)
    with pytest.raises(ValueError, match=r"one label an image, 7 in all"):
        SCORERS[name](Brightness().fit(X), X, [1, -1])


def test_predictions_that_are_scores_are_an_error():
    with pytest.raises(ValueError, match=r"predictions must be \+1 .* got \[-0.5, 0.2"):
        mean_cost([1, -1], [0.2, -0.5])


@pytest.mark.parametrize("max_fpr", [-0.1, 1, 5, float("nan"), None, "a"])
def test_a_share_out_of_range_is_an_error_at_once(max_fpr):
    with pytest.raises(ValueError, match=r"max_fpr must be from 0 to below 1; got"):
        make_detection_rate_at_fpr_scorer(max_fpr)
    with pytest.raises(ValueError, match=r"max_fpr must be from 0 to below 1; got"):
        detection_rate_at_fpr(y, np.zeros(7), max_fpr)


@pytest.mark.parametrize("name", ["cost_miss", "cost_false_alarm"])
@pytest.mark.parametrize("cost", [-1, float("inf"), float("nan"), None, "a"])
def test_a_cost_out_of_range_is_an_error_at_once(name, cost):
    costs = {"cost_miss": 1, "cost_false_alarm": 1, name: cost}
    with pytest.raises(ValueError, match=f"{name} must be a finite number >= 0; got"):
        make_cost_scorer(**costs)
    with pytest.raises(ValueError, match=f"{name} must be a finite number >= 0; got"):
        mean_cost(y, y, **costs)


def test_one_of_the_costs_may_be_0_and_not_both():
    assert mean_cost([1, -1], [-1, 1], cost_miss=0, cost_false_alarm=4) == 2
    assert mean_cost([1, -1], [-1, 1], cost_miss=4, cost_false_alarm=0) == 2
    with pytest.raises(ValueError, match="cost_miss or cost_false_alarm must be above"):
        make_cost_scorer(cost_miss=0, cost_false_alarm=0)


def test_a_search_finds_the_threshold_that_costs_least():
    labels = np.tile([1, 1, 1, -1], 6)
    peaks = np.tile([0.1, 0.3, 0.5, 0.4], 6)
    offsets = {"offset": [-0.2, -0.35, -0.45, -0.6]}
    best = {}
    for costs in ((10, 1), (1, 10)):
        scorer = make_cost_scorer(cost_miss=costs[0], cost_false_alarm=costs[1])
        search = GridSearchCV(Brightness(), offsets, scoring=scorer, cv=2)
        best[costs] = search.fit(images(*peaks), labels).best_params_["offset"]
    assert best == {(10, 1): -0.35, (1, 10): -0.6}


def test_all_scorers_together_score_the_images_once_for_scores_and_once_for_labels():
    labels = np.tile([1, 1, 1, -1], 6)
    peaks = np.tile([0.1, 0.3, 0.5, 0.4], 6)
    result = cross_validate(
        Brightness(),
        images(*peaks),
        labels,
        scoring=SCORERS,
        cv=2,
        return_estimator=True,
        error_score="raise",
    )
    assert {f"test_{name}" for name in SCORERS} <= set(result)
    assert [detector.n_scored_ for detector in result["estimator"]] == [2, 2]


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_pickle_and_name_themselves(name):
    scorer = SCORERS[name]
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy(Brightness().fit(X), X, y) == scorer(Brightness().fit(X), X, y)
    assert repr(scorer) == repr(copy)
    assert name.split("_")[0] in repr(scorer)


def test_an_estimator_with_a_decision_function_alone_will_do():
    class Bare(OutlierMixin, BaseEstimator):
        def decision_function(self, X):
            return -X.max(axis=(1, 2))

    assert image_auroc_scorer(Bare(), X, y) == pytest.approx(10 / 12)


def test_scikit_learns_roc_auc_gives_nothing_for_a_perfect_detector_with_labels_0_1():
    """What docs/scikit_learn.md warns of: 1 is taken for the higher score, good."""
    detector = Brightness().fit(X)
    perfect = images(0, 0, 1, 1)
    roc_auc = get_scorer("roc_auc")
    assert roc_auc(detector, perfect, [0, 0, 1, 1]) == 0.0
    assert roc_auc(detector, perfect, [1, 1, -1, -1]) == 1.0
    assert image_auroc_score([1, 1, -1, -1], detector.score_samples(perfect)) == 1.0
    with pytest.raises(ValueError, match="where bad is True for anomalous"):
        image_auroc_scorer(detector, perfect, [0, 0, 1, 1])


def test_roc_auc_and_the_image_auroc_are_one_number_with_our_labels():
    labels, peaks = np.tile([1, 1, 1, -1], 6), np.linspace(0, 1, 24)[::-1]
    for scoring in ("roc_auc", image_auroc_scorer):
        scores = cross_val_score(Brightness(), images(*peaks), labels, scoring=scoring)
        assert len(scores) == 5
        if scoring == "roc_auc":
            expected = scores
    np.testing.assert_allclose(scores, expected)
