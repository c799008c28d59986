"""The checks that scikit-learn has for any estimator."""

import os
from unittest import SkipTest

import pytest
from sklearn import __version__ as sklearn_version
from sklearn.ensemble import IsolationForest
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)

from skad import PatchAutoencoderDetector

DETECTOR = PatchAutoencoderDetector(epochs=1, random_state=0)


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
@pytest.mark.filterwarnings("ignore:y must hold the labels")
@parametrize_with_checks([DETECTOR])
def test_scikit_learns_checks_pass(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        pytest.fail(f"the check was skipped: {reason}")


def names_of_checks(estimator):
    checks = (check for _, check in estimator_checks_generator(estimator))
    return [getattr(check, "func", check).__name__ for check in checks]


def test_no_check_is_switched_off():
    ours, own = names_of_checks(DETECTOR), names_of_checks(IsolationForest())
    missing = set(own) - set(ours)
    assert {name for name in missing if "sample_weight" not in name} == set()
    if sklearn_version.startswith("1.9."):
        assert len(ours) == 47
    tags = get_tags(DETECTOR)
    assert tags.estimator_type == "outlier_detector"
    assert tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert not tags._skip_test
    assert os.environ["SCIPY_ARRAY_API"] == "1"  # by conftest.py
