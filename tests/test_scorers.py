"""Metrics of images against slow loops, and inside scikit-learn's searches."""

from itertools import product

import numpy as np
import pytest
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, roc_curve

from skad.metrics import (
    detection_rate_at_fpr,
    image_auroc_score,
    image_auroc_scorer,
)


class Brightness(OutlierMixin, BaseEstimator):
    """Score an image by its brightest pixel."""

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return -np.asarray(X).max(axis=1)

    decision_function = score_samples


# Four good images, one of them bright; three anomalous ones, one of them dark.
X = np.array([[0.1, 0.2, 0.3, 0.8, 0.4, 0.6, 0.9]]).T
y = np.array([1, 1, 1, 1, -1, -1, -1])


def slow_detection_rate(y, scores, max_fpr):
    """Try every threshold, count, and keep the best that is allowed."""
    best = 0.0
    for offset in [*sorted(set(scores)), np.inf]:
        flagged = scores < offset
        if flagged[y == 1].sum() <= max_fpr * (y == 1).sum() + 1e-9:
            best = max(best, flagged[y == -1].mean())
    return best


@pytest.mark.parametrize("max_fpr", [0, 0.05, 0.29, 0.99])
def test_detection_rate_equals_a_slow_search(max_fpr):
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.permutation(np.repeat([1, -1], rng.integers(1, 40, 2)))
        scores = rng.integers(-8, 8, len(labels)) / 8 + (labels == 1) * 0.5  # many ties
        expected = slow_detection_rate(labels, scores, max_fpr)
        assert detection_rate_at_fpr(labels, scores, max_fpr) == expected
        if len(set(scores)) == len(scores):
            fpr, tpr, _ = roc_curve(labels == -1, -scores, drop_intermediate=False)
            assert expected == tpr[fpr <= max_fpr].max()


def test_image_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    labels, scores = rng.choice([-1, 1], size=40), rng.integers(0, 9, size=40)
    pairs = product(scores[labels == 1], scores[labels == -1])
    shares = [(good > bad) + (good == bad) / 2 for good, bad in pairs]
    assert image_auroc_score(labels, scores) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("metric", [image_auroc_score, detection_rate_at_fpr])
@pytest.mark.parametrize(("label", "missing"), [(1, "anomalous"), (-1, "good")])
def test_one_label_alone_is_undefined(metric, label, missing):
    with pytest.warns(UndefinedMetricWarning, match=f"without a single {missing} imag"):
        assert np.isnan(metric([label, label], [0.0, 1.0]))


@pytest.mark.parametrize("metric", [image_auroc_score, detection_rate_at_fpr])
def test_other_labels_are_an_error_that_says_what_to_do(metric):
    words = r"labels \+1 \(good\) and -1.*np\.where\(bad, -1, 1\)"
    for labels in ([0, 1, 1], [1, 2, -1], ["bad"] * 3):
        with pytest.raises(ValueError, match=words):
            metric(labels, [1, -1, 1])
    with pytest.raises(ValueError, match=r"one label an image, 3 in all"):
        metric([1, -1], [1, -1, 1])


def test_other_arguments_are_an_error_at_once():
    with pytest.raises(ValueError, match="Input scores contains infinity"):
        image_auroc_score([1, -1], [0.0, np.inf])
    for max_fpr in (-0.1, 1, float("nan"), None):
        with pytest.raises(ValueError, match="max_fpr must be from 0 to below 1"):
            detection_rate_at_fpr(y, y, max_fpr)


def test_scikit_learns_roc_auc_is_the_image_auroc_for_our_labels_alone():
    """As docs/scikit_learn.md says: it takes label 1 for the higher score, good."""
    detector, roc_auc = Brightness().fit(X), get_scorer("roc_auc")
    assert roc_auc(detector, X, y) == image_auroc_scorer(detector, X, y)
    assert image_auroc_scorer(detector, X, y) == pytest.approx((3 + 3 + 3 + 1) / 12)
    assert roc_auc(detector, np.array([[0, 0, 1, 1]]).T, [0, 0, 1, 1]) == 0
