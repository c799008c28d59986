"""The checks that scikit-learn has for any estimator."""

import os

import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skad import PatchAutoencoderDetector

DETECTOR = PatchAutoencoderDetector(
    patch_size=4, epochs=1, batch_size=64, validation_fraction=0.7, random_state=0
)
PIPELINE = Pipeline([("as_given", FunctionTransformer()), ("detector", DETECTOR)])

# What holds for any pipeline, one with scikit-learn's own IsolationForest included.
NOT_FOR_PIPELINES = {
    "check_estimators_overwrite_params": "fit replaces the steps by fitted ones",
    "check_dont_overwrite_parameters": "fit replaces the steps by fitted ones",
    "check_outliers_train": "a pipeline has no offset_",
}


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
@pytest.mark.filterwarnings("ignore:Labels must be")
@parametrize_with_checks(
    [DETECTOR, PIPELINE],
    expected_failed_checks=lambda e: NOT_FOR_PIPELINES if e is PIPELINE else {},
)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


def test_no_check_is_switched_off():
    tags = get_tags(PatchAutoencoderDetector())
    assert tags.estimator_type == "outlier_detector"
    assert tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert not tags._skip_test
    assert os.environ["SCIPY_ARRAY_API"] == "1"  # by conftest.py
