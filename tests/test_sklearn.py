"""The checks that scikit-learn has for any estimator."""

import os
from unittest import SkipTest

import pytest
from sklearn import __version__ as sklearn_version
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import OneClassSVM
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_estimator,
    estimator_checks_generator,
    parametrize_with_checks,
)

from skad import PatchAutoencoderDetector

DETECTOR = PatchAutoencoderDetector(random_state=0)
QUICKER = PatchAutoencoderDetector(
    patch_size=4, batch_size=64, validation_fraction=0.7, random_state=0
)


def in_a_pipeline(detector):
    return Pipeline([("as_given", FunctionTransformer()), ("detector", detector)])


PIPELINE = in_a_pipeline(QUICKER)

# No pipeline passes these, see test_pipelines_of_scikit_learns_own_fail_the_same.
NOT_FOR_PIPELINES = {
    "check_estimators_overwrite_params": "fit replaces the steps by fitted ones",
    "check_dont_overwrite_parameters": "fit replaces the steps by fitted ones",
    "check_outliers_train": "a pipeline has no offset_",
}


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
@pytest.mark.filterwarnings("ignore:y must hold the labels")
@parametrize_with_checks(
    [DETECTOR, PIPELINE],
    expected_failed_checks=lambda e: NOT_FOR_PIPELINES if e is PIPELINE else {},
)
def test_scikit_learns_checks_pass(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        pytest.fail(f"the check was skipped: {reason}")


def names_of_checks(estimator):
    checks = (check for _, check in estimator_checks_generator(estimator))
    return [getattr(check, "func", check).__name__ for check in checks]


def test_the_checks_are_those_for_scikit_learns_own_detector():
    ours, own = names_of_checks(DETECTOR), names_of_checks(IsolationForest())
    missing = set(own) - set(ours)
    assert {name for name in missing if "sample_weight" not in name} == set()
    if sklearn_version.startswith("1.9."):
        assert len(ours) == 47


@pytest.mark.filterwarnings("ignore")  # as they come from scikit-learn's own
@pytest.mark.parametrize(
    ("own", "more"),
    [
        (OneClassSVM(), set()),
        (IsolationForest(n_estimators=5, random_state=0), {"check_estimators_nan_inf"}),
    ],
    ids=["OneClassSVM", "IsolationForest"],
)
def test_pipelines_of_scikit_learns_own_fail_the_same(own, more):
    results = check_estimator(in_a_pipeline(own), on_skip=None, on_fail=None)
    failed = {r["check_name"] for r in results if r["status"] == "failed"}
    assert failed == NOT_FOR_PIPELINES.keys() | more  # IsolationForest accepts NaN


def test_no_check_is_switched_off():
    tags = get_tags(PatchAutoencoderDetector())
    assert tags.estimator_type == "outlier_detector"
    assert tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert not tags._skip_test
    assert os.environ["SCIPY_ARRAY_API"] == "1"  # by conftest.py
