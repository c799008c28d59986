"""Tests of the checks for image detectors: good ones pass, each fault is found."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

import skad
from skad.testing import check_image_detector, image_checks

EXAMPLE = Path(__file__).parents[1] / "examples" / "pixel_statistics_detector.py"
SPEC = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
sys.modules[EXAMPLE.stem] = example = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(example)  # pickle looks the class up in sys.modules
PixelStatisticsDetector = example.PixelStatisticsDetector


def failures(estimator):
    found = {}
    for name, check in image_checks(estimator):
        try:
            check()
        except AssertionError as error:
            found[name] = str(error)
    return found


# --- Detectors that pass ----------------------------------------------------------


def test_the_example_passes_and_is_never_fitted():
    estimator = PixelStatisticsDetector()
    names = check_image_detector(estimator)
    assert len(names) == len(set(names)) == 24
    assert vars(estimator) == {"contamination": 0.1}


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
@pytest.mark.parametrize(
    ("name", "check"),
    image_checks(skad.PatchAutoencoderDetector(4, epochs=1, random_state=0)),
)
def test_patch_autoencoder_detector(name, check):
    check()


# --- Detectors with one fault each ------------------------------------------------


class WritesInPredict(PixelStatisticsDetector):
    def predict(self, X):
        self.last_labels_ = super().predict(X)
        return self.last_labels_


class DependsOnTheOrder(PixelStatisticsDetector):
    def anomaly_map(self, X):
        maps = super().anomaly_map(X)
        maps[3:4] *= 1 + 1e-5 * (len(maps) < 100)
        return maps


class ScoresWithTheMean(PixelStatisticsDetector):
    def score_samples(self, X):
        return -self.anomaly_map(X).mean(axis=(1, 2))


class AcceptsOtherChannels(PixelStatisticsDetector):
    def _like_fitted(self, X):
        shape = np.shape(X) if isinstance(X, np.ndarray) else ()
        if len(shape) == 4 and self.image_shape_in_[2:] == (3,):
            X = np.resize(X, (*shape[:3], 3)) if shape[3] < 3 else X
        return super()._like_fitted(X)


class LosesStateInPickles(PixelStatisticsDetector):
    def __getstate__(self):
        state = super().__getstate__().copy()
        if "offset_" in state:
            state["offset_"] = round(state["offset_"], 3)
        return state


class UsesTheGlobalGenerator(PixelStatisticsDetector):
    def fit(self, X, y=None):
        np.random.rand()  # noqa: NPY002
        return super().fit(X)


class TakesAnyDevice(PixelStatisticsDetector):
    def __init__(self, contamination=0.1, device="auto"):
        super().__init__(contamination)
        self.device = device


@pytest.mark.parametrize(
    ("faulty", "found"),
    [
        (WritesInPredict, {"side_effects"}),
        (DependsOnTheOrder, {"order"}),
        (ScoresWithTheMean, {"anomaly_map", "predict_mask"}),
        (AcceptsOtherChannels, {"wrong_channels"}),
        (LosesStateInPickles, {"pickle"}),
        (UsesTheGlobalGenerator, {"side_effects"}),
        (TakesAnyDevice, {"device"}),
    ],
)
def test_a_fault_is_found_by_the_check_meant_for_it(faulty, found):
    assert set(failures(faulty())) == found


# --- What the failures say --------------------------------------------------------


def test_the_error_names_the_checks_and_tells_why():
    with pytest.raises(AssertionError) as caught:
        check_image_detector(DependsOnTheOrder())
    title, *_ = message = str(caught.value).splitlines()
    assert title == "DependsOnTheOrder fails 1 of 24 checks:"
    assert any(line.startswith("order: Expect scores") for line in message)
    assert any("Not equal to tolerance rtol=1e-06, atol=1e-06" in s for s in message)
    changed = failures(WritesInPredict())["side_effects"]
    assert "changed: ['last_labels_ by predict (uint8)', " in changed


def test_a_detector_of_rows_fails_but_does_not_stop_the_checks():
    found = failures(IsolationForest())
    assert "Found array with dim 3" in found["dtype_uint8"]
    assert "pickle" in found


def test_a_class_is_refused():
    with pytest.raises(TypeError, match="must be an instance; got the class"):
        list(image_checks(PixelStatisticsDetector))
